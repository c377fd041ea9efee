"""The part of a node that drives runs, with a scripted store, pool and isolate in the place of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.isolate.machine import Status as IsolateStatus
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.status import Status
from stellwerk.node.clock import SystemClock
from stellwerk.node.workflow.engine import Engine
from stellwerk.node.workflow.live import Key
from stellwerk.node.workflow.runs import Runs
from stellwerk.store.base import Decision, InstanceRow, StoredRun
from stellwerk.wire import isolate as messages

BEFORE = 1_000  # long before any node of these tests began
TURNS = 20  # of the event loop: more than anything here takes when it waits for nobody


class AStore:
    """Keeps journals, and lets each group wait until the test says what becomes of it."""

    def __init__(self) -> None:
        self.journals: dict[Key, list[bytes]] = {}
        self.kept: dict[str, bytes] = {}
        self.waiting: list[Decision] = []
        self.loads = 0
        self.blob_reads = 0

    def holds(self, name: str, *entries: e.AnyEntry) -> Key:
        created = e.Created(BEFORE, b"\x80", "worker", "version", "Flow", "api", {"worker": "version"}, 100)
        self.journals["flow", name] = [e.encode(entry) for entry in (created, *entries)]
        return "flow", name

    async def load_run(self, account_id: str, workflow: str, instance_id: str) -> StoredRun:
        self.loads += 1
        journal = list(self.journals[workflow, instance_id])
        row = InstanceRow(
            account_id=account_id, workflow=workflow, instance_id=instance_id, incarnation=1, status=Status.QUEUED,
            worker="worker", version_id="version", class_name="Flow", created_at=BEFORE, modified_at=BEFORE,
        )  # fmt: skip
        return StoredRun(row=row, journal=journal)

    async def blobs(self, account_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        self.blob_reads += 1
        return {name: self.kept[name] for name in hashes}

    def submit(self, decisions: Sequence[Decision]) -> None:
        self.waiting += decisions

    def commit(self, error: Exception | None = None) -> None:
        """All that waits is one group."""
        group, self.waiting = self.waiting, []
        for decision in group:
            if error is None:
                for _, workflow, name, _, seq, _, data in decision.journal:
                    journal = self.journals.setdefault((workflow, name), [])
                    assert seq == len(journal)
                    journal.append(data)
                self.kept.update({name: data for _, name, data in decision.blobs})
            assert decision.done is not None
            decision.done(error)

    def kinds(self, key: Key) -> list[type]:
        return [type(e.decode(data)) for data in self.journals[key]]


class AnIsolate:
    status = IsolateStatus.READY

    def __init__(self) -> None:
        self.load = 0
        self.sent: list[Any] = []
        self.channel = SimpleNamespace(send=self.sent.append)

    def begin(self) -> None:
        self.load += 1

    def end(self) -> None:
        self.load -= 1


class APool:
    """One isolate for all, which is there at once."""

    def __init__(self) -> None:
        self.isolate = AnIsolate()
        self.asked = 0

    def ready(self, version: object) -> AnIsolate:
        self.asked += 1
        return self.isolate

    async def acquire(self, version: object, *, solo: bool) -> AnIsolate:
        self.asked += 1
        return self.isolate


class Versions:
    def loaded(self, version_id: str) -> object:
        return version_id

    async def load(self, version_id: str) -> object:
        return version_id


class ANode:
    """The part of one that drives runs, on a store that outlives it."""

    def __init__(self, store: AStore) -> None:
        self.store, self.pool = store, APool()
        room: Any = store
        pool: Any = self.pool
        versions: Any = Versions()
        log: Any = SimpleNamespace(warn=lambda *_, **__: None, error=lambda *_, **__: None)
        self.runs = Runs(
            account_id=LOCAL_ACCOUNT, store=room, pool=pool, versions=versions, clock=SystemClock(), log=log
        )

    @property
    def started(self) -> list[str]:
        return [sent.instance_id for sent in self.pool.isolate.sent if isinstance(sent, messages.RunStart)]

    async def take_up(self, *keys: Key) -> None:
        for key in keys:
            self.runs.dispatcher.enqueue(key)
        await turns()


def an_engine(node: ANode, *, concurrency_max: int | None = None) -> Engine:
    manifest = SimpleNamespace(compatibility_date="2026-03-01", compatibility_flags=())
    version = SimpleNamespace(worker="worker", manifest=manifest)
    binding = SimpleNamespace(name="flow", class_name="Flow", steps_max=100, concurrency_max=concurrency_max)
    deployments: Any = SimpleNamespace(
        workflow=lambda name: (version, binding), freeze=lambda worker: {worker: "version"}
    )
    return Engine(node.runs, deployments)


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def scenario(main: Callable[[AStore], Awaitable[None]]) -> None:
    async def run() -> None:
        await main(AStore())

    asyncio.run(run())
