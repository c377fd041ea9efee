"""The table of commands, and what is made from it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from stellwerk.cli.exits import MEANINGS, CommandError, Exit
from stellwerk.cli.main import COMMANDS, build_app, run
from stellwerk.cli.place import find_place
from stellwerk.cli.reference import render_reference
from stellwerk.cli.render import elapsed
from stellwerk.wire.api import NodeFile, encode_node_file

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_every_command_has_help_with_an_example(
    command: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = command.words  # type: ignore[attr-defined]
    assert run([*words, "--help"]) is Exit.OK
    shown = capsys.readouterr().out
    assert f"Example: stellwerk {' '.join(words)}" in shown
    assert "--json" in shown


def test_the_reference_is_fresh() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == render_reference(), "render it: python -m stellwerk.cli.reference > docs/cli.md"


def test_the_reference_names_every_command_option_and_exit_code() -> None:
    page = render_reference()
    app = build_app()
    for command in COMMANDS:
        assert f"### stellwerk {' '.join(command.words)}\n" in page
        leaf = app
        for word in command.words:
            leaf = leaf[word]
        for argument in leaf.assemble_argument_collection():
            for name in argument.names:
                assert not name.startswith("--") or f"`{name}`" in page
    for code in Exit:
        assert f"| {code.value} | {MEANINGS[code]} |" in page


def test_dev_becomes_the_node_with_everything_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append([path, *arguments]))
    assert run(["dev", "a", "b", "--port", "0", "--env", "staging", "--state", "s", "--json"]) is Exit.OK
    assert run(["serve", "--state", "s", "--ip", "::1", "--force"]) is Exit.OK
    python = [sys.executable, sys.executable, "-P", "-m", "stellwerk.node"]
    listening = ["--control-port", "8788", "--ip"]
    told = ["--state", "s", "--env", "staging", "--json"]
    assert calls == [
        [*python, "dev", "a", "b", "--port", "0", *listening, "127.0.0.1", *told],
        [*python, "serve", "--state", "s", "--port", "8787", *listening, "::1", "--force"],
    ]


def test_serve_without_a_state_folder_and_a_port_that_is_none_are_usage_errors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["serve"]) is Exit.USAGE
    assert run(["dev", "--port", "70000"]) is Exit.USAGE
    assert "stellwerk dev --help" in capsys.readouterr().err


def test_a_state_folder_of_a_node_that_listens_everywhere_is_called_on_loopback(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    for host, url in (("0.0.0.0", "http://127.0.0.1:9"), ("::1", "http://[::1]:9"), ("10.0.0.1", "http://10.0.0.1:9")):
        node = NodeFile(pid=1, control_host=host, control_port=9)
        (tmp_path / "node.json").write_bytes(encode_node_file(node))
        place = find_place(tmp_path, environment={}, cwd=tmp_path)
        assert (place.url, place.token) == (url, "t")


def test_a_damaged_node_file_is_not_reachable(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"pid": 1')
    with pytest.raises(CommandError) as caught:
        find_place(tmp_path, environment={}, cwd=tmp_path)
    assert caught.value.exit_code is Exit.UNREACHABLE


def test_durations_are_short() -> None:
    start = "2026-01-01T00:00:00.000Z"
    for end, shown in (
        ("2026-01-01T00:00:00.012Z", "12 ms"),
        ("2026-01-01T00:00:03.200Z", "3.2 s"),
        ("2026-01-01T00:04:00.000Z", "4 min"),
        ("2026-01-01T05:30:00.000Z", "5.5 h"),
        (None, "-"),
    ):
        assert elapsed(start, end) == shown
