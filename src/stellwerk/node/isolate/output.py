"""Raw output of an isolate: what was written to descriptors 1 and 2 past Python.

That is C code, and the interpreter itself when it dies. It comes through a pipe, apart from the channel, so that the
last words of a process that crashed are heard as well.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from stellwerk.core import limits

_LAST_WORDS_CHARS = 4_000


class Output:
    """Reads one pipe. ``on_text`` gets what one read brought, since a traceback mostly comes in one piece."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._fd = -1
        self._loop = asyncio.get_running_loop()
        self.last_words = ""

    def open(self, fd: int) -> None:
        """Takes over the read end of the pipe."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop.add_reader(fd, self.read)

    def read(self) -> None:
        if self._fd < 0:
            return
        try:
            data = os.read(self._fd, limits.ISOLATE_OUTPUT_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        text = data.decode(errors="replace")
        self.last_words = (self.last_words + text)[-_LAST_WORDS_CHARS:]
        for start in range(0, len(text), limits.LOG_TEXT_BYTES_MAX):
            piece = text[start : start + limits.LOG_TEXT_BYTES_MAX].rstrip("\n")
            if piece:
                self._on_text(piece)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
