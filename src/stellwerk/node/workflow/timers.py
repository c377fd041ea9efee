"""Timers of runs: sleeps, time-outs of waits, and retry delays.

Service. A run in memory has its earliest due time in a heap here. A parked run costs nothing: its time stands in its
index row, and this service knows only the earliest of all. One timer of the event loop serves both.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from stellwerk.node.clock import Clock
from stellwerk.node.workflow.live import LiveRun
from stellwerk.store.base import InstanceRow, WorkflowRoom

DUE_BATCH = 500  # parked runs taken up per look; the next look follows at once while there are more
LOOK_AGAIN_MS = 60_000  # the longest pause between two looks, should a clock have jumped
COMPACT_AT = 1_000  # timers in memory; from then on stale ones are cleared out each time their number has doubled
RETRY_LOOK_MS = 1_000  # after a look that failed


class Timers:
    """``fire(live)`` is called for a run in memory, ``wake(row)`` is awaited for a parked one; both when it is due."""

    def __init__(
        self,
        clock: Clock,
        store: WorkflowRoom,
        fire: Callable[[LiveRun], None],
        wake: Callable[[list[InstanceRow]], Awaitable[None]],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._clock, self._store, self._fire, self._wake, self._on_error = clock, store, fire, wake, on_error
        self._heap: list[tuple[int, int, LiveRun]] = []
        self._compact_at = COMPACT_AT
        self._parked_at: int | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = 0
        self._looking: asyncio.Task[None] | None = None
        self._running = False
        self.started = asyncio.Event()

    async def start(self) -> None:
        self._running = True
        self._parked_at = await self._store.next_wake_at()
        self._arm()
        self.started.set()

    async def stop(self) -> None:
        """Stopping twice, or before the start, is harmless."""
        self._running = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def arm(self, live: LiveRun, due_at: int) -> None:
        """Fires ``live`` at ``due_at``. An earlier time replaces a later one; a stale one shows when it fires."""
        if live.timer_at and live.timer_at <= due_at:
            return
        live.timer_at = due_at
        if len(self._heap) >= self._compact_at:
            self._compact()
        heapq.heappush(self._heap, (due_at, live.number, live))
        self._arm()

    def _compact(self) -> None:
        """Timers that were replaced, or whose run has left, must not keep it in memory until they would have fired."""
        self._heap = [item for item in self._heap if item[2].timer_at == item[0]]
        heapq.heapify(self._heap)
        self._compact_at = max(COMPACT_AT, 2 * len(self._heap))

    def parked(self, due_at: int | None) -> None:
        """A run has left memory and wants to be woken at ``due_at``."""
        if due_at is not None and (self._parked_at is None or due_at < self._parked_at):
            self._parked_at = due_at
            self._arm()

    def _arm(self) -> None:
        if not self._running:
            return
        now = self._clock.now_ms()
        due = min(
            self._heap[0][0] if self._heap else now + LOOK_AGAIN_MS,
            self._parked_at if self._parked_at is not None else now + LOOK_AGAIN_MS,
        )
        if self._handle is not None:
            if self._handle_at <= due and self._handle_at > now:
                return
            self._handle.cancel()
        self._handle_at = due
        self._handle = asyncio.get_running_loop().call_later(max(0, due - now) / 1000, self._expired)

    def _expired(self) -> None:
        self._handle = None
        now = self._clock.now_ms()
        while self._heap and self._heap[0][0] <= now:
            due_at, _, live = heapq.heappop(self._heap)
            if live.timer_at == due_at:
                live.timer_at = 0
                self._fire(live)
        if self._looking is None and self._parked_at is not None and self._parked_at <= now:
            self._parked_at = None
            self._looking = asyncio.create_task(self._look(), name="timers: parked runs")
            self._looking.add_done_callback(self._looked)
        self._arm()

    async def _look(self) -> None:
        now = self._clock.now_ms()
        due = await self._store.due(now_ms=now, limit=DUE_BATCH)
        if due:
            await self._wake(due)
        self.parked(now if len(due) == DUE_BATCH else await self._store.next_wake_at())

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            assert isinstance(error, Exception)
            self._on_error(error)
            self.parked(self._clock.now_ms() + RETRY_LOOK_MS)
        elif self._running:
            self._arm()
