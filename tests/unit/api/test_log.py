"""The node's log: one record, one line; bounded; never in the way."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest

from stellwerk.core import limits
from stellwerk.node.telemetry.log import REDACTED, LogSink, Mode, choose_mode, redact
from stellwerk.node.telemetry.metrics import Counters
from stellwerk.wire.isolate import LogRecord


class FixedClock:
    def now_ms(self) -> int:
        return 1_764_025_200_123


def written(mode: Mode, *records: dict[str, Any]) -> str:
    stream = io.StringIO()
    sink = LogSink(clock=FixedClock(), counters=Counters(), stream=stream, mode=mode)
    sink.start()
    for record in records:
        sink.emit(record)
    sink.close()
    return stream.getvalue()


def test_a_plain_line_has_time_level_origin_and_fields() -> None:
    line = written(
        "plain", {"event": "isolate.ready", "worker": "orders", "version": "12345678-rest", "ms": 12, "x": "a b"}
    )
    assert line == '2025-11-24T23:00:00.123Z info  orders@12345678 isolate.ready ms=12 x="a b"\n'


def test_json_is_one_document_a_line() -> None:
    lines = written("json", {"event": "a", "text": "two\nlines"}, {"event": "b"}).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["a", "b"]
    assert json.loads(lines[0])["at"] == "2025-11-24T23:00:00.123Z"


def test_a_workers_record_says_where_it_came_from() -> None:
    stream = io.StringIO()
    sink = LogSink(clock=FixedClock(), counters=Counters(), stream=stream, mode="json")
    record = LogRecord(at=5, level="warn", text="hi", invocation="r1", instance="i1", step="charge-1", stack="T")
    sink.emit_user("orders", "v1", record)
    sink.close()
    shown = json.loads(stream.getvalue())
    assert shown == {
        "at": "1970-01-01T00:00:00.005Z",
        "level": "warn",
        "worker": "orders",
        "version": "v1",
        "invocation": "r1",
        "instance": "i1",
        "step": "charge-1",
        "text": "hi",
        "stack": "T",
    }


def test_values_whose_key_looks_like_a_secret_are_never_written() -> None:
    for key in (
        "token",
        "API_KEY",
        "Authorization",
        "db_password",
        "clientSecret",
        "set-cookie",
        "private-key",
        "secrets",
    ):
        for mode in ("plain", "json", "terminal"):
            text = written(mode, {"event": "x", key: "hunter2", "deep": [{key: {"a": "hunter2"}}]})
            assert "hunter2" not in text
            assert REDACTED in text
    assert redact({"tokens_used_by": "me", "trace_id": "t"}) == {"tokens_used_by": "me", "trace_id": "t"}


def test_a_workers_text_cannot_drive_the_terminal() -> None:
    for mode in ("plain", "terminal"):
        line = written(mode, {"text": "a\x1b]0;owned\x07b\r\nsecond"})
        assert "\x1b]" not in line
        assert "\x07" not in line
        assert "\n    second" in line


def test_nothing_that_is_emitted_raises() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    circle: dict[str, Any] = {}
    circle["self"] = circle
    text = written(
        "json",
        {"a": Hostile(), "b": circle, "c": b"\xff", "d": {1, 2}, "e": float("nan"), "f": "\ud800", "at": "yesterday"},
        {"event": "after"},
    )
    assert "after" in text


def test_long_text_is_cut_and_says_so() -> None:
    text = written("plain", {"text": "x" * (limits.LOG_TEXT_BYTES_MAX + 5)})
    assert "(5 characters more)" in text


class StuckStream(io.StringIO):
    """A pipe whose reader sleeps until it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.woken = threading.Event()

    def write(self, text: str) -> int:
        self.writing.set()
        assert self.woken.wait(20)
        return super().write(text)


def test_a_stuck_output_costs_the_oldest_records_and_says_how_many() -> None:
    stream, counters = StuckStream(), Counters()
    sink = LogSink(clock=FixedClock(), counters=counters, stream=stream, mode="json")
    sink.start()
    sink.info("first")
    assert stream.writing.wait(20)
    for number in range(limits.LOG_RECORDS_BUFFERED_MAX + 3):
        sink.info("more", number=number)
    stream.woken.set()
    sink.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert counters.log_dropped == 3
    assert [line["number"] for line in lines if line["event"] == "more"][0] == 3  # noqa: RUF015
    assert [line["records"] for line in lines if line["event"] == "log.dropped"] == [3]


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_an_output_that_went_away_is_counted_and_not_raised() -> None:
    counters = Counters()
    sink = LogSink(clock=FixedClock(), counters=counters, stream=ClosedPipe(), mode="plain")
    sink.start()
    sink.info("a")
    sink.close()
    sink.close()
    assert counters.log_dropped == 1


@pytest.mark.parametrize(("as_json", "mode"), [(True, "json"), (False, "plain")])
def test_without_a_terminal_there_is_no_colour(as_json: bool, mode: str) -> None:
    assert choose_mode(io.StringIO(), as_json=as_json) == mode
