"""Runs that outlived their node: counted when their turn comes, on disk before anything of theirs is started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from stellwerk.core import limits
from stellwerk.core.errors import StorageError
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.isolate.machine import Status as IsolateStatus
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.status import Status
from stellwerk.node.clock import SystemClock
from stellwerk.node.workflow import runs as runs_module
from stellwerk.node.workflow.live import Key
from stellwerk.node.workflow.runs import Runs
from stellwerk.store.base import Decision, InstanceRow, StoredRun
from stellwerk.wire import isolate as messages

BEFORE = 1_000  # long before any node of these tests began
ENDED = e.RunInterrupted(BEFORE, "the node ended", node=True)
TURNS = 20  # of the event loop: more than anything here takes when it waits for nobody


class AStore:
    """Keeps journals, and lets each group wait until the test says what becomes of it."""

    def __init__(self) -> None:
        self.journals: dict[Key, list[bytes]] = {}
        self.waiting: list[Decision] = []
        self.loads = 0

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

    def submit(self, decisions: Sequence[Decision]) -> None:
        self.waiting += decisions

    def commit(self, error: Exception | None = None) -> None:
        """All that waits is one group."""
        group, self.waiting = self.waiting, []
        for decision in group:
            if error is None:
                for _, workflow, name, _, seq, _, data in decision.journal:
                    assert seq == len(self.journals[workflow, name])
                    self.journals[workflow, name].append(data)
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


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def scenario(main: Callable[[AStore], Awaitable[None]]) -> None:
    async def run() -> None:
        await main(AStore())

    asyncio.run(run())


def test_a_run_is_counted_on_disk_before_an_isolate_is_asked_for() -> None:
    async def main(store: AStore) -> None:
        key = store.holds("run")
        node = ANode(store)
        await node.take_up(key)
        assert (node.pool.asked, node.started) == (0, [])
        store.commit()
        await turns()
        assert node.started == ["run"]
        (start,) = node.pool.isolate.sent
        assert [type(e.decode(data)) for data in start.journal] == [e.Created, e.RunInterrupted]
        assert start.careful

    scenario(main)


def test_runs_that_only_wait_for_their_turn_are_not_counted() -> None:
    async def main(store: AStore) -> None:
        first, *others = [store.holds(name) for name in "abc"]
        for _ in range(3):  # nodes that ended while the first had its turn
            node = ANode(store)
            node.runs.dispatcher.limit("flow", 1)
            await node.take_up(first, *others)
            store.commit()
        assert store.kinds(first) == [e.Created, *[e.RunInterrupted] * 3]
        assert [store.kinds(key) for key in others] == [[e.Created]] * 2

    scenario(main)


def test_events_for_a_run_that_waits_for_its_turn_do_not_count_against_it() -> None:
    async def main(store: AStore) -> None:
        attempt = e.AttemptStarted(BEFORE, "do:a-1", "a", 1, 1)
        key = store.holds("run", attempt)
        node = ANode(store)
        for _ in range(3):
            live = await node.runs.load(key)
            assert live is not None
            sending = asyncio.create_task(node.runs.decide(live, i.EventSent("go", b"\x01")))
            await turns()
            store.commit()
            await sending
        assert (store.loads, node.runs.table.runs) == (3, {})
        assert store.kinds(key) == [e.Created, e.AttemptStarted, *[e.EventReceived] * 3]

    scenario(main)


def test_a_run_that_each_node_takes_up_without_any_progress_ends_errored_and_is_not_started() -> None:
    async def main(store: AStore) -> None:
        key = store.holds("run", *[ENDED] * (limits.NODE_INTERRUPTIONS_MAX - 1))
        node = ANode(store)
        await node.take_up(key)
        store.commit()
        await turns()
        assert node.started == ["run"]  # it is the last time

        node = ANode(store)
        ended = node.runs.table.wait(key)
        await node.take_up(key)
        store.commit()
        await turns()
        assert store.kinds(key)[-2:] == [e.RunInterrupted, e.Errored]
        assert (node.pool.asked, node.started, node.runs.table.runs) == (0, [], {})
        assert ended.done()
        assert node.runs.dispatcher._running == {"flow": 0}  # its turn is over

    scenario(main)


def test_a_commit_that_fails_counts_nothing_and_the_run_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "RELOAD_AFTER_S", 0)

    async def main(store: AStore) -> None:
        key = store.holds("run")
        node = ANode(store)
        await node.take_up(key)
        store.commit(StorageError("the disk is full"))
        await turns()
        assert (node.started, store.loads) == ([], 2)
        store.commit()
        await turns()
        assert (node.started, store.kinds(key)) == (["run"], [e.Created, e.RunInterrupted])
        assert node.runs.dispatcher._running == {"flow": 1}

    scenario(main)


def test_a_run_that_is_terminated_while_it_is_counted_is_not_started() -> None:
    async def main(store: AStore) -> None:
        key = store.holds("run")
        node = ANode(store)
        await node.take_up(key)
        live = await node.runs.load(key)
        assert live is not None
        ending = asyncio.create_task(node.runs.decide(live, i.Terminate("api")))
        await turns()
        store.commit()
        await ending
        await turns()
        assert store.kinds(key) == [e.Created, e.RunInterrupted, e.Terminated]
        assert (node.pool.asked, node.started, node.runs.table.runs) == (0, [], {})
        assert node.runs.dispatcher._running == {"flow": 0}

    scenario(main)


def test_a_run_that_is_dropped_while_it_is_counted_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "RELOAD_AFTER_S", 0)

    async def main(store: AStore) -> None:
        key = store.holds("run")
        node = ANode(store)
        await node.take_up(key)
        live = await node.runs.load(key)
        assert live is not None
        (counting,) = store.waiting
        sending = asyncio.create_task(node.runs.decide(live, i.EventSent("go", b"\x01")))
        await turns()
        counting, event = store.waiting
        assert event.done is not None and counting.done is not None
        event.done(StorageError("the value is bad"))  # its neighbour in the group: the copy is wrong from here on
        with pytest.raises(StorageError):
            await sending
        store.waiting = [counting]
        store.commit()
        await turns()
        store.commit()  # the copy that was read again
        await turns()
        assert node.started == ["run"]
        assert node.runs.dispatcher._running == {"flow": 1}

    scenario(main)


def test_two_thousand_runs_of_a_node_that_ended_are_counted_in_one_group() -> None:
    async def main(store: AStore) -> None:
        keys = [store.holds(f"run-{number}") for number in range(2_000)]
        node = ANode(store)
        await node.take_up(*keys)
        assert len(store.waiting) == len(keys)
        store.commit()
        await turns()
        assert sorted(node.started) == sorted(name for _, name in keys)

    scenario(main)


def test_a_hand_over_that_waits_for_a_commit_ends_with_the_runs_life_in_that_isolate() -> None:
    """It would otherwise wait, and keep the run in memory, for as long as the node lives."""

    async def main(store: AStore) -> None:
        key = store.holds("run")
        node = ANode(store)
        await node.take_up(key)
        live = await node.runs.load(key)
        assert live is not None
        sending = asyncio.create_task(node.runs.decide(live, i.EventSent("go", b"\x01")))
        await turns()
        counting, event = store.waiting
        store.waiting = [counting]
        store.commit()
        await turns()
        assert (live.handed, len(node.runs._handover._tasks)) == (False, 1)
        isolate: Any = node.pool.isolate
        node.runs.isolate_lost(isolate, "it crashed", crashed=True)
        await turns()
        assert not node.runs._handover._tasks
        store.waiting = [event, *store.waiting]
        store.commit()
        await sending

    scenario(main)
