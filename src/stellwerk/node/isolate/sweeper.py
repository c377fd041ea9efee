"""The sweeper: the one loop that looks after isolates: idle ones give their memory back, blocked ones are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from stellwerk.core.isolate import capacity
from stellwerk.core.isolate.machine import Status
from stellwerk.node.clock import Clock
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.settings import PoolSettings


@dataclass(slots=True)
class _Trace:
    """When an isolate was last seen to do anything, as exactly as the sweeps are."""

    uses: int
    since_ms: int


class Sweeper:
    """Service. ``isolates`` is the live list of all there are. Solo isolates are their caller's to end."""

    def __init__(self, isolates: Mapping[int, Isolate], *, clock: Clock, settings: PoolSettings) -> None:
        self._isolates, self._clock, self._settings = isolates, clock, settings
        self._traces: dict[int, _Trace] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name="isolate sweeper")

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_ms / 1000)
            self.sweep()

    def sweep(self) -> None:
        """Drains the isolates that have had nothing to do for their Worker's ``isolates_idle_s``."""
        now_ms = self._clock.monotonic_ms()
        kept: dict[int, _Trace] = {}
        for isolate in list(self._isolates.values()):
            if isolate.status is not Status.READY:
                continue
            isolate.look(now_ms, self._settings.blocked_ms_max)
            if isolate.solo:
                continue
            trace = self._traces.get(isolate.id)
            if trace is None or trace.uses != isolate.uses or isolate.load:
                trace = _Trace(isolate.uses, now_ms)
            kept[isolate.id] = trace
            idle_ms = isolate.version.manifest.settings.isolates_idle_s * 1000
            if capacity.is_idle(load=isolate.load, quiet_ms=now_ms - trace.since_ms, idle_ms=idle_ms):
                isolate.drain(within_ms=self._settings.drain_ms)
        self._traces = kept

    def quiet_since_ms(self, isolate: Isolate) -> int:
        """For the choice of whom to let go first; 0 for one that no sweep has seen yet."""
        trace = self._traces.get(isolate.id)
        return trace.since_ms if trace is not None else 0
