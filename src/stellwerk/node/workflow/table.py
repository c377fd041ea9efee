"""The table of live runs: which runs this node holds in memory, under which number, and in which isolate."""

from __future__ import annotations

import asyncio

from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.live import Key, LiveRun, Place


class LiveTable:
    """Every run that something happens to is in here, once."""

    def __init__(self) -> None:
        self.runs: dict[Key, LiveRun] = {}
        self.by_number: dict[int, LiveRun] = {}  # those whose program an isolate has, or is about to get
        self._by_isolate: dict[Isolate, set[LiveRun]] = {}
        self._waiters: dict[Key, list[asyncio.Future[LiveRun]]] = {}
        self._next_number = 0

    def next_number(self) -> int:
        """A number for one life of a run in this node. Never given twice."""
        self._next_number += 1
        return self._next_number

    def add(self, live: LiveRun) -> None:
        self.runs[live.key] = live

    def holds(self, live: LiveRun) -> bool:
        """Whether this object is still the copy, and not one that was dropped."""
        return self.runs.get(live.key) is live

    def forget(self, live: LiveRun) -> None:
        live.timer_at = 0
        if self.holds(live):
            del self.runs[live.key]

    def at_work(self) -> bool:
        """Whether there is such a run, so that others should leave the loop to it now and then."""
        return bool(self.by_number)

    def enter(self, live: LiveRun, isolate: Isolate) -> None:
        """A new life of the run, in this isolate."""
        live.number = self.next_number()
        live.isolate, live.place, live.handed, live.held = isolate, Place.RUNNING, False, None
        self.by_number[live.number] = live
        self._by_isolate.setdefault(isolate, set()).add(live)

    def leave(self, live: LiveRun) -> None:
        """The run's life in its isolate is over."""
        self.by_number.pop(live.number, None)
        if live.isolate is not None:
            self._by_isolate.get(live.isolate, set()).discard(live)
        live.isolate, live.place, live.handed = None, Place.IDLE, False

    def take_from(self, isolate: Isolate) -> set[LiveRun]:
        """All runs of an isolate that has ended; they are in it no more."""
        lost = self._by_isolate.pop(isolate, set())
        for live in lost:
            self.leave(live)
        return lost

    def uses(self, version_id: str) -> bool:
        """Whether a run in memory may still reach this version."""
        return any(version_id in live.created.manifest.values() for live in self.runs.values())

    # -- who waits for the end of a run -------------------------------------------------------------------------------

    def wait(self, key: Key) -> asyncio.Future[LiveRun]:
        """The run as it was when it ended, or was paused. ``stop_waiting`` must follow."""
        waiter: asyncio.Future[LiveRun] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        return waiter

    def stop_waiting(self, key: Key, waiter: asyncio.Future[LiveRun]) -> None:
        waiting = self._waiters.get(key)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiters[key]

    def ended(self, live: LiveRun) -> None:
        """Tells everybody who waits; what ``live`` says is on disk."""
        for waiter in self._waiters.pop(live.key, ()):
            if not waiter.done():
                waiter.set_result(live)
