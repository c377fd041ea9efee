"""Logs: what user code prints and logs becomes records that say on whose behalf it was written.

``print`` and ``sys.stderr`` go through text writers in the place of the standard streams, ``logging`` through one root
handler, ``console`` through the host. All end in ``LogCapture.emit``, which only appends to a buffer: what one turn of
the loop wrote leaves in one message. Nothing here waits. A node that does not keep up makes the buffer grow to its
limit, and then the oldest records go, counted.

Who wrote it is read from ``current``, a context variable that follows tasks and threads started by ``to_thread``.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from stellwerk.core import limits
from stellwerk.wire.isolate import Log, LogRecord

_MESSAGE_RECORDS_MAX = 500  # of at most 32 KiB each: below what a frame may hold
_RETRY_S = 0.05
_BEGUN_CHARS_MAX = limits.LOG_TEXT_BYTES_MAX // 4  # whatever the characters, nothing is cut


class Scope:
    """On whose behalf something is done: the names that a log record carries."""

    __slots__ = ("instance", "invocation", "step", "trace_id")

    def __init__(self, invocation: str = "", instance: str = "", step: str = "", trace_id: str = "") -> None:
        self.invocation, self.instance, self.step, self.trace_id = invocation, instance, step, trace_id


NOBODY = Scope()
current: ContextVar[Scope] = ContextVar("current")


def cut(text: str, bytes_max: int = limits.LOG_TEXT_BYTES_MAX) -> str:
    """``text``, or as much of it as a record may hold and a note of how long it was."""
    if len(text) * 4 <= bytes_max:  # no character takes more than four bytes: the usual case costs no encoding
        return text
    data = text.encode(errors="replace")
    if len(data) <= bytes_max:
        return text
    note = f" [cut: {len(data)} bytes]"
    return data[: bytes_max - len(note)].decode(errors="ignore") + note


class LogCapture:
    """Collects records and hands them to ``send`` at the end of the turn. Made on the isolate's loop.

    ``writable`` says whether the channel takes more now; while it does not, records wait here.
    """

    def __init__(
        self,
        send: Callable[[Log], None],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        writable: Callable[[], bool] = lambda: True,
    ) -> None:
        self._send, self._now_ms, self._writable = send, now_ms, writable
        self._records: deque[LogRecord] = deque(maxlen=limits.LOG_RECORDS_BUFFERED_MAX)
        self._dropped = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def emit(self, level: str, text: str, stack: str = "", logger: str = "") -> None:
        """One record, by whoever ``current`` says. Level: ``debug``, ``info``, ``warn``, ``error``. From any thread."""
        scope = current.get(NOBODY)
        record = LogRecord(
            self._now_ms(),
            level,
            cut(text),
            scope.invocation,
            scope.instance,
            scope.step,
            scope.trace_id,
            logger,
            cut(stack),
        )
        if len(self._records) == limits.LOG_RECORDS_BUFFERED_MAX:
            self._dropped += 1
        self._records.append(record)
        if not self._scheduled:
            self._scheduled = True
            self._schedule()

    def _schedule(self) -> None:
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self.flush)
            return
        try:
            self._loop.call_soon_threadsafe(self.flush)
        except RuntimeError:  # the loop is closed: a thread outlived its isolate's work
            self._scheduled = False

    def flush(self) -> None:
        """Sends what there is. On the loop's thread only."""
        self._scheduled = False
        while self._records or self._dropped:
            if not self._writable():
                self._scheduled = True
                self._loop.call_later(_RETRY_S, self.flush)
                return
            batch = [self._records.popleft() for _ in range(min(len(self._records), _MESSAGE_RECORDS_MAX))]
            dropped, self._dropped = self._dropped, 0
            self._send(Log(batch, dropped))

    def install(self) -> None:
        """Takes the places of ``sys.stdout``, ``sys.stderr`` and the root logger's handler in this process.

        Raw writes to descriptors 1 and 2 are not affected: they reach the node by a pipe.
        """
        sys.stdout = TextWriter(self, "info", fd=1)
        sys.stderr = TextWriter(self, "error", fd=2)
        root = logging.getLogger()
        root.addHandler(LogHandler(self))
        logging.captureWarnings(True)
        logging.basicConfig = _basic_config


class TextWriter(io.TextIOBase):
    """A standard stream: each ``print`` is one record, however many lines it has.

    ``print`` writes its text and then the line's end, so a record ends where a *write* ends with one.
    """

    def __init__(self, capture: LogCapture, level: str, *, fd: int) -> None:
        self._capture, self._level, self._fd = capture, level, fd
        self._begun = ""
        self._begun_by = NOBODY
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        scope = current.get(NOBODY)
        if self._begun and scope is not self._begun_by:
            self.flush()  # a line that somebody else began is that one's own
        if text.endswith("\n"):
            whole, self._begun = self._begun + text[:-1], ""
            self._capture.emit(self._level, whole)
        else:
            if len(self._begun) + len(text) > _BEGUN_CHARS_MAX:
                self.flush()
            self._begun += text
        self._begun_by = scope
        return len(text)

    def flush(self) -> None:
        """Ends the line that was begun."""
        begun, self._begun = self._begun, ""
        if begun:
            token = current.set(self._begun_by)
            try:
                self._capture.emit(self._level, begun)
            finally:
                current.reset(token)

    def close(self) -> None:
        """The process has only this one: it stays open."""


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes are taken as UTF-8."""

    def __init__(self, text: TextWriter) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        found = bytes(data)
        self._text.write(found.decode("utf-8", "replace"))
        return len(found)


class LogHandler(logging.Handler):
    """The root logger's handler: keeps the logger's name apart from the text, and the traceback as ``stack``."""

    def __init__(self, capture: LogCapture) -> None:
        super().__init__()
        self._capture = capture

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text, stack = record.getMessage(), _stack(record)
        except Exception as error:  # a wrong format string is the user's mistake and must not stop the program
            text, stack = f"{record.msg!r} could not be formatted with {record.args!r}: {error}", ""
        self._capture.emit(_level(record.levelno), text, stack, record.name)


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


def _stack(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[1] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip())
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


_python_basic_config = logging.basicConfig


def _basic_config(**options: Any) -> None:
    """``logging.basicConfig``: does nothing where the root logger has a handler, and here it always has one. So the
    level is honoured as if it had none and the format is ours; an output of the user's own takes our handler's place.
    """
    if any(options.get(name) for name in ("handlers", "filename", "stream")):
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if isinstance(handler, LogHandler)]:
            root.removeHandler(handler)
        _python_basic_config(**options)
    elif (level := options.get("level")) is not None:
        logging.getLogger().setLevel(level)
