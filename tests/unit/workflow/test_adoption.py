"""Runs that outlived their node: counted when their turn comes, on disk before anything of theirs is started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.workflow.doubles import BEFORE, ANode, AStore, scenario, turns

from stellwerk.core import limits
from stellwerk.core.errors import StorageError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.node.workflow import dispatcher as dispatcher_module

ENDED = e.RunInterrupted(BEFORE, "the node ended", node=True)


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
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN_S", 0)

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
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN_S", 0)

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
