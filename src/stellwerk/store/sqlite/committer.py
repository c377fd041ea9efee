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
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import apsw

from stellwerk.core import limits
from stellwerk.core.errors import StellwerkError, StorageError
from stellwerk.store.sqlite.connection import reopen_writer
from stellwerk.store.sqlite.group import GroupWriter, Latecomers, is_plain
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

    def commit(self, group: list[Write], latecomers: Latecomers = list) -> Outcome:
        """Writes ``group``, and who joins it, in one transaction. What the outcome does not name is on disk."""
        if self._fenced is not None:
            return Outcome(len(group), failure(self._fenced))
        begin = time.perf_counter()
        try:
            failures, results = self._groups.write(self._connection(), group, latecomers)
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


def next_group(backlog: deque[Write], rows: int = 0) -> tuple[list[Write], int]:
    """From the front, until the group has its rows, of which it has ``rows`` already; and how many it has then. One
    record that is larger by itself goes alone: it cannot be split."""
    taken = 0 if rows else 1
    for count, write in enumerate(backlog):
        rows += len(write.journal) + len(write.blobs) + 1 if isinstance(write, Record) else 1
        if rows > limits.GROUP_ROWS_MAX:
            return [backlog.popleft() for _ in range(max(count, taken))], rows
    group = list(backlog)
    backlog.clear()
    return group, rows


class Inbox:
    """What the node has sent and nobody has written yet."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._frames = channel, FrameReader()
        self._backlog: deque[Write] = deque()
        self._open = True
        self._rows = 0  # of the group that is being written

    def read(self, *, wait: bool) -> None:
        """All that has come. ``wait``: if there is nothing, until something comes or the node closes its end."""
        while self._open and len(self._backlog) < limits.GROUP_ROWS_MAX:
            try:
                data = self._channel.recv(READ_BYTES, 0 if wait and not self._backlog else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:  # the node was killed, with answers of ours unread
                data = b""
            self._open = bool(data)
            for content in self._frames.feed(data):
                self._backlog.extend(decode_writes(content))

    def next_group(self) -> list[Write]:
        """What is to be written next; empty when the node has gone and all is written."""
        self.read(wait=True)
        group, self._rows = next_group(self._backlog)
        return group

    def latecomers(self) -> list[Record]:
        """What has come since, if it may join a group that is written but not committed. What may not, waits."""
        self.read(wait=False)
        if self._rows >= limits.GROUP_ROWS_MAX or not is_plain(self._backlog):
            return []
        group, _ = next_group(self._backlog, self._rows)
        return cast(list[Record], group)


def serve(channel: socket.socket, database: str, *, epoch: int) -> None:
    """Until the node closes its end, and all that it had sent is on disk."""
    committer, inbox = Committer(Path(database), epoch=epoch), Inbox(channel)
    committer.open()
    gc.collect()
    gc.set_threshold(*limits.COLLECT_THRESHOLDS)
    gc.freeze()  # what is made by now stays
    while group := inbox.next_group():
        outcome = committer.commit(group, inbox.latecomers)
        try:
            channel.sendall(frame(encode(outcome)))
        except ConnectionError:  # the node has gone: nobody is told, and nothing more may be written for it
            break
    committer.close()
