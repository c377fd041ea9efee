"""The node's side of the process that writes: sends it decisions, tells their owners what became of them.

Decisions are sent as they come; the process makes groups of what it finds (``writer_process.py``). Answers come in the
order of the decisions. When the process dies nobody knows what of its last groups reached the disk: nothing of them is
acknowledged, their owners read again, after the process is known to be gone, and another one is started.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import apsw
import msgspec

import stellwerk
from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, StorageError
from stellwerk.store.base import Decision, Done
from stellwerk.store.sqlite import messages

SCRIPT: Final = Path(__file__).with_name("writer_process.py")
RESTART_PAUSES_MS: Final = (0, 100, 1_000, 5_000)  # after so many ends without an answer between; a crash must not spin
HOMES: Final = (Path(stellwerk.__file__).parent, Path(apsw.__file__).parent, Path(msgspec.__file__).parent)


@dataclass(slots=True)
class Command:
    """A rare write that is no decision about a run, and answers something: the deployment room's."""

    message: messages.Command
    done: Done | None = None
    result: Any = None  # when ``done`` is called without an error


class Writer:
    """Owns the process. All methods are for the event loop's thread. Raises ``StorageError`` when the machine refuses
    it."""

    def __init__(
        self, path: Path, *, epoch: int, alive: Path | None, on_commit: Callable[[float], None] | None = None
    ) -> None:
        self._path, self._epoch, self._alive, self._on_commit = path, epoch, alive, on_commit
        self._loop = asyncio.get_running_loop()
        self._unanswered: deque[Decision | Command] = deque()  # bounded by WRITES_WAITING_MAX
        self._closed: asyncio.Future[None] | None = None
        self._ends = 0  # of processes, without an answer between
        self.commits = 0
        self._life: _Life | None = self._begin()

    @property
    def pending(self) -> bool:
        return bool(self._unanswered)

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return None if self._life is None else self._life.process.pid

    def submit(self, writes: Sequence[Decision | Command]) -> None:
        """Sends ``writes``, in order. Raises ``CapacityError`` when too many wait, ``StorageError`` when the store is
        closed or its process has just ended."""
        if self._closed is not None:
            raise StorageError("The store is closed.", cure="Open it again.")
        if not writes:
            return
        if len(self._unanswered) + len(writes) > limits.WRITES_WAITING_MAX:
            raise CapacityError(
                f"{len(self._unanswered)} writes wait for the disk; more than {limits.WRITES_WAITING_MAX} are not "
                "taken.",
                cure="Try again later, or give the node a faster disk.",
            )
        if self._life is None:
            raise _lost("is being started again")
        self._unanswered.extend(writes)
        records = [
            messages.Record(write.journal, write.create, write.update, write.blobs)
            if type(write) is Decision
            else cast(Command, write).message
            for write in writes
        ]
        self._life.send(messages.encode_writes(records))

    def call(self, message: messages.Command) -> asyncio.Future[Any]:
        """Sends a command; the future has its answer once it is on disk."""
        future: asyncio.Future[Any] = self._loop.create_future()
        command = Command(message)

        def done(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(command.result)
            else:
                future.set_exception(error)

        command.done = done
        self.submit([command])
        return future

    async def close(self) -> None:
        """Returns when all that waits is on disk, its owners have been told, and the process is gone."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if self._life is None:
                self._closed.set_result(None)
            else:
                self._life.finish()
        await asyncio.shield(self._closed)

    # -- the process --------------------------------------------------------------------------------------------------

    def _begin(self) -> _Life:
        try:
            return _Life(self._path, self._epoch, self._alive, on_outcome=self._answer, on_end=self._ended)
        except OSError as error:
            raise StorageError(
                f"The machine refuses the process that writes the database: {error}.",
                cure="Raise the limits on processes, memory and open files of the node's user.",
            ) from error

    def _start_again(self) -> None:
        if self._closed is not None:
            return
        try:
            self._life = self._begin()
        except StorageError:
            self._start_later()

    def _start_later(self) -> None:
        pause_ms = RESTART_PAUSES_MS[min(self._ends, len(RESTART_PAUSES_MS) - 1)]
        self._ends += 1
        self._loop.call_later(pause_ms / 1000, self._start_again)

    def _ended(self, life: _Life) -> None:
        """The process is gone, and everything that it said has been heard."""
        self._life = None
        left, self._unanswered = self._unanswered, deque()
        self._tell(left, messages.failure(_lost(f"ended ({life.process.returncode})")), {})
        if self._closed is not None:
            if not self._closed.done():
                self._closed.set_result(None)
        else:
            self._start_later()

    # -- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, outcome: messages.Outcome) -> None:
        """Tells every owner, in the order of submission."""
        self._ends = 0
        take = self._unanswered.popleft
        group = [take() for _ in range(outcome.count)]
        if outcome.failed is None:
            self.commits += 1
            if self._on_commit is not None:
                self._on_commit(outcome.commit_ms)
        for place, result in outcome.results.items():
            cast(Command, group[place]).result = result
        self._tell(group, outcome.failed, outcome.failures)

    def _tell(
        self,
        writes: Sequence[Decision | Command],
        failed: messages.Failure | None,
        failures: Mapping[int, messages.Failure],
    ) -> None:
        """Every owner. One that raises does not keep the others from hearing."""
        for place, write in enumerate(writes):
            found = failed or (failures and failures.get(place))
            try:
                if write.done is not None:
                    write.done(messages.exception(found) if found else None)
            except Exception as raised:
                self._loop.call_exception_handler(
                    {"message": "the owner of a stored decision failed when told", "exception": raised}
                )


class _Life(asyncio.Protocol):
    """One process and the socket to it. ``on_end`` follows when the process has been reaped *and* all that it said has
    been read."""

    def __init__(
        self,
        path: Path,
        epoch: int,
        alive: Path | None,
        *,
        on_outcome: Callable[[messages.Outcome], None],
        on_end: Callable[[_Life], None],
    ) -> None:
        self._on_outcome, self._on_end = on_outcome, on_end
        self._loop = asyncio.get_running_loop()
        self._frames = messages.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # sent before the transport was there, which takes a turn
        self._finishing = self._heard_all = self._reaped = False
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = _spawn(theirs.fileno(), path, epoch, alive)
                self._pidfd = os.pidfd_open(self.process.pid)
            except BaseException:
                mine.close()  # and with it the process, if it was made
                raise
        self._loop.add_reader(self._pidfd, self._gone)
        self._connecting = self._loop.create_task(self._connect(mine))

    async def _connect(self, mine: socket.socket) -> None:
        mine.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=mine)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def finish(self) -> None:
        """Lets the process commit what it has been sent, and end."""
        self._finishing = True
        if self._transport is not None:
            self._transport.write_eof()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.writelines(self._early)
        self._early.clear()
        if self._finishing:
            self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        for content in self._frames.feed(data):
            self._on_outcome(messages.decode_outcome(content))

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, or is about to. One that only closed its socket would never be heard again."""
        self._heard_all = True
        if not self._finishing and not self._reaped:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._look_ended()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.process.wait()  # it has ended: this only reaps it
        self._reaped = True
        self._look_ended()

    def _look_ended(self) -> None:
        if self._reaped and self._heard_all:
            self._on_end(self)


def _spawn(channel: int, path: Path, epoch: int, alive: Path | None) -> subprocess.Popen[bytes]:
    """The lock on ``alive`` belongs to the opening, which only the new process keeps."""
    paths = os.pathsep.join(dict.fromkeys(str(home.parent) for home in HOMES))
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(channel), str(path), str(epoch), paths]
    kept = [channel]
    if alive is not None:
        kept.append(os.open(alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        fcntl.flock(kept[-1], fcntl.LOCK_SH)
    try:
        return subprocess.Popen(command, pass_fds=kept, stdin=subprocess.DEVNULL)
    finally:
        for descriptor in kept[1:]:
            os.close(descriptor)


def _lost(how: str) -> StorageError:
    return StorageError(
        f"The process that writes the database {how}. Nothing that waited for it was acknowledged.",
        cure="Try again in a moment.",
    )
