"""The pool: which isolate serves a version now.

Service. Isolates are started when somebody needs one (one start at a time per version, everybody who waits gets it),
reused, joined by more when all are loaded, and let go when idle. What decides is in ``core/isolate``; here is what
carries it out. Whoever gets an isolate from ``ready`` or ``acquire`` calls its ``begin`` in the same turn of the loop:
until then the sweeper may take it away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, IsolateStartError
from stellwerk.core.isolate import capacity
from stellwerk.core.isolate.machine import Status
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.nursery import IsolateCounters, Nursery, is_live
from stellwerk.node.isolate.process import EndOfTurn, Isolate
from stellwerk.node.isolate.settings import PoolSettings
from stellwerk.node.isolate.sweeper import Sweeper
from stellwerk.wire.isolate import LogRecord

_MORE = "Raise `[limits] isolates_max` in its stellwerk.toml, or send it less at once."
_load = attrgetter("load")


@dataclass(slots=True)
class _Crew:
    """The isolates of one version, and who waits for one."""

    version: LoadedVersion
    ready: list[Isolate] = field(default_factory=list)
    starting: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    failures: int = 0  # starts in a row that failed
    retry_at_ms: int = 0
    error: IsolateStartError | None = None

    @property
    def isolates_max(self) -> int:
        return self.version.manifest.settings.isolates_max

    def loads(self) -> list[int]:
        return [isolate.load for isolate in self.ready]

    def wake(self, error: Exception | None = None) -> None:
        """Everybody who waits looks again, or hears why there is nothing to wait for."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class Pool:
    """All isolates of a node. ``on_messages(isolate, messages)`` gets what is about work. ``on_lost(isolate, cause,
    crashed)`` comes once for each isolate that was ready, when its process is reaped and all that it said is heard;
    ``crashed``: something that it did is to blame, so what it was doing is to be repeated with care."""

    def __init__(
        self,
        *,
        state: Path,
        clock: Clock,
        on_messages: Callable[[Isolate, list[Any]], None],
        on_lost: Callable[[Isolate, str, bool], None],
        on_log: Callable[[Isolate, LogRecord], None],
        end_of_turn: EndOfTurn | None = None,
        settings: PoolSettings | None = None,
    ) -> None:
        self._settings = settings or PoolSettings()
        self._clock, self._on_lost = clock, on_lost
        self._nursery = Nursery(
            self,
            state=state,
            clock=clock,
            settings=self._settings,
            said=on_messages,
            logged=on_log,
            end_of_turn=end_of_turn,
        )
        self.sweeper = Sweeper(self._nursery.isolates, clock=clock, settings=self._settings)
        self._crews: dict[str, _Crew] = {}
        self._starts: set[asyncio.Task[None]] = set()
        self._stopping = False

    # -- service ------------------------------------------------------------------------------------------------------

    @property
    def started(self) -> asyncio.Event:
        """Set while isolates can be made. An ``acquire`` before that just waits."""
        return self._nursery.zygote.started

    @property
    def counters(self) -> IsolateCounters:
        return self._nursery.counters

    @property
    def zygote_pid(self) -> int | None:
        return self._nursery.zygote.pid

    async def start(self) -> None:
        """Starts the zygote and returns; its imports go on meanwhile. On the main thread, before secrets are loaded."""
        self._stopping = False
        self._nursery.zygote.start()
        self.sweeper.start()

    async def stop(self) -> None:
        """Lets every isolate finish, kills what is left after the grace, ends the zygote. Twice is harmless."""
        self._stopping = True
        await self.sweeper.stop()
        for crew in self._crews.values():
            crew.wake(_stopping())
        await self._nursery.stop()
        await asyncio.gather(*self._starts, return_exceptions=True)
        self._crews.clear()

    # -- getting an isolate -------------------------------------------------------------------------------------------

    def ready(self, version: LoadedVersion) -> Isolate | None:
        """The least loaded isolate of this version that has room, if there is one now."""
        crew = self._crews.get(version.version_id)
        if crew is None or not crew.ready:
            return None
        best = crew.ready[0]
        if best.load and len(crew.ready) > 1:  # among equals the first, so that the others may fall idle
            best = min(crew.ready, key=_load)
        return best if best.load < limits.INVOCATIONS_PER_ISOLATE_MAX else None

    async def acquire(self, version: LoadedVersion, *, solo: bool = False) -> Isolate:
        """An isolate of this version, started if need be. ``solo``: a fresh one, for the caller alone.

        Raises ``BootFailedError`` (with the user's traceback) or another ``IsolateStartError`` when it does not come
        up; after a failure the next start waits (``CRASHES_BACKOFF_MS``), and until then the same error is raised at
        once. Raises ``CapacityError`` when the node has ``isolates_max`` isolates and none of them is idle, or when
        all isolates of the version stay full.
        """
        if self._stopping:
            raise _stopping()
        if solo:
            self._make_room()
            return await self._nursery.bring_up(self._nursery.new(version, solo=True))
        within_ms = self._settings.start_timeout_ms + limits.ISOLATE_EXIT_GRACE_MS  # the start's own time-out is first
        try:
            async with asyncio.timeout(within_ms / 1000):
                while (isolate := self.ready(version)) is None:
                    await self._wait(self._crews.setdefault(version.version_id, _Crew(version)))
                return isolate
        except TimeoutError:
            raise CapacityError(
                f"no isolate of Worker {version.worker!r} had room within {within_ms} ms.", cure=_MORE
            ) from None

    def release_solo(self, isolate: Isolate) -> None:
        """The caller has done with it; it ends."""
        isolate.drain(within_ms=self._settings.drain_ms)

    def drain_version(self, version_id: str) -> None:
        """Nothing needs this version any more: its isolates finish what they have, and end."""
        crew = self._crews.pop(version_id, None)
        if crew is not None:
            crew.wake(IsolateStartError("this version was withdrawn.", cure="Use the one that is deployed now."))
        for isolate in list(self._nursery.isolates.values()):
            if isolate.version.version_id == version_id:
                isolate.drain(within_ms=self._settings.drain_ms)

    def kill(self, isolate: Isolate, cause: str) -> None:
        """Ends it now. ``on_lost`` follows, with this cause and ``crashed`` False."""
        isolate.kill(cause)

    def snapshot(self) -> list[dict[str, Any]]:
        """What there is now, for metrics and the control plane."""
        return [
            {
                "id": isolate.id,
                "pid": isolate.pid,
                "worker": isolate.version.worker,
                "version_id": isolate.version.version_id,
                "status": isolate.status.value,
                "load": isolate.load,
                "invocations": isolate.uses,
                "solo": isolate.solo,
                "started_at": isolate.started_at_ms,
            }
            for isolate in self._nursery.isolates.values()
        ]

    # -- starting -----------------------------------------------------------------------------------------------------

    async def _wait(self, crew: _Crew) -> None:
        """Waits until it is worth looking again; sees to it that something is under way."""
        if self._stopping:
            raise _stopping()
        if crew.error is not None and self._clock.monotonic_ms() < crew.retry_at_ms:
            raise crew.error.with_traceback(None)
        if len(crew.waiters) >= limits.ISOLATE_WAITERS_MAX:
            waiting = f"{len(crew.waiters)} invocations of Worker {crew.version.worker!r} wait for an isolate already."
            raise CapacityError(waiting, cure=_MORE)
        if capacity.may_start(crew.loads(), starting=crew.starting, isolates_max=crew.isolates_max):
            try:
                self._add(crew)
            except CapacityError:
                if not crew.ready:
                    raise
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        crew.waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    crew.waiters.remove(waiter)

    def _add(self, crew: _Crew) -> None:
        """Starts one more isolate of this version; who waits for it hears how it went."""
        self._make_room()
        isolate = self._nursery.new(crew.version, solo=False)
        crew.starting += 1
        task = asyncio.create_task(self._join(crew, isolate), name=f"start of isolate {isolate.id}")
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _join(self, crew: _Crew, isolate: Isolate) -> None:
        try:
            isolate = await self._nursery.bring_up(isolate)
        except Exception as error:
            crew.starting -= 1
            crew.failures += 1
            crew.retry_at_ms = self._clock.monotonic_ms() + capacity.backoff_ms(crew.failures)
            crew.error = error if isinstance(error, IsolateStartError) else _unexpected(error)
            if not crew.ready:
                crew.wake(crew.error)
            return
        crew.starting -= 1
        crew.error, crew.failures = None, 0
        if isolate.status is Status.READY:  # it may have ended again meanwhile
            crew.ready.append(isolate)
        crew.wake()

    def _make_room(self) -> None:
        """Past the node's limit, the longest idle isolate goes. Raises ``CapacityError`` when all are at work."""
        live = [isolate for isolate in self._nursery.isolates.values() if is_live(isolate)]
        if len(live) < self._settings.isolates_max:
            return
        idle = [isolate for isolate in live if isolate.status is Status.READY and not isolate.load and not isolate.solo]
        if not idle:
            raise CapacityError(
                f"this node has {len(live)} isolates, its limit, and all of them are at work.",
                cure="Try again later; or add memory and raise the limit.",
            )
        min(idle, key=self.sweeper.quiet_since_ms).drain(within_ms=self._settings.drain_ms)

    # -- what becomes of isolates (Keeper) ----------------------------------------------------------------------------

    def pressed(self, isolate: Isolate) -> None:
        crew = self._crews.get(isolate.version.version_id)
        if crew is None or isolate.solo or self._stopping or self._clock.monotonic_ms() < crew.retry_at_ms:
            return
        if capacity.wants_another(
            crew.loads(),
            starting=crew.starting,
            isolates_max=crew.isolates_max,
            scale_load=self._settings.scale_load,
        ):
            with contextlib.suppress(CapacityError):  # then the ones there are must do
                self._add(crew)

    def roomy(self, isolate: Isolate) -> None:
        crew = self._crews.get(isolate.version.version_id)
        if crew is not None and crew.waiters:
            crew.wake()

    def severed(self, isolate: Isolate) -> None:
        crew = self._crews.get(isolate.version.version_id)
        if crew is not None and isolate in crew.ready:
            crew.ready.remove(isolate)

    def ended(self, isolate: Isolate, cause: str) -> None:
        if isolate.was_ready:
            # One that went with its zygote is not suspected of anything: they all went.
            self._on_lost(isolate, cause, isolate.status is Status.CRASHED and not isolate.orphaned)
        self.roomy(isolate)


def _stopping() -> CapacityError:
    return CapacityError("the node is stopping.", cure="Try again when it is back.")


def _unexpected(error: Exception) -> IsolateStartError:
    wrapped = IsolateStartError(f"an isolate could not be started: {error!r}.", cure="The node's log says more.")
    wrapped.__cause__ = error
    return wrapped
