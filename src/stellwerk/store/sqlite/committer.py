"""The committer: writes groups over the one connection that writes, and replaces it when a commit has failed. ``serve``
is what the writing process does all its life (``writer_process.py`` starts it).

After a failed commit nobody knows what reached the disk, and a second fsync that succeeds proves nothing about the
first. So nothing of the group is acknowledged, the connection is thrown away, and the next group starts on a new one.
"""

from __future__ import annotations

import gc
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw

from stellwerk.core import limits
from stellwerk.core.errors import StellwerkError, StorageError
from stellwerk.store.sqlite.connection import reopen_writer
from stellwerk.store.sqlite.group import GroupWriter
from stellwerk.store.sqlite.messages import (
    FencedError,
    FrameReader,
    Outcome,
    Record,
    Write,
    decode_writes,
    encode,
    failure,
    frame,
)

READ_BYTES: Final = 1024 * 1024  # of one read; the kernel's buffer between the two processes holds less


class Committer:
    """Commits for the holder of ``epoch``. The file is opened again after each failure."""

    def __init__(self, path: Path, *, epoch: int) -> None:
        self._path = path
        self._groups = GroupWriter(epoch=epoch)
        self._db: apsw.Connection | None = None
        self._fenced: FencedError | None = None

    def open(self) -> None:
        """Ahead of the first group. A failure is told to the owners of that group, which tries again."""
        with suppress(apsw.Error, StellwerkError):
            self._connection()

    def commit(self, group: Sequence[Write]) -> Outcome:
        """Writes ``group`` in one transaction. What the outcome does not name as failed is on disk."""
        if self._fenced is not None:
            return Outcome(len(group), failure(self._fenced))
        begin = time.perf_counter()
        try:
            failures, results = self._groups.write(self._connection(), group)
        except Exception as error:
            return Outcome(len(group), failure(self._discard(error)))
        failed = {place: failure(error) for place, error in failures.items()}
        return Outcome(len(group), None, failed, results, (time.perf_counter() - begin) * 1000)

    def close(self) -> None:
        """Folds the log into the file, if this is the last connection; a failure there costs nothing, since the log
        has everything."""
        if self._db is not None:
            db, self._db = self._db, None
            db.close(True)

    def _connection(self) -> apsw.Connection:
        if self._db is None:
            db = reopen_writer(self._path)
            self._groups.number_after(db)
            self._db = db
        return self._db

    def _discard(self, error: Exception) -> StellwerkError:
        self._groups.forget()
        self.close()
        if isinstance(error, FencedError):
            self._fenced = error
        if isinstance(error, StellwerkError):
            return error
        full = isinstance(error, apsw.FullError)
        failed = StorageError(
            f"The commit failed: {error}. Nothing of it was acknowledged.",
            cure="Free space on the disk." if full else "Check the disk of the state folder.",
        )
        failed.__cause__ = error
        return failed


def next_group(backlog: deque[Write]) -> list[Write]:
    """From the front, until the group has its rows. One record larger than that goes alone: it cannot be split."""
    rows = 0
    for count, write in enumerate(backlog):
        rows += len(write.journal) + len(write.blobs) + 1 if isinstance(write, Record) else 1
        if rows > limits.GROUP_ROWS_MAX:
            return [backlog.popleft() for _ in range(max(count, 1))]
    group = list(backlog)
    backlog.clear()
    return group


def serve(channel: socket.socket, database: str, *, epoch: int) -> None:
    """Until the node closes its end, and all that it had sent is on disk."""
    committer = Committer(Path(database), epoch=epoch)
    committer.open()
    gc.collect()
    gc.set_threshold(*limits.COLLECT_THRESHOLDS)
    gc.freeze()  # what is made by now stays
    frames, backlog = FrameReader(), deque[Write]()
    more = True
    while more or backlog:
        while more and len(backlog) < limits.GROUP_ROWS_MAX:
            try:
                data = channel.recv(READ_BYTES, socket.MSG_DONTWAIT if backlog else 0)
            except BlockingIOError:
                break
            except ConnectionResetError:  # the node was killed, with answers of ours unread
                data = b""
            more = bool(data)
            for content in frames.feed(data):
                backlog.extend(decode_writes(content))
        if backlog:
            outcome = committer.commit(next_group(backlog))
            try:
                channel.sendall(frame(encode(outcome)))
            except BrokenPipeError:  # the node has gone: nobody is told, and nothing more may be written for it
                break
    committer.close()
