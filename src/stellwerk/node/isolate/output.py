"""Raw output of an isolate: what was written to descriptors 1 and 2 past Python.

That is C code, and the interpreter itself when it dies. It comes through a pipe, apart from the channel, so that the
last words of a process that crashed are heard as well. The interpreter writes its traceback word by word: what comes
within a moment is one record, of whole lines.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from stellwerk.core import limits

_GATHER_MS = 10
_LAST_WORDS_CHARS = 4_000


class Output:
    """Reads one pipe. ``on_text`` gets pieces of at most ``LOG_TEXT_BYTES_MAX``, without the last line's end."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._fd = -1
        self._loop = asyncio.get_running_loop()
        self._gathered = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.last_words = ""

    def open(self, fd: int) -> None:
        """Takes over the read end of the pipe."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Takes what is still in the pipe, and closes it: another process may hold the other end for good."""
        while self._fd >= 0 and self._read():
            pass
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell(len(self._gathered))
        self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        """One read; whether it brought anything."""
        try:
            data = os.read(self._fd, limits.ISOLATE_OUTPUT_READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_fd()
            return False
        self._gathered += data
        if self._timer is None:
            self._timer = self._loop.call_later(_GATHER_MS / 1000, self._whole_lines)
        elif len(self._gathered) > limits.ISOLATE_OUTPUT_READ_BYTES:
            self._whole_lines()
        return True

    def _whole_lines(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._gathered.rfind(b"\n") + 1
        if not end and len(self._gathered) >= limits.LOG_TEXT_BYTES_MAX:
            end = len(self._gathered)  # a line without end
        self._tell(end)

    def _tell(self, size: int) -> None:
        data = bytes(self._gathered[:size])
        del self._gathered[:size]
        if not data:
            return
        self.last_words = (self.last_words + data.decode(errors="replace"))[-_LAST_WORDS_CHARS:]
        for start in range(0, size, limits.LOG_TEXT_BYTES_MAX):
            piece = data[start : start + limits.LOG_TEXT_BYTES_MAX].decode(errors="replace").rstrip("\n")
            if piece:
                self._on_text(piece)
