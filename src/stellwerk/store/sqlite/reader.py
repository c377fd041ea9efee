"""The reader thread: one connection that cannot write, one transaction per call.

A call that reads twice (an instance and its journal) sees one snapshot, and every call sees what was acknowledged
before it was made, because its transaction begins later.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

import apsw

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, StellwerkError, StorageError

T = TypeVar("T")
Call = tuple[Callable[[apsw.Connection], object], "asyncio.Future[object]"]


class Reader:
    """Owns the reading connection. All methods are for the event loop's thread."""

    def __init__(self, db: apsw.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._db = db
        self._loop = loop
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # bounded by _waiting; None: stop
        self._waiting = 0
        self._closing: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="store-reader", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> bool:
        return self._waiting > 0

    async def read(self, read: Callable[[apsw.Connection], T]) -> T:
        """Runs ``read`` in the thread, inside one read transaction. Raises ``StorageError`` when reading fails."""
        if self._closing is not None:
            raise StorageError("The store is closed.", cure="Open it again.")
        if self._waiting >= limits.READS_WAITING_MAX:
            raise CapacityError(f"{self._waiting} reads wait for the disk; no more are taken.", cure="Try again later.")
        future: asyncio.Future[object] = self._loop.create_future()
        self._waiting += 1
        self._queue.put((read, future))
        return await future  # type: ignore[return-value]  # what ``read`` returned

    async def close(self) -> None:
        """Answers what waits, then closes the connection and ends the thread."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._queue.put(None)
        await asyncio.shield(self._closing)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (call := self._queue.get()) is not None:
                read, future = call
                self._loop.call_soon_threadsafe(self._answer, future, *self._outcome(read))
            self._loop.call_soon_threadsafe(self._closed)
        except RuntimeError:  # the event loop is gone: there is nobody left to answer
            pass
        finally:
            self._db.close(True)  # a failure here has no consequence: nothing was written

    def _outcome(self, read: Callable[[apsw.Connection], object]) -> tuple[object, Exception | None]:
        try:
            self._db.execute("BEGIN")
            try:
                return read(self._db), None
            finally:
                self._db.execute("COMMIT")
        except StellwerkError as error:
            return None, error
        except Exception as error:
            failed = StorageError(f"Reading failed: {error}.", cure="Check the disk of the state folder.")
            failed.__cause__ = error
            return None, failed

    def _answer(self, future: asyncio.Future[object], value: object, error: Exception | None) -> None:
        self._waiting -= 1
        if future.done():  # its caller has been cancelled
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _closed(self) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
