"""The writer thread: takes all that waits, writes it as one group, and tells the event loop once.

The event loop hands over lists; the thread wakes, drains the queue up to ``GROUP_ROWS_MAX`` rows, commits, and posts
one call back. While that commit is on its way to the disk the next group gathers by itself: the busier the node, the
larger the groups, and no timer is involved.

Trap, measured: an event loop that never idles starves this thread of the GIL for seconds. Whoever runs a busy turn must
give it away once per turn, with ``time.sleep(0)``, while ``pending`` is true (the channel's flush does).

After a failed commit nobody knows what reached the disk, and a second fsync that succeeds proves nothing about the
first. So nothing of the group is acknowledged, the connection is thrown away, and the next group starts on a new one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, StellwerkError, StorageError
from stellwerk.store.base import Decision
from stellwerk.store.sqlite.connection import Opened, reopen_writer
from stellwerk.store.sqlite.group import Command, Failures, FencedError, GroupWriter, Write

T = TypeVar("T")
INLINE_ROWS_MAX = 4  # of a group that may be committed on the event loop itself


class Writer:
    """Owns the writing connection. All methods are for the event loop's thread."""

    def __init__(
        self,
        path: Path,
        opened: Opened,
        loop: asyncio.AbstractEventLoop,
        *,
        inline_when_alone: bool = False,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._path = path
        self._loop = loop
        self._db: apsw.Connection | None = opened.writer
        self._group_writer = GroupWriter(epoch=opened.epoch)
        self._queue: queue.SimpleQueue[Sequence[Write]] = queue.SimpleQueue()  # bounded by _waiting; empty: stop
        self._waiting = 0  # handed over and not answered yet; touched by the event loop only
        self._inline = inline_when_alone
        self._closing: asyncio.Future[None] | None = None
        self._fenced: FencedError | None = None
        self.commits = 0
        self._on_commit = on_commit
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> bool:
        return self._waiting > 0

    def submit(self, writes: Sequence[Write]) -> None:
        """Queues ``writes``, in order. Raises ``CapacityError`` when too many wait, ``StorageError`` when closed."""
        if self._closing is not None:
            raise StorageError("The store is closed.", cure="Open it again.")
        count = len(writes)
        if self._waiting + count > limits.WRITES_WAITING_MAX:
            raise CapacityError(
                f"{self._waiting} writes wait for the disk; more than {limits.WRITES_WAITING_MAX} are not taken.",
                cure="Try again later, or give the node a faster disk.",
            )
        if not count:
            return
        alone = self._inline and not self._waiting and _rows(writes) <= INLINE_ROWS_MAX
        self._waiting += count
        if alone:
            # Nothing waits, so the thread is blocked in its queue and the connection is free.
            self._loop.call_soon(self._answer, writes, self._commit(writes))
        else:
            self._queue.put(writes)

    def call(self, apply: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Runs ``apply`` in the next group, as a decision of its own; the future has its answer once on disk."""
        future: asyncio.Future[T] = self._loop.create_future()
        command = Command(apply=apply)

        def done(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(command.result)  # type: ignore[arg-type]  # what ``apply`` returned
            else:
                future.set_exception(error)

        command.done = done
        self.submit([command])
        return future

    async def close(self) -> None:
        """Commits what waits, then closes the connection and ends the thread."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._queue.put(())
        await asyncio.shield(self._closing)
        self._thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backlog: deque[Write] = deque()
        stopping = False
        try:
            while backlog or not stopping:
                if not backlog:
                    writes = self._queue.get()
                    stopping = stopping or not writes
                    backlog.extend(writes)
                while len(backlog) < limits.GROUP_ROWS_MAX and not self._queue.empty():
                    writes = self._queue.get_nowait()
                    stopping = stopping or not writes
                    backlog.extend(writes)
                if backlog:
                    group = _take(backlog)
                    self._loop.call_soon_threadsafe(self._answer, group, self._commit(group))
            self._loop.call_soon_threadsafe(self._closed)
        except RuntimeError:  # the event loop is gone: there is nobody left to answer
            pass
        finally:
            if self._db is not None:
                self._db.close(True)  # its last checkpoint may fail: the write-ahead log has everything

    def _commit(self, group: Sequence[Write]) -> Failures | StellwerkError:
        """The failures within the group, or the one error that failed all of it."""
        if self._fenced is not None:
            return self._fenced
        try:
            if self._db is None:
                self._db = reopen_writer(self._path)
            begin = time.perf_counter()
            failures = self._group_writer.write(self._db, group)
        except Exception as error:
            return self._discard(error)
        self.commits += 1
        if self._on_commit is not None:
            self._on_commit((time.perf_counter() - begin) * 1000)
        return failures

    def _discard(self, error: Exception) -> StellwerkError:
        self._group_writer.forget()
        if self._db is not None:
            db, self._db = self._db, None
            db.close(True)
        if isinstance(error, FencedError):
            self._fenced = error
        if isinstance(error, StellwerkError):
            return error
        failed = StorageError(
            f"The commit failed: {error}. Nothing of it was acknowledged.",
            cure="Free space on the disk."
            if isinstance(error, apsw.FullError)
            else "Check the disk of the state folder.",
        )
        failed.__cause__ = error
        return failed

    # -- back on the event loop ---------------------------------------------------------------------------------------

    def _answer(self, group: Sequence[Write], outcome: Failures | StellwerkError) -> None:
        """Tells every owner, in the order of submission. One that raises does not keep the others from hearing."""
        self._waiting -= len(group)
        failures, failed = (outcome, None) if isinstance(outcome, dict) else ({}, outcome)
        for place, write in enumerate(group):
            if write.done is None:
                continue
            error = failures.get(place) if failures else failed
            try:
                write.done(error)
            except Exception as raised:
                self._loop.call_exception_handler(
                    {"message": "the owner of a stored decision failed when told", "exception": raised}
                )

    def _closed(self) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)


def _rows(writes: Sequence[Write]) -> int:
    return sum(len(write.journal) + 1 if isinstance(write, Decision) else limits.GROUP_ROWS_MAX for write in writes)


def _take(backlog: deque[Write]) -> list[Write]:
    """From the front, until the group has its rows. One decision larger than that goes alone: it cannot be split."""
    rows = 0
    for count, write in enumerate(backlog):
        rows += 1 if isinstance(write, Command) else len(write.journal) + len(write.blobs) + 1
        if rows > limits.GROUP_ROWS_MAX:
            return [backlog.popleft() for _ in range(max(count, 1))]
    group = list(backlog)
    backlog.clear()
    return group
