"""Portions: work that may wait, so much in a turn of the event loop and the rest in the next ones.

Under load a turn is as long as all that the last one let come: 64 requests and 64 answers took 4 ms, and whatever has
to cross the node several times, as a step does on its way to the disk and back, paid that each time. In portions the
loop looks at its sockets in between (measured under 64 connections of hello, medians of six alternating runs: p99 of a
one-step run 25 ms before and 16 after). Long turns are cheaper, though, by about a tenth of the requests, so this is
done while there is somebody to wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Portions(Generic[Item]):
    """Calls ``act(item)`` for each item, in order: at once, or in portions while ``hurried()`` says that something else
    has to get through. ``act`` handles its own errors; what it raises all the same goes to the loop's handler, and the
    others go on."""

    __slots__ = ("_act", "_hurried", "_left", "_loop", "_per_turn", "_turning", "_waiting")

    def __init__(self, act: Callable[[Item], None], *, per_turn: int, hurried: Callable[[], bool]) -> None:
        self._act, self._per_turn, self._hurried = act, per_turn, hurried
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Item] = deque()
        self._left = 0  # of this turn's portion
        self._turning = False

    def __len__(self) -> int:
        """How many wait for a later turn."""
        return len(self._waiting)

    def add(self, item: Item) -> None:
        """In this turn, if there is room in it and nothing waits."""
        if not self._waiting and not self._hurried():
            self._act(item)
            return
        if not self._turning:
            self._turning = True
            self._left = self._per_turn
            self._loop.call_soon(self._next)
        if self._left and not self._waiting:
            self._left -= 1
            self._act(item)
        else:
            self._waiting.append(item)

    def extend(self, items: Iterable[Item]) -> None:
        for item in items:
            self.add(item)

    def flush(self) -> None:
        """All that waits, now."""
        while self._waiting:
            self._act(self._waiting.popleft())

    def _next(self) -> None:
        waiting = self._waiting
        self._left = self._per_turn
        self._turning = bool(waiting)
        if not waiting:
            return
        self._loop.call_soon(self._next)
        while waiting and self._left:
            self._left -= 1
            self._act(waiting.popleft())
