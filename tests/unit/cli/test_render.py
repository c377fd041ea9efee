"""What people see in a terminal, and what a pipe gets instead."""

from __future__ import annotations

import io
import sys

import pytest

from stellwerk.cli.exits import CommandError
from stellwerk.cli.render import Output, print_error

UUID = "0ff1a136-294e-4906-b018-a85636f6ab19"
TIME = "2026-11-24T23:59:52.089Z"
ROWS = [("a-long-instance-id-" + "x" * 60, "errored", UUID, TIME, {"a": "b\x1b[31m"})]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Output(as_json=False).table(("INSTANCE", "STATUS", "VERSION", "CREATED", "OUTPUT"), ROWS, empty="Nothing.")
    return stream.getvalue()


def test_a_terminal_gets_colours_short_ids_and_short_times_but_whole_names(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal())
    assert "\x1b[31merrored" in text
    assert ROWS[0][0] in text
    assert UUID not in text
    assert UUID[:8] in text
    assert "11-24 23:59:52" in text


def test_a_pipe_gets_tabs_and_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    header, row = shown(monkeypatch, io.StringIO()).splitlines()
    assert header.split("\t") == ["INSTANCE", "STATUS", "VERSION", "CREATED", "OUTPUT"]
    assert row.split("\t")[1:4] == ["errored", UUID, TIME]
    assert "\x1b" not in row


def test_an_empty_table_says_so_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, text in ((Terminal(), "Nothing."), (io.StringIO(), "A\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        Output(as_json=False).table(("A",), [], empty="Nothing.")
        assert text in stream.getvalue()


def test_an_error_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(CommandError("bad \x1b]0;owned\x07 name", cure="rename \x9b it"), as_json=False)
    err = capsys.readouterr().err
    assert "\x1b]0" not in err
    assert "\x9b" not in err
    assert "cure: rename" in err
