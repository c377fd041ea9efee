"""What user code prints and logs, as records."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from stellwerk.core.limits import LOG_RECORDS_BUFFERED_MAX, LOG_TEXT_BYTES_MAX
from stellwerk.isolate.logs import LogCapture, LogHandler, Scope, TextWriter, current, cut
from stellwerk.wire import isolate as messages
from stellwerk.wire.isolate import Log, LogRecord


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """``install`` is for a whole process: here it is undone, and pytest's own handlers are out of the way."""
    root = logging.getLogger()
    handlers, level, basic_config = list(root.handlers), root.level, logging.basicConfig
    streams = sys.stdout, sys.stderr
    root.handlers.clear()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.basicConfig = basic_config


def captured(main: Callable[[LogCapture], Coroutine[Any, Any, None]]) -> list[LogRecord]:
    """The records that ``main`` leaves behind, in order."""
    return [record for log in sent(main) for record in log.records]


def sent(main: Callable[[LogCapture], Coroutine[Any, Any, None]], **options: Any) -> list[Log]:
    found: list[Log] = []

    async def run() -> None:
        capture = LogCapture(found.append, now_ms=lambda: 42, **options)
        await main(capture)
        capture.flush()

    with own_logging():
        asyncio.run(run())
    return found


def test_a_print_is_one_record_however_many_lines_it_has() -> None:
    async def main(capture: LogCapture) -> None:
        capture.install()
        print("one")
        print("two\nlines")
        print("a", "b", sep=", ")
        print("to stderr", file=sys.stderr)

    assert [(record.level, record.text, record.at) for record in captured(main)] == [
        ("info", "one", 42),
        ("info", "two\nlines", 42),
        ("info", "a, b", 42),
        ("error", "to stderr", 42),
    ]


def test_a_line_is_kept_until_it_ends_or_is_flushed() -> None:
    async def main(capture: LogCapture) -> None:
        capture.install()
        print("begun, ", end="")
        print("ended")
        print("dots...", end="", flush=True)
        sys.stdout.write("x\ny")
        sys.stdout.flush()

    assert [record.text for record in captured(main)] == ["begun, ended", "dots...", "x\ny"]


def test_a_line_begun_on_behalf_of_one_invocation_is_not_ended_by_another() -> None:
    async def main(capture: LogCapture) -> None:
        out = TextWriter(capture, "info", fd=1)
        current.set(Scope("first"))
        out.write("mine")
        current.set(Scope("second"))
        out.write("yours\n")

    assert [(record.invocation, record.text) for record in captured(main)] == [("first", "mine"), ("second", "yours")]


def test_records_say_on_whose_behalf_they_were_written() -> None:
    async def main(capture: LogCapture) -> None:
        capture.install()

        async def handler(scope: Scope) -> None:
            current.set(scope)
            await asyncio.sleep(0)
            print("hello")
            await asyncio.to_thread(print, "from a thread")

        scopes = [Scope("r1", trace_id="t1"), Scope("i2", "i2", "charge-1", "t2")]
        await asyncio.gather(*map(handler, scopes))
        await asyncio.sleep(0)
        print("nobody's")

    found = {
        (record.text, record.invocation, record.instance, record.step, record.trace_id) for record in captured(main)
    }
    assert found == {
        ("hello", "r1", "", "", "t1"),
        ("hello", "i2", "i2", "charge-1", "t2"),
        ("from a thread", "r1", "", "", "t1"),
        ("from a thread", "i2", "i2", "charge-1", "t2"),
        ("nobody's", "", "", "", ""),
    }


def test_logging_keeps_logger_level_and_traceback_apart() -> None:
    async def main(capture: LogCapture) -> None:
        capture.install()
        log = logging.getLogger("shop.orders")
        log.warning("order %s is late", 7)
        log.info("below the root logger's level")
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("could not")
        log.error("two %s", "args", "too many")  # noqa: PLE1205 (the mistake under test)

    found = captured(main)
    assert [(record.level, record.logger, record.text) for record in found[:2]] == [
        ("warn", "shop.orders", "order 7 is late"),
        ("error", "shop.orders", "could not"),
    ]
    assert found[0].stack == ""
    assert found[1].stack.startswith("Traceback")
    assert found[1].stack.endswith("ValueError: bad")
    assert "could not be formatted" in found[2].text


def test_warnings_are_logged() -> None:
    async def main(capture: LogCapture) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            capture.install()
            warnings.warn("old way", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(False)

    (record,) = captured(main)
    assert (record.level, record.logger) == ("warn", "py.warnings")
    assert "old way" in record.text


def test_basic_config_sets_the_level_although_the_root_logger_has_a_handler() -> None:
    async def main(capture: LogCapture) -> None:
        capture.install()
        logging.basicConfig(level=logging.DEBUG, format="%(message)s!")
        logging.debug("seen")

    assert [(record.level, record.text) for record in captured(main)] == [("debug", "seen")]


def test_basic_config_with_an_output_of_the_users_own_takes_our_handlers_place() -> None:
    own = io.StringIO()

    async def main(capture: LogCapture) -> None:
        capture.install()
        logging.basicConfig(stream=own)
        assert not any(isinstance(handler, LogHandler) for handler in logging.getLogger().handlers)
        logging.warning("elsewhere")

    assert captured(main) == []
    assert own.getvalue() == "WARNING:root:elsewhere\n"


def test_one_turn_of_the_loop_is_one_message() -> None:
    async def main(capture: LogCapture) -> None:
        for number in range(3):
            capture.emit("info", str(number))
        await asyncio.sleep(0)
        capture.emit("info", "later")
        await asyncio.sleep(0)

    assert [[record.text for record in log.records] for log in sent(main)] == [["0", "1", "2"], ["later"]]


def test_nothing_is_sent_when_nothing_was_logged() -> None:
    async def main(capture: LogCapture) -> None:
        await asyncio.sleep(0)

    assert sent(main) == []


def test_past_the_buffer_the_oldest_records_go_and_are_counted() -> None:
    async def main(capture: LogCapture) -> None:
        for number in range(LOG_RECORDS_BUFFERED_MAX + 5):
            capture.emit("info", str(number))

    found = sent(main)
    assert sum(log.dropped for log in found) == 5
    texts = [record.text for log in found for record in log.records]
    assert len(texts) == LOG_RECORDS_BUFFERED_MAX
    assert (texts[0], texts[-1]) == ("5", str(LOG_RECORDS_BUFFERED_MAX + 4))


def test_messages_stay_below_what_a_frame_may_hold() -> None:
    async def main(capture: LogCapture) -> None:
        for _ in range(1_000):
            capture.emit("info", "x" * LOG_TEXT_BYTES_MAX, "y" * LOG_TEXT_BYTES_MAX)

    found = sent(main)
    assert sum(len(log.records) for log in found) == 1_000
    assert max(len(messages.encode(log)) for log in found) < 20 * 1024 * 1024


def test_records_wait_while_the_node_does_not_keep_up() -> None:
    open_ = asyncio.Event()

    async def main(capture: LogCapture) -> None:
        capture.emit("info", "early")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        capture.emit("info", "late")
        open_.set()

    found = sent(main, writable=open_.is_set)
    assert [[record.text for record in log.records] for log in found] == [["early", "late"]]


@pytest.mark.parametrize("letter", ["x", "ü", "😀"])
def test_long_text_is_cut_and_says_so(letter: str) -> None:
    text = cut(letter * 50_000)
    assert len(text.encode()) <= LOG_TEXT_BYTES_MAX
    assert text.endswith(f"[cut: {50_000 * len(letter.encode())} bytes]")
    assert cut(letter * 4_000) == letter * 4_000


def test_a_line_without_end_does_not_grow_without_end() -> None:
    async def main(capture: LogCapture) -> None:
        out = TextWriter(capture, "info", fd=1)
        for _ in range(100):
            out.write("x" * 1_000)
        out.flush()

    found = captured(main)
    assert len(found) > 1
    assert sum(len(record.text) for record in found) == 100_000


def test_bytes_written_to_the_buffer_are_text() -> None:
    async def main(capture: LogCapture) -> None:
        out = TextWriter(capture, "info", fd=1)
        out.buffer.write("grün\n".encode())
        with contextlib.redirect_stdout(out):
            print("redirected")
        with pytest.raises(TypeError):
            out.write(b"bytes")  # type: ignore[arg-type]
        assert (out.fileno(), out.isatty(), out.encoding) == (1, False, "utf-8")

    assert [record.text for record in captured(main)] == ["grün", "redirected"]
