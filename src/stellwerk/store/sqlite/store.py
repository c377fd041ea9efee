"""The SQLite store: one file, one process that writes, one thread that reads, behind ``store/base.py``'s Protocols.

Each room is one small class here and one file of functions beside it; the functions get a connection and nothing else,
so that each can be read, and run, alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from stellwerk.core.errors import StorageError
from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision, DeploymentRow, InstanceRow, StoredRun, VersionRow
from stellwerk.store.sqlite import deployment as deployment_room
from stellwerk.store.sqlite import messages
from stellwerk.store.sqlite import workflow as workflow_room
from stellwerk.store.sqlite.connection import Opened, open_database
from stellwerk.store.sqlite.reader import Reader
from stellwerk.store.sqlite.writer import Writer


class _Ends:
    """What the rooms share: who writes and who reads."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader


class _WorkflowRoom(_Ends):
    def submit(self, decisions: Sequence[Decision]) -> None:
        self._writer.submit(decisions)

    async def load_run(self, account_id: str, workflow: str, instance_id: str) -> StoredRun | None:
        return await self._reader.read(lambda db: workflow_room.load_run(db, account_id, workflow, instance_id))

    async def instance(self, account_id: str, workflow: str, instance_id: str) -> InstanceRow | None:
        return await self._reader.read(lambda db: workflow_room.instance(db, account_id, workflow, instance_id))

    async def instances(
        self, account_id: str, workflow: str, *, status: Status | None = None, limit: int = 50, cursor: str = ""
    ) -> tuple[list[InstanceRow], str]:
        return await self._reader.read(
            lambda db: workflow_room.instances(db, account_id, workflow, status, limit, cursor)
        )

    async def unfinished(self, *, limit: int, cursor: str = "") -> tuple[list[InstanceRow], str]:
        return await self._reader.read(lambda db: workflow_room.unfinished(db, limit, cursor))

    async def due(self, *, now_ms: int, limit: int) -> list[InstanceRow]:
        return await self._reader.read(lambda db: workflow_room.due(db, now_ms, limit))

    async def next_wake_at(self) -> int | None:
        return await self._reader.read(workflow_room.next_wake_at)

    async def status_counts(self, account_id: str) -> dict[tuple[str, Status], int]:
        return await self._reader.read(lambda db: workflow_room.status_counts(db, account_id))

    async def unfinished_on(self, version_id: str) -> int:
        return await self._reader.read(lambda db: workflow_room.unfinished_on(db, version_id))

    async def live_versions(self) -> set[str]:
        return await self._reader.read(workflow_room.live_versions)

    async def blobs(self, account_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        return await self._reader.read(lambda db: workflow_room.blobs(db, account_id, hashes))


class _DeploymentRoom(_Ends):
    async def add_version(self, row: VersionRow) -> VersionRow:
        stored: VersionRow = await self._writer.call(messages.AddVersion(row))
        return stored

    async def version(self, version_id: str) -> VersionRow | None:
        return await self._reader.read(lambda db: deployment_room.version(db, version_id))

    async def versions(self, account_id: str, worker: str) -> list[VersionRow]:
        return await self._reader.read(lambda db: deployment_room.versions(db, account_id, worker))

    async def add_deployment(self, row: DeploymentRow) -> None:
        deployment_room.check_split(row)
        await self._writer.call(messages.AddDeployment(row))

    async def deployments(self, account_id: str, worker: str) -> list[DeploymentRow]:
        return await self._reader.read(lambda db: deployment_room.deployments(db, account_id, worker))

    async def current_deployments(self) -> list[DeploymentRow]:
        return await self._reader.read(deployment_room.current_deployments)

    async def remove_worker(self, account_id: str, worker: str) -> bool:
        return bool(await self._writer.call(messages.RemoveWorker(account_id, worker)))


class SqliteStore(_WorkflowRoom, _DeploymentRoom):
    """A ``Store`` in one SQLite file. Belongs to the event loop in which it was opened."""

    def __init__(
        self, path: Path, opened: Opened, *, alive: Path | None, on_commit: Callable[[float], None] | None
    ) -> None:
        """Use ``open``."""
        writer = Writer(path, epoch=opened.epoch, alive=alive, on_commit=on_commit)
        super().__init__(writer, Reader(opened.reader, asyncio.get_running_loop()))
        self._settings = opened.settings
        self.epoch = opened.epoch

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        owner: str,
        now_ms: int,
        alive: Path | None = None,
        on_commit: Callable[[float], None] | None = None,
    ) -> SqliteStore:
        """Opens or creates the database at ``path`` and makes ``owner`` (the node's id) its holder.

        Whoever held it before is fenced: its next commit fails. ``alive`` is a file that the process which writes
        holds a shared lock on for as long as it lives (``StateFolder.alive``). ``on_commit`` is told how many
        milliseconds each commit took. Raises ``StateFolderError`` (not ours, damaged, of a newer release) and
        ``StorageError``.
        """
        opened = await asyncio.to_thread(open_database, path, owner=owner, now_ms=now_ms)
        opened.writer.close()  # from here on the process writes; what reads keeps the log in place
        try:
            return cls(path, opened, alive=alive, on_commit=on_commit)
        except StorageError:
            opened.reader.close()
            raise

    @property
    def pending(self) -> bool:
        return self._writer.pending

    @property
    def reading(self) -> bool:
        return self._reader.pending

    @property
    def writer_pid(self) -> int | None:
        """The process that writes; None in the moment between two."""
        return self._writer.pid

    @property
    def settings(self) -> dict[str, str | int]:
        return dict(self._settings)

    @property
    def commits(self) -> int:
        return self._writer.commits

    async def close(self) -> None:
        """Commits what waits, then closes. Closing twice is harmless."""
        await self._reader.close()
        await self._writer.close()  # last: closing the last connection folds the write-ahead log into the file
