"""One isolate as the node sees it: a process, its channel, and its status.

It is over when *both* are over: the process reaped (so that nothing of it can still act) and the channel at its end
(so that everything it said has been heard). Where one of the two does not follow the other within a grace, it is
ended by force. Only then is the owner told, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from stellwerk.core import limits
from stellwerk.core.errors import IsolateStartError
from stellwerk.core.isolate.machine import ENDED, Input, Status, move
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.boot import boot_message
from stellwerk.node.isolate.output import Output
from stellwerk.node.isolate.zygote import Zygote
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import Channel
from stellwerk.wire.frames import FrameError
from stellwerk.wire.isolate import Export, LogRecord

EndOfTurn = Callable[[Callable[[], None]], None]

_OWN = frozenset({messages.Ready, messages.BootFailed, messages.Log, messages.Pong})


class BootFailedError(IsolateStartError):
    """The Worker's module did not import. ``error`` has the user's traceback."""

    def __init__(self, worker: str, error: ErrorValue) -> None:
        super().__init__(
            f"Worker {worker!r} did not start: {error.name}: {error.message}",
            cure="The traceback is in the log; correct the module and deploy it again.",
        )
        self.error = error


class Owner(Protocol):
    """Who is told what becomes of an isolate: the pool."""

    def booted(self, isolate: Isolate) -> None: ...

    def refused(self, isolate: Isolate, error: IsolateStartError) -> None: ...

    def said(self, isolate: Isolate, batch: list[Any]) -> None:
        """Messages that are about work, in order, never an empty list."""

    def logged(self, isolate: Isolate, record: LogRecord) -> None: ...

    def dropped(self, isolate: Isolate, records: int) -> None:
        """So many log records the isolate had to throw away."""

    def noted(self, isolate: Isolate, text: str, *, logger: str) -> None:
        """A warning of ours, or raw output, for the Worker's log."""

    def severed(self, isolate: Isolate) -> None:
        """It takes no more work: its channel has ended, or it is being ended."""

    def ended(self, isolate: Isolate, cause: str) -> None:
        """Called once, the last that is heard of it. ``isolate.status`` says stopped or crashed."""

    def pressed(self, isolate: Isolate) -> None:
        """Its load has just reached the mark at which another isolate may be worth it."""

    def roomy(self, isolate: Isolate) -> None:
        """It was full and has room again."""


class Isolate:
    """The node's view of one process. ``begin`` and ``end`` bracket every invocation and run it is given."""

    __slots__ = (
        "_channel_open",
        "_exit",
        "_exit_wanted",
        "_loop",
        "_overdue",
        "_owner",
        "_pidfd",
        "_pinged_at_ms",
        "_scale_load",
        "_timer",
        "channel",
        "exports",
        "id",
        "load",
        "orphaned",
        "output",
        "pid",
        "solo",
        "started_at_ms",
        "status",
        "uses",
        "version",
        "was_ready",
    )

    def __init__(
        self,
        number: int,
        version: LoadedVersion,
        *,
        owner: Owner,
        solo: bool,
        scale_load: int,
        end_of_turn: EndOfTurn | None,
    ) -> None:
        self.id, self.version, self.solo = number, version, solo
        self.status = Status.STARTING
        self.load = 0
        self.uses = 0  # begins so far; the sweeper sees by it whether anything happened
        self.exports: list[Export] = []
        self.pid = 0
        self.was_ready = False
        self.orphaned = False  # ended because the zygote did
        self.started_at_ms = 0
        # C code and the dying interpreter: which descriptor it was is unknown, so the level is between the two
        self.output = Output(lambda text: owner.noted(self, text, logger="output"))
        self.channel = Channel(self._on_messages, self._on_channel_lost, end_of_turn)
        self._owner, self._scale_load = owner, scale_load
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        self._channel_open = False
        self._pinged_at_ms = 0  # an unanswered question for a sign of life
        self._overdue = False
        self._exit: tuple[Input, str] | None = None
        self._exit_wanted = ""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Isolate {self.id} of {self.version.worker} {self.status} pid={self.pid} load={self.load}>"

    # -- load (hot) ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """One more invocation or run is in it."""
        self.load = load = self.load + 1
        self.uses += 1
        if load == self._scale_load:
            self._owner.pressed(self)

    def end(self) -> None:
        """One less. Each ``begin`` has exactly one ``end``, also when the isolate is lost."""
        self.load = load = self.load - 1
        if load == limits.INVOCATIONS_PER_ISOLATE_MAX - 1:
            self._owner.roomy(self)

    # -- birth --------------------------------------------------------------------------------------------------------

    async def launch(self, zygote: Zygote) -> None:
        """Forks the process and sends it ``Boot``. The owner hears the rest. Raises ``IsolateStartError``."""
        mine, theirs = socket.socketpair()
        output, output_end = os.pipe2(os.O_CLOEXEC)
        try:
            with theirs:
                born = await zygote.fork(self.id, self.version.worker, channel_fd=theirs.fileno(), output_fd=output_end)
        except BaseException:
            mine.close()
            os.close(output)
            raise
        finally:
            os.close(output_end)
        self.pid, self._pidfd = born.pid, born.pidfd
        self.output.open(output)
        if self.status is not Status.STARTING:
            self._sigkill()  # given up before it was born
        mine.setblocking(False)
        self._channel_open = True
        await self._loop.create_unix_connection(lambda: self.channel, sock=mine)
        if self.status is Status.STARTING:
            self.channel.send(boot_message(self.version))  # secrets travel here, never through the zygote

    # -- orders -------------------------------------------------------------------------------------------------------

    def drain(self, *, within_ms: int) -> None:
        """Lets it finish what it has; after ``within_ms`` it is killed. Harmless when it is ending already."""
        if self.status in ENDED:
            return
        was = self.status
        self._move(Input.DRAIN)
        if was is Status.READY:
            self._exit_wanted = "drained"
            self.channel.send(messages.Drain())
            self._after(within_ms, f"killed, because it had not finished within {within_ms} ms")
            self._owner.severed(self)
        elif was is Status.STARTING:
            self._exit_wanted = "not needed any more"
            self._sigkill()

    def kill(self, cause: str) -> None:
        """Ends it now. ``cause`` is what the owner will hear. Harmless when it has ended."""
        if self.status in ENDED:
            return
        if self.status is not Status.KILLING and self.status is not Status.SEVERED:
            self._exit_wanted = cause
        self._move(Input.KILL)
        self._sigkill()
        self._owner.severed(self)

    def _after(self, delay_ms: int, cause: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_ms / 1000, self.kill, cause)

    def _sigkill(self) -> None:
        if self._pidfd >= 0 and self._exit is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _move(self, incoming: Input) -> None:
        self.status = move(self.status, incoming)

    # -- signs of life ------------------------------------------------------------------------------------------------

    def look(self, now_ms: int, blocked_ms_max: int) -> None:
        """Asks for a sign of life while it has work, and kills it when none has come for too long.

        Overdue is believed at the second look only: a node that was paused finds the answer in its socket first.
        """
        if not self._pinged_at_ms:
            if self.load:
                self._pinged_at_ms = now_ms
                self.channel.send(messages.Ping())
        elif now_ms - self._pinged_at_ms < blocked_ms_max:
            return
        elif self._overdue:
            self.kill(f"its code blocked it for more than {blocked_ms_max // 1000} s")
        else:
            self._overdue = True

    # -- what it says -------------------------------------------------------------------------------------------------

    def _on_messages(self, channel: Channel, batch: list[Any]) -> None:
        if not _OWN.isdisjoint(map(type, batch)):
            for message in batch:
                if type(message) in _OWN:
                    self._own(message)
            batch = [message for message in batch if type(message) not in _OWN]
        if batch and self.was_ready:
            self._owner.said(self, batch)

    def _own(self, message: messages.Ready | messages.BootFailed | messages.Log | messages.Pong) -> None:
        if isinstance(message, messages.Pong):
            self._pinged_at_ms, self._overdue = 0, False
        elif isinstance(message, messages.Log):
            for record in message.records:
                self._owner.logged(self, record)
            if message.dropped:
                self._owner.dropped(self, message.dropped)
        elif self.status is not Status.STARTING:
            self._move(Input.BOOTED if isinstance(message, messages.Ready) else Input.REFUSED)
        elif isinstance(message, messages.BootFailed):
            self._refuse(BootFailedError(self.version.worker, message.error))
        elif message.protocol != messages.PROTOCOL:
            found = f"the isolate speaks protocol {message.protocol}, this node {messages.PROTOCOL}."
            self._refuse(IsolateStartError(found, cure="Install one release of Stellwerk and start the node again."))
        else:
            self._move(Input.BOOTED)
            self.exports, self.was_ready = message.exports, True
            self._owner.booted(self)

    def _refuse(self, error: IsolateStartError) -> None:
        self._move(Input.REFUSED)
        self._exit_wanted = "did not start"
        self._sigkill()
        self._owner.refused(self, error)

    # -- its end ------------------------------------------------------------------------------------------------------

    def _on_channel_lost(self, channel: Channel, error: Exception | None) -> None:
        self._channel_open = False
        self._move(Input.SEVERED)
        self._owner.severed(self)
        if isinstance(error, FrameError | msgspec.MsgspecError):
            self._exit_wanted = f"it broke the protocol of its channel: {error}"
            self._sigkill()
        elif self._exit is None:
            self._after(limits.ISOLATE_EXIT_GRACE_MS, "killed, because its channel had ended")
        self._settle()

    def reaped(self, code: int | None, number_of_signal: int | None) -> None:
        """The zygote has reaped the process."""
        if number_of_signal is not None:
            self._gone(Input.DIED, f"killed by signal {number_of_signal}")
        else:
            self._gone(Input.DIED if code else Input.EXITED, f"exit code {code}")

    def watch_pidfd(self) -> None:
        """The zygote is gone and can tell nothing: the pidfd says when the process has followed it."""
        if self._exit is None and self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._orphan_gone)

    def _orphan_gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.orphaned = True
        self._gone(Input.DIED, "lost: the process that makes isolates ended, and all isolates with it")

    def _gone(self, how: Input, cause: str) -> None:
        self._exit = (how, cause)
        if self._timer is not None:
            self._timer.cancel()
        if self._channel_open:  # a process that it started may hold the other end; what was sent is read by then
            error = ConnectionError("the process has ended, but something else holds its channel")
            self._timer = self._loop.call_later(limits.ISOLATE_EXIT_GRACE_MS / 1000, self.channel.abort, error)
        self._settle()

    def _settle(self) -> None:
        if self._exit is None or self._channel_open or self.status in ENDED:
            return
        how, cause = self._exit
        if self._exit_wanted and not (self.status is Status.DRAINING and how is Input.DIED):
            cause = self._exit_wanted
        self._move(how)
        if self._timer is not None:
            self._timer.cancel()
        self.output.close()
        os.close(self._pidfd)
        self._pidfd = -1
        self._owner.ended(self, cause)
