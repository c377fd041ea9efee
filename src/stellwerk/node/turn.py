"""The end of a turn of the event loop: what is sent in one turn goes out once, and then another thread may breathe.

A busy event loop starves other threads for seconds: each poll lets go of the GIL and takes it again, which restarts the
five milliseconds after which a waiting thread may ask for it (measured: what should take 0.4 ms took 1,554). Letting go
once per turn while the store's reader has work cures it, so every busy turn must come by here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

Flush = Callable[[], None]


class Turn:
    """Collects what has to be flushed at the end of this turn. ``crowded`` tells whether a thread has work."""

    __slots__ = ("_flushes", "_loop", "crowded")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._flushes: list[Flush] = []
        self.crowded: Callable[[], bool] = lambda: False

    def soon(self, flush: Flush) -> None:
        """Calls ``flush`` when the callbacks that are ready now have run."""
        if not self._flushes:
            self._loop.call_soon(self._end)
        self._flushes.append(flush)

    def _end(self) -> None:
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            flush()
        if self.crowded():
            time.sleep(0)
