"""The node's side of the zygote: starts it, asks it for isolates, starts another one when it dies.

Descriptors travel over a SOCK_SEQPACKET pair of its own, since stream transports lose them. Everything here runs on
the node's main thread: the kernel ties a child's death signal to the *thread* that made it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

import stellwerk
from stellwerk.core import limits
from stellwerk.core.errors import IsolateStartError
from stellwerk.core.isolate import capacity
from stellwerk.node.isolate.settings import ZygoteSettings
from stellwerk.wire import zygote as messages

_PACKAGE = Path(stellwerk.__file__).parent
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")
_FIXED = {
    "HOME": "/nonexistent",
    # One thread each: an isolate is a share of a machine, and forking with threads is not safe.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class ZygoteLostError(IsolateStartError):
    """The zygote ended before it had made the isolate. Not the Worker's fault; a repeat may succeed."""

    code = "isolate.zygote_lost"
    retryable = True
    http_status = 503


@dataclass(frozen=True, slots=True)
class Born:
    """A process just made. The receiver owns the pidfd."""

    pid: int
    pidfd: int


@dataclass(slots=True)
class _Life:
    """One zygote process."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    pidfd: int
    orders: dict[int, asyncio.Future[Born]] = field(default_factory=dict)
    unsent: deque[tuple[bytes, int, int, int]] = field(default_factory=deque)  # order, number, two descriptors
    up: bool = False


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the zygote and of all isolates: a handful of harmless names, whatever the node's holds."""
    return {name: own[name] for name in _INHERITED if name in own} | _FIXED


def platform_paths() -> list[str]:
    """Where the zygote finds this package and what it needs."""
    homes = [_PACKAGE.parent, Path(msgspec.__file__).parents[1], Path(uvloop.__file__).parents[1]]
    return list(dict.fromkeys(str(home) for home in homes))


class Zygote:
    """Service. ``on_exit(number, code, signal)`` per isolate that was reaped; ``on_lost()`` when the process itself is
    gone, and its isolates with it, whose ends then have to be read from their pidfds."""

    def __init__(
        self,
        settings: ZygoteSettings,
        *,
        alive: Path,
        on_exit: Callable[[int, int | None, int | None], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._settings, self._alive = settings, alive
        self._on_exit, self._on_lost = on_exit, on_lost
        self._life: _Life | None = None
        self._respawn: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._failures = 0
        self._stopping = False
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()  # replaced at each change, so that everybody who waits wakes once
        self.started = asyncio.Event()
        self.pid: int | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the process; ``started`` is set when it has its imports done. On the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the zygote must be started on the main thread: it dies with the thread that made it")
        self._stopping = False
        if self._life is None:
            self._spawn()

    def refuse_orders(self) -> None:
        """No isolate is made any more, and no new process when this one ends; what there is lives on."""
        self._stopping = True
        if self._respawn is not None:
            self._respawn.cancel()
            self._respawn = None
        self._wake()

    async def stop(self) -> None:
        """Ends the process, and with it every isolate that is left. Returns when it is gone."""
        self.refuse_orders()
        if self._life is None:
            return
        signal.pidfd_send_signal(self._life.pidfd, signal.SIGKILL)
        await self._gone.wait()

    def _spawn(self) -> None:
        self._respawn = None
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        launch = messages.Launch(
            sdk=str(_PACKAGE / "sdk"),
            paths=[*self._settings.paths, *platform_paths()],
            preload=list(self._settings.preload),
            alive=str(self._alive),
        )
        program = [self._settings.interpreter, "-I", "-S", "-X", "utf8", str(_PACKAGE / "isolate" / "__main__.py")]
        arguments = ["zygote", str(theirs.fileno()), str(os.getpid()), messages.encode_launch(launch).decode()]
        with theirs:
            process = subprocess.Popen(
                [*program, *arguments],
                env=environment(os.environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None,  # what goes wrong in the zygote itself belongs where the node's own errors go
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the node, which then lets the isolates finish
            )
        mine.setblocking(False)
        life = _Life(process, mine, os.pidfd_open(process.pid))
        self._life, self.pid = life, process.pid
        self._gone.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(mine.fileno(), self._read, life)
        loop.add_reader(life.pidfd, self._ended, life)
        self._deadline = loop.call_later(limits.ZYGOTE_START_TIMEOUT_MS / 1000, self._too_late, life)

    def _too_late(self, life: _Life) -> None:
        if not life.up:
            signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)

    def _ended(self, life: _Life) -> None:
        """The process is gone. What it still said is read first."""
        self._read(life)
        loop = asyncio.get_running_loop()
        loop.remove_reader(life.control.fileno())
        loop.remove_writer(life.control.fileno())
        loop.remove_reader(life.pidfd)
        life.process.wait()
        life.control.close()
        os.close(life.pidfd)
        if self._deadline is not None:
            self._deadline.cancel()
        self._life, self.pid = None, None
        self.started.clear()
        reason = f"the process that makes isolates ended ({life.process.returncode})."
        for order in life.orders.values():
            if not order.done():
                order.set_exception(ZygoteLostError(reason, cure="A new one is being started; try again."))
        if not self._stopping:
            pause_ms = capacity.backoff_ms(self._failures)
            self._failures += 1
            self._respawn = loop.call_later(pause_ms / 1000, self._spawn)
        self._gone.set()
        self._wake()
        self._on_lost()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- orders -------------------------------------------------------------------------------------------------------

    async def fork(self, number: int, worker: str, *, channel_fd: int, output_fd: int) -> Born:
        """Makes an isolate that runs the entry with this channel. Waits for the zygote to be up.

        Both descriptors stay the caller's. Raises ``ZygoteLostError`` when the zygote ends meanwhile or cannot be
        started, ``IsolateStartError`` when the machine refuses another process.
        """
        life = await self._living()
        order = messages.encode(messages.Fork(number=number, worker=worker, entry=self._settings.entry))
        born: asyncio.Future[Born] = asyncio.get_running_loop().create_future()
        life.orders[number] = born
        life.unsent.append((order, number, channel_fd, output_fd))
        self._write(life)
        try:
            return await born
        except asyncio.CancelledError:
            if born.done() and not born.cancelled() and born.exception() is None:
                _dispose(born.result().pidfd)  # it was made in the very turn in which the caller gave up
            raise
        finally:
            life.orders.pop(number, None)

    async def _living(self) -> _Life:
        while True:
            if self._stopping:
                raise ZygoteLostError("the node is stopping.", cure="Try again when it is back.")
            if self._life is not None and self._life.up:
                return self._life
            if self._failures >= len(limits.CRASHES_BACKOFF_MS):
                does_not = "the process that makes isolates does not come up."
                raise ZygoteLostError(does_not, cure="The node's own output says why.")
            await self._changed.wait()

    def _write(self, life: _Life) -> None:
        loop = asyncio.get_running_loop()
        while life.unsent:
            order, number, *fds = life.unsent[0]
            if number in life.orders and not life.orders[number].done():  # else nobody waits, and the fds are closed
                try:
                    socket.send_fds(life.control, [order], fds)
                except BlockingIOError:
                    loop.add_writer(life.control.fileno(), self._write, life)
                    return
                except OSError:
                    return  # it is gone; ``_ended`` follows and tells everybody
            life.unsent.popleft()
        loop.remove_writer(life.control.fileno())

    def _read(self, life: _Life) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(
                    life.control, messages.MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:  # ``_ended`` does the rest, when the process is really gone
                asyncio.get_running_loop().remove_reader(life.control.fileno())
                return
            self._answer(life, messages.decode(data), fds)

    def _answer(self, life: _Life, message: object, fds: list[int]) -> None:
        match message:
            case messages.Up():
                life.up = True
                self.started.set()
                self._wake()
            case messages.Forked(number=number, pid=pid):
                self._failures = 0
                waiting = life.orders.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(Born(pid, fds[0]))
                else:  # whoever asked has given up
                    _dispose(fds[0])
            case messages.ForkRefused(number=number, reason=reason):
                waiting = life.orders.get(number)
                if waiting is not None and not waiting.done():
                    cure = "Raise the limits on processes and memory of the node's user, or start fewer isolates."
                    waiting.set_exception(
                        IsolateStartError(f"the machine refuses another process: {reason}.", cure=cure)
                    )
            case messages.Exited(number=number, code=code, signal=number_of_signal):
                self._on_exit(number, code, number_of_signal)


def _dispose(pidfd: int) -> None:
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
