"""The node's log: one record, one line. Text for people; the durable record is the journal.

``emit`` may be called from the event loop at any rate: it puts the record into a bounded queue and returns. A thread
renders and writes, because a terminal or a pipe that nobody reads would otherwise stop the node. When the queue is
full the oldest record goes, the drop is counted, and a line says how many are missing. Nothing here ever raises.

Three renderings: ``terminal`` (short, coloured, local time), ``plain`` (ISO time, no colour) and ``json``.
Values of fields whose name looks like a secret are replaced; what a Worker itself prints is the Worker's own text.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol, TextIO

from stellwerk.core import limits
from stellwerk.core.times import iso_from_ms
from stellwerk.node.telemetry.metrics import Counters

Mode = Literal["terminal", "plain", "json"]
Record = dict[str, Any]

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"(secret|passw(or)?d|token|credential|cookie|authorization|api[-_]?key|private[-_]?key)s?$", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PLACED = ("at", "level", "event", "text", "stack", "worker", "version", "source")
_COLOURS = {"debug": "\x1b[2m", "info": "", "warn": "\x1b[33m", "error": "\x1b[31m"}
_DIM, _CYAN, _RESET = "\x1b[2m", "\x1b[36m", "\x1b[0m"


class _Now(Protocol):
    def now_ms(self) -> int: ...


class _UserRecord(Protocol):
    """``wire.isolate.LogRecord``, by its shape."""

    @property
    def at(self) -> int: ...
    @property
    def level(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def invocation(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def logger(self) -> str: ...
    @property
    def stack(self) -> str: ...


def choose_mode(stream: TextIO, *, as_json: bool) -> Mode:
    """JSON when asked for; colours in a terminal; plain lines elsewhere."""
    if as_json:
        return "json"
    return "terminal" if stream.isatty() else "plain"


def redact(value: Any, *, depth: int = 0) -> Any:
    """A copy of ``value`` that can be shown: secrets replaced by key, everything made JSON, depth bounded."""
    if depth >= limits.LOG_FIELD_DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if _SECRET_KEY.search(str(key)) else redact(item, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth=depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _text_of(value)
    return cut(text)


def cut(text: str) -> str:
    """At most ``LOG_TEXT_BYTES_MAX`` characters; what is missing is said."""
    if len(text) <= limits.LOG_TEXT_BYTES_MAX:
        return text
    return f"{text[: limits.LOG_TEXT_BYTES_MAX]}... ({len(text) - limits.LOG_TEXT_BYTES_MAX} characters more)"


def _text_of(value: object) -> str:
    try:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception as error:  # a __str__ of somebody else's
        return f"<{type(value).__name__}, unprintable: {type(error).__name__}>"


def render(record: Record, mode: Mode) -> str:
    """One record as text. JSON is one line; the others append a stack, indented, below it."""
    if mode == "json":
        shown = {**record, "at": iso_from_ms(record["at"])}
        return json.dumps(shown, ensure_ascii=False, separators=(",", ":"), default=str)
    terminal = mode == "terminal"
    line = f"{_moment(record['at'], terminal)} {_level(record['level'], terminal)} {_origin(record, terminal)}"
    line += _body(record, terminal)
    stack = record.get("stack")
    if stack:
        line += "".join(f"\n    {_plain(part)}" for part in str(stack).rstrip().splitlines())
    return line


def _moment(at_ms: int, terminal: bool) -> str:
    if not terminal:
        return iso_from_ms(at_ms)
    local = datetime.fromtimestamp(at_ms / 1000).astimezone()
    return f"{_DIM}{local:%H:%M:%S}.{at_ms % 1000:03d}{_RESET}"


def _level(level: str, terminal: bool) -> str:
    colour = _COLOURS.get(level, "")
    return f"{colour}{level:<5}{_RESET}" if terminal and colour else f"{level:<5}"


def _origin(record: Record, terminal: bool) -> str:
    worker = record.get("worker")
    if not worker:
        return "stellwerk"
    version = record.get("version")
    name = f"{worker}@{str(version)[:8]}" if version else str(worker)
    return f"{_CYAN}{name}{_RESET}" if terminal else name


def _body(record: Record, terminal: bool) -> str:
    parts = [str(record[key]) for key in ("event", "text") if record.get(key)]
    body = " ".join(_plain(part) for part in parts)
    fields = " ".join(
        f"{key}={_field(value)}" for key, value in record.items() if key not in _PLACED and value not in ("", None)
    )
    if not fields:
        return f" {body}" if body else ""
    return f" {body} {_DIM}{fields}{_RESET}" if terminal else f" {body} {fields}"


def _field(value: Any) -> str:
    if isinstance(value, str) and value and not any(c.isspace() or c in "\"'=" for c in value):
        return _plain(value)
    return _plain(json.dumps(value, ensure_ascii=False, default=str))


def _plain(text: str) -> str:
    """Control characters made visible: a Worker's text must not drive the operator's terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("\n", "\n    ")


class LogSink:
    """Takes records, writes lines. ``start`` begins writing; ``close`` writes what waits, at most ``LOG_FLUSH_MS``."""

    def __init__(
        self, *, clock: _Now, counters: Counters, stream: TextIO | None = None, mode: Mode | None = None
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self.mode: Mode = mode or choose_mode(self._stream, as_json=False)
        self._clock = clock
        self._counters = counters
        self._waiting: deque[Record] = deque()
        self._reported_drops = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the writing thread. Records emitted before are kept. Starting twice is harmless."""
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="stellwerk-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Writes what waits, then ends. Closing twice, or before starting, is harmless."""
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is None:
            self._write_waiting()
            return
        self._wake.set()
        thread.join(limits.LOG_FLUSH_MS / 1000)

    def emit(self, record: Record) -> None:
        """Takes a record (``level``, ``text`` or ``event``, anything else); completes ``at``. Never raises."""
        try:
            shown = redact(record)
            shown["at"] = record.get("at") or self._clock.now_ms()
            shown.setdefault("level", "info")
            self._counters.log_records += 1
            if len(self._waiting) >= limits.LOG_RECORDS_BUFFERED_MAX:
                self._waiting.popleft()
                self._counters.log_dropped += 1
            self._waiting.append(shown)
            self._wake.set()
        except Exception:
            self._counters.log_dropped += 1

    def emit_user(self, worker: str, version_id: str, record: _UserRecord) -> None:
        """What a Worker printed or logged, with everything that says where it came from."""
        named: Record = {"at": record.at, "level": record.level, "worker": worker, "version": version_id}
        for key in ("logger", "invocation", "instance", "step", "trace_id", "text", "stack"):
            value = getattr(record, key)
            if value:
                named[key] = value
        self.emit(named)

    def debug(self, event: str, **fields: Any) -> None:
        self.emit({"level": "debug", "event": event, **fields})

    def info(self, event: str, **fields: Any) -> None:
        self.emit({"level": "info", "event": event, **fields})

    def warn(self, event: str, **fields: Any) -> None:
        self.emit({"level": "warn", "event": event, **fields})

    def error(self, event: str, **fields: Any) -> None:
        self.emit({"level": "error", "event": event, **fields})

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._write_waiting()
            if self._closing and not self._waiting:
                return

    def _write_waiting(self) -> None:
        """Everything that waits, as one write: a busy Worker costs a system call per turn, not per line."""
        lines: list[str] = []
        while self._waiting:
            with contextlib.suppress(IndexError):  # emit may have dropped the last one just now
                lines.append(self._render(self._waiting.popleft()))
        missing = self._counters.log_dropped - self._reported_drops
        if missing > 0:
            self._reported_drops += missing
            lines.append(render(self._drop_record(missing), self.mode))
        if not lines:
            return
        try:
            text = "\n".join(lines) + "\n"
            encoding = self._stream.encoding or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):  # the reader went away, or the stream is closed: nobody is left to tell
            self._counters.log_dropped += len(lines)
            self._reported_drops += len(lines)

    def _render(self, record: Record) -> str:
        try:
            return render(record, self.mode)
        except Exception as error:  # a record that cannot be shown must not end the log
            self._counters.log_dropped += 1
            self._reported_drops += 1
            return f"log record not shown: {type(error).__name__}"

    def _drop_record(self, missing: int) -> Record:
        return {"at": self._clock.now_ms(), "level": "warn", "event": "log.dropped", "records": missing}
