"""The dispatcher: whose turn it is, and which isolate gets the run.

Runs start in the order in which they came. ``concurrency.limit`` of a workflow bounds how many of it run at once
(waiting ones do not count); the node bounds how many it holds in memory. A run that is suspected of ending isolates
gets one of its own, and only a few of those are started at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, IsolateStartError, StellwerkError
from stellwerk.core.isolate.machine import Status
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.live import Key, LiveRun, Place

START_FAILURES_MAX = 5  # isolates of its version that did not come up, before a run ends errored
START_RETRY_S = (0.1, 0.5, 2.0, 10.0)
LOOK_AGAIN_S = 1.0  # at a run of which the store could not say what it has, or did not take a decision


class Versions(Protocol):
    def loaded(self, version_id: str) -> LoadedVersion | None: ...

    async def load(self, version_id: str) -> LoadedVersion: ...


class Dispatcher:
    """``load(key)`` brings a run that was queued by its key only; ``wanted(live)`` says whether a copy is still the
    one, and was not dropped; ``adopt(live)`` records that a run has outlived its node, before anything is started for
    it; ``begin(live, isolate)`` hands it over; ``give_up(live, error)`` ends a run whose version cannot be started."""

    def __init__(
        self,
        pool: Pool,
        versions: Versions,
        *,
        load: Callable[[Key], Coroutine[Any, Any, LiveRun | None]],
        wanted: Callable[[LiveRun], bool],
        adopt: Callable[[LiveRun], Coroutine[Any, Any, None]],
        begin: Callable[[LiveRun, Isolate], None],
        give_up: Callable[[LiveRun, Exception], None],
        runs_max: int = limits.RUNS_LIVE_MAX,
    ) -> None:
        self._pool, self._versions = pool, versions
        self._load, self._wanted, self._adopt, self._begin, self._give_up = load, wanted, adopt, begin, give_up
        self._runs_max = runs_max
        self._queue: deque[LiveRun | Key] = deque()
        self._held: dict[str, deque[LiveRun | Key]] = {}  # workflows at their limit
        self._limits: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._count = 0
        self._solo = 0
        self._solo_waiting: deque[LiveRun] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def queued(self) -> int:
        return len(self._queue) + sum(map(len, self._held.values())) + len(self._solo_waiting)

    def limit(self, workflow: str, concurrency_max: int | None) -> None:
        """How many of a workflow may run at once, as its serving version says."""
        if concurrency_max is None:
            self._limits.pop(workflow, None)
        else:
            self._limits[workflow] = concurrency_max

    def enqueue(self, run: LiveRun | Key) -> None:
        """Takes the run in; it starts now if nothing is in its way."""
        if isinstance(run, LiveRun):
            run.place = Place.QUEUED
        workflow = run.workflow if isinstance(run, LiveRun) else run[0]
        if self._at_limit(workflow):
            self._held.setdefault(workflow, deque()).append(run)
        elif self._count >= self._runs_max:
            self._queue.append(run)
        else:
            self._start(run, workflow)

    def start_early(self, run: LiveRun) -> bool:
        """Starts a run that is still being written, if nobody waits before it and an isolate is ready now. False: its
        turn comes when it is on disk."""
        workflow = run.workflow
        if self._stopped or self._queue or self._at_limit(workflow) or self._count >= self._runs_max:
            return False
        version = self._versions.loaded(run.version_id)
        isolate = None if version is None else self._pool.ready(version)
        if isolate is None:
            return False
        self._enter(workflow)
        self._hand_over(run, isolate)
        return True

    def look_again(self, key: Key) -> None:
        """What the store has of this run is not known. In a moment it is read, and taken up if it is there."""
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self.enqueue, key)

    def _at_limit(self, workflow: str) -> bool:
        bound = self._limits.get(workflow)
        return bound is not None and self._running.get(workflow, 0) >= bound

    def left(self, workflow: str, *, solo: bool) -> None:
        """A run of this workflow has left its isolate: the next may start."""
        self._count -= 1
        self._running[workflow] -= 1
        if solo:
            self._solo -= 1
            if self._solo_waiting:
                self._start_solo(self._solo_waiting.popleft())
        held = self._held.get(workflow)
        while held and not self._at_limit(workflow):
            self._start(held.popleft(), workflow)
        if held is not None and not held:
            self._held.pop(workflow, None)
        while self._queue and self._count < self._runs_max:
            run = self._queue.popleft()
            self.enqueue(run)

    def _start(self, run: LiveRun | Key, workflow: str) -> None:
        if isinstance(run, LiveRun) and not self._wanted(run):
            return  # dropped while it waited for its turn; it is queued again by its key
        self._enter(workflow)
        if not isinstance(run, LiveRun):
            self._spawn(self._start_loaded(run))
            return
        run.place = Place.STARTING
        if run.solo:
            if self._solo >= limits.SOLO_ISOLATES_MAX:
                self._solo_waiting.append(run)
            else:
                self._start_solo(run)
            return
        version = self._versions.loaded(run.version_id)
        isolate = None if version is None or run.orphan else self._pool.ready(version)
        if isolate is not None:
            self._hand_over(run, isolate)
        else:
            self._spawn(self._acquire(run))

    def _enter(self, workflow: str) -> None:
        self._count += 1
        self._running[workflow] = self._running.get(workflow, 0) + 1

    def _start_solo(self, run: LiveRun) -> None:
        self._solo += 1
        self._spawn(self._acquire(run))

    async def _start_loaded(self, key: Key) -> None:
        try:
            live = await self._load(key)
        except StellwerkError:  # the store could not be read: the run keeps its turn, and is read again
            self.left(key[0], solo=False)
            self.look_again(key)
            return
        if live is None or live.state.terminal or live.place is not Place.IDLE:
            self.left(key[0], solo=False)
            return
        live.place = Place.STARTING
        await self._acquire(live)

    async def _acquire(self, live: LiveRun) -> None:
        if live.orphan and not self._is_over(live):
            await self._adopt(live)
        while not self._stopped:
            if self._is_over(live):
                self._leave_starting(live)
                return
            try:
                version = await self._versions.load(live.version_id)
                isolate = await self._pool.acquire(version, solo=live.solo)
            except CapacityError:
                await asyncio.sleep(START_RETRY_S[1])
                continue
            except IsolateStartError as error:
                live.failed_starts += 1
                if live.failed_starts >= START_FAILURES_MAX:
                    self._leave_starting(live)
                    self._give_up(live, error)
                    return
                await asyncio.sleep(START_RETRY_S[min(live.failed_starts, len(START_RETRY_S)) - 1])
                continue
            except StellwerkError as error:
                self._leave_starting(live)
                self._give_up(live, error)
                return
            if self._is_over(live):
                if live.solo:
                    self._pool.release_solo(isolate)
                continue
            if isolate.status is not Status.READY:  # it ended before this coroutine went on: nobody would tell the run
                continue
            live.failed_starts = 0
            self._hand_over(live, isolate)
            return

    def _is_over(self, live: LiveRun) -> bool:
        """Whether it needs no isolate any more: a second program of one run must not execute."""
        return live.state.terminal or not self._wanted(live)

    def _leave_starting(self, live: LiveRun) -> None:
        live.place = Place.IDLE
        self.left(live.workflow, solo=live.solo)

    def _hand_over(self, live: LiveRun, isolate: Isolate) -> None:
        isolate.begin()
        self._begin(live, isolate)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Starts nothing more. Queued runs stay what they are: rows that the next node takes up."""
        self._stopped = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
