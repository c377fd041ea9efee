"""The SQLite store: one file, one writer thread, one reader thread, behind the Protocols of ``store/base.py``.

Each room is one small class here and one file of functions beside it; the functions get a connection and nothing else,
so that each can be read, and run, alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision, DeploymentRow, InstanceRow, StoredRun, VersionRow
from stellwerk.store.sqlite import deployment as deployment_room
from stellwerk.store.sqlite import workflow as workflow_room
from stellwerk.store.sqlite.connection import Opened, open_database
from stellwerk.store.sqlite.reader import Reader
from stellwerk.store.sqlite.writer import Writer


class _Threads:
    """What the rooms share: who writes and who reads."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader


class _WorkflowRoom(_Threads):
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

    async def unfinished(self, *, limit: int, after: tuple[str, str, str] = ("", "", "")) -> list[InstanceRow]:
        return await self._reader.read(lambda db: workflow_room.unfinished(db, limit, after))

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


class _DeploymentRoom(_Threads):
    async def add_version(self, row: VersionRow) -> VersionRow:
        return await self._writer.call(lambda db: deployment_room.add_version(db, row))

    async def version(self, version_id: str) -> VersionRow | None:
        return await self._reader.read(lambda db: deployment_room.version(db, version_id))

    async def versions(self, account_id: str, worker: str) -> list[VersionRow]:
        return await self._reader.read(lambda db: deployment_room.versions(db, account_id, worker))

    async def add_deployment(self, row: DeploymentRow) -> None:
        await self._writer.call(lambda db: deployment_room.add_deployment(db, row))

    async def deployments(self, account_id: str, worker: str) -> list[DeploymentRow]:
        return await self._reader.read(lambda db: deployment_room.deployments(db, account_id, worker))

    async def current_deployments(self) -> list[DeploymentRow]:
        return await self._reader.read(deployment_room.current_deployments)

    async def remove_worker(self, account_id: str, worker: str) -> bool:
        return await self._writer.call(lambda db: deployment_room.remove_worker(db, account_id, worker))


class SqliteStore(_WorkflowRoom, _DeploymentRoom):
    """A ``Store`` in one SQLite file. Belongs to the event loop in which it was opened."""

    def __init__(
        self,
        path: Path,
        opened: Opened,
        *,
        inline_when_alone: bool = False,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        writer = Writer(path, opened, loop, inline_when_alone=inline_when_alone, on_commit=on_commit)
        super().__init__(writer, Reader(opened.reader, loop))
        self._settings = opened.settings
        self.epoch = opened.epoch

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        owner: str,
        now_ms: int,
        inline_when_alone: bool = False,
        on_commit: Callable[[float], None] | None = None,
    ) -> SqliteStore:
        """Opens or creates the database at ``path`` and makes ``owner`` (the node's id) its holder.

        Whoever held it before is fenced: its next commit fails. ``inline_when_alone`` commits a small decision on the
        event loop itself when nothing else waits: less latency for a single caller, and the loop stands still for that
        commit. ``on_commit`` is told, by the writing thread, how many milliseconds each commit took. Raises
        ``StateFolderError`` (not ours, damaged, of a newer release) and ``StorageError``.
        """
        opened = await asyncio.to_thread(open_database, path, owner=owner, now_ms=now_ms)
        return cls(path, opened, inline_when_alone=inline_when_alone, on_commit=on_commit)

    @property
    def pending(self) -> bool:
        """Whether one of the threads has work: then a busy event loop must give the GIL away once per turn."""
        return self._writer.pending or self._reader.pending

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
