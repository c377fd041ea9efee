"""The collector: at the start, and then once an hour, removes files that no version needs any more."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from stellwerk.core import limits
from stellwerk.node.deployment.deployments import Deployments


class CollectorLog(Protocol):
    """What of the node's log this service needs."""

    def info(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


class Collector:
    """A service; stopping twice or before starting is harmless. A pass that fails is logged and tried again later."""

    def __init__(
        self,
        deployments: Deployments,
        *,
        log: CollectorLog | None = None,
        interval_ms: int = limits.COLLECT_INTERVAL_MS,
    ) -> None:
        self._deployments = deployments
        self._log = log
        self._interval_ms = interval_ms
        self._task: asyncio.Task[None] | None = None
        self.started = asyncio.Event()
        self.passed = asyncio.Event()  # set at the end of each pass; for whoever waits for one

    async def start(self) -> None:
        """Begins in the background: nothing waits for the first pass. ``deployments`` must have started."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="collector")
            self.started.set()

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.started.clear()

    async def _run(self) -> None:
        while True:
            await self._pass()
            self.passed.set()
            await asyncio.sleep(self._interval_ms / 1000)

    async def _pass(self) -> None:
        try:
            removed = await self._deployments.collect()
        except Exception as error:
            if self._log is not None:
                self._log.error("deployment.collect_failed", text=f"{type(error).__name__}: {error}")
        else:
            if removed and self._log is not None:
                self._log.info("deployment.collected", folders=len(removed))
