"""The nursery: brings isolates up, one by one, and keeps the list of all that live.

An isolate is *up* when it has said Ready. Until then its end is a failed start, which whoever asked for it hears as
``IsolateStartError``; after that its end is a loss, which the pool hears.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from stellwerk.core import limits
from stellwerk.core.errors import IsolateStartError
from stellwerk.core.isolate.machine import Status
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.process import BootFailedError, EndOfTurn, Isolate
from stellwerk.node.isolate.settings import PoolSettings
from stellwerk.node.isolate.zygote import Zygote, ZygoteLostError
from stellwerk.wire.isolate import LogRecord


class Keeper(Protocol):
    """Who decides about isolates that are up: the pool. The methods are those of ``process.Owner``."""

    def pressed(self, isolate: Isolate) -> None: ...

    def roomy(self, isolate: Isolate) -> None: ...

    def severed(self, isolate: Isolate) -> None: ...

    def ended(self, isolate: Isolate, cause: str) -> None: ...


class IsolateCounters:
    """Exported as ``stellwerk_isolates_<name>_total``."""

    __slots__ = ("log_dropped",)

    def __init__(self) -> None:
        self.log_dropped = 0  # records that isolates threw away because their channel did not keep up


class Nursery:
    """All isolates, and the zygote they come from. Is the ``Owner`` of each isolate."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        state: Path,
        clock: Clock,
        settings: PoolSettings,
        said: Callable[[Isolate, list[Any]], None],
        logged: Callable[[Isolate, LogRecord], None],
        end_of_turn: EndOfTurn | None,
    ) -> None:
        self._clock, self._settings, self._end_of_turn = clock, settings, end_of_turn
        self.said, self.logged = said, logged
        self.pressed, self.roomy, self.severed = keeper.pressed, keeper.roomy, keeper.severed
        self._keeper = keeper
        self.counters = IsolateCounters()
        self.zygote = Zygote(settings.zygote, alive=state / "alive", on_exit=self._reaped, on_lost=self._zygote_lost)
        self.isolates: dict[int, Isolate] = {}
        self._starts: dict[int, asyncio.Future[None]] = {}  # of isolates that have not said Ready yet
        self._last_id = 0
        self._empty = asyncio.Event()

    async def stop(self) -> None:
        """Lets every isolate finish, kills what is left after the grace, ends the zygote. Twice is harmless."""
        self.zygote.refuse_orders()
        grace_ms = self._settings.stop_grace_ms
        for isolate in list(self.isolates.values()):
            isolate.drain(within_ms=grace_ms)
        if self.isolates:
            self._empty.clear()
            # A process that hangs in the kernel cannot be waited for; the zygote's end takes the rest with it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((grace_ms + 3 * limits.ISOLATE_EXIT_GRACE_MS) / 1000):
                    await self._empty.wait()
        await self.zygote.stop()

    # -- bringing up --------------------------------------------------------------------------------------------------

    def new(self, version: LoadedVersion, *, solo: bool) -> Isolate:
        """An isolate that is counted from now on and has no process yet: ``bring_up`` must follow."""
        self._last_id += 1
        isolate = Isolate(
            self._last_id,
            version,
            owner=self,
            solo=solo,
            scale_load=self._settings.scale_load,
            end_of_turn=self._end_of_turn,
        )
        isolate.started_at_ms = self._clock.now_ms()
        self.isolates[isolate.id] = isolate
        self._starts[isolate.id] = asyncio.get_running_loop().create_future()
        return isolate

    async def bring_up(self, isolate: Isolate) -> Isolate:
        """From nothing to Ready; tried twice when the zygote goes away meanwhile. Gives the one that is ready.

        Raises ``IsolateStartError``; nothing of the isolate remains then.
        """
        try:
            return await self._attempt(isolate)
        except ZygoteLostError:
            return await self._attempt(self.new(isolate.version, solo=isolate.solo))

    async def _attempt(self, isolate: Isolate) -> Isolate:
        answer = self._starts[isolate.id]
        within_ms = self._settings.start_timeout_ms
        try:
            async with asyncio.timeout(within_ms / 1000):
                await isolate.launch(self.zygote)
                await asyncio.shield(answer)
        except TimeoutError:
            isolate.kill("it took too long to start")
            raise IsolateStartError(
                f"Worker {isolate.version.worker!r} did not start within {within_ms} ms.",
                cure="Its module does too much on import: move work into the handlers.",
            ) from None
        except asyncio.CancelledError:
            isolate.kill("nobody waits for it any more")
            raise
        finally:
            self._starts.pop(isolate.id, None)
            if isolate.pid == 0:
                self._forget(isolate)
        return isolate

    def _fail(self, isolate: Isolate, error: IsolateStartError) -> None:
        start = self._starts.get(isolate.id)
        if start is not None and not start.done():
            start.set_exception(error)
            start.exception()  # seen: whoever waited for it may have given up

    def _forget(self, isolate: Isolate) -> None:
        self.isolates.pop(isolate.id, None)
        if not self.isolates:
            self._empty.set()

    # -- what isolates say (Owner) ------------------------------------------------------------------------------------

    def booted(self, isolate: Isolate) -> None:
        start = self._starts.get(isolate.id)
        if start is not None and not start.done():
            start.set_result(None)

    def refused(self, isolate: Isolate, error: IsolateStartError) -> None:
        stack = error.error.stack if isinstance(error, BootFailedError) else ""
        record = LogRecord(at=self._clock.now_ms(), level="error", text=str(error), logger="stellwerk", stack=stack)
        self.logged(isolate, record)
        self._fail(isolate, error)

    def dropped(self, isolate: Isolate, records: int) -> None:
        self.counters.log_dropped += records
        text = f"{records} log records were dropped: more came than could be sent."
        self.noted(isolate, text, logger="stellwerk")

    def noted(self, isolate: Isolate, text: str, *, logger: str) -> None:
        self.logged(isolate, LogRecord(at=self._clock.now_ms(), level="warn", text=text, logger=logger))

    def ended(self, isolate: Isolate, cause: str) -> None:
        self._forget(isolate)
        if not isolate.was_ready:
            self._fail(isolate, _start_error(isolate, cause))
        self._keeper.ended(isolate, cause)

    # -- what the zygote says -----------------------------------------------------------------------------------------

    def _reaped(self, number: int, code: int | None, number_of_signal: int | None) -> None:
        isolate = self.isolates.get(number)
        if isolate is not None:
            isolate.reaped(code, number_of_signal)

    def _zygote_lost(self) -> None:
        for isolate in list(self.isolates.values()):
            isolate.watch_pidfd()


def _start_error(isolate: Isolate, cause: str) -> IsolateStartError:
    if isolate.orphaned:
        return ZygoteLostError(cause, cure="Try again.")
    words = isolate.output.last_words.strip()
    return IsolateStartError(
        f"Worker {isolate.version.worker!r} ended while it started: {cause}." + (f"\n{words}\n" if words else ""),
        cure="Its log says more, if its module got to say anything on import.",
    )


def is_live(isolate: Isolate) -> bool:
    """Whether it takes work, or will soon. The others give their memory back in a moment."""
    return isolate.status in (Status.STARTING, Status.READY)
