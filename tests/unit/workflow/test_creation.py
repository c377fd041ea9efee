"""A run whose id was made here is started while it is being written; nobody hears of it, or from it, before it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.workflow.doubles import ANode, AStore, an_engine, scenario, turns

from stellwerk.core import limits
from stellwerk.core.errors import InstanceExistsError, StorageError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.node.workflow import dispatcher as dispatcher_module
from stellwerk.node.workflow.engine import Engine
from stellwerk.wire import isolate as messages

PARAMS = b"\x80"


async def creating(engine: Engine, *, instance_id: str | None = None, params: bytes = PARAMS) -> asyncio.Task[str]:
    task = asyncio.create_task(engine.create("flow", instance_id=instance_id, params=params, trigger="api"))
    await turns()
    return task


def kinds(node: ANode) -> list[type]:
    return [type(sent) for sent in node.pool.isolate.sent]


def test_the_program_starts_before_the_run_is_on_disk_and_hears_when_it_is() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node))
        (start,) = node.pool.isolate.sent
        assert (type(start), start.unrecorded, task.done()) == (messages.RunStart, True, False)
        store.commit()
        assert node.started == [await task]
        assert node.pool.isolate.sent[1:] == [messages.RunRecorded(start.run)]

    scenario(main)


def test_what_it_reports_meanwhile_is_written_behind_its_creation() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node))
        (live,) = node.runs.table.runs.values()
        isolate: Any = node.pool.isolate
        node.runs.reports(isolate, [i.RunReturned(live.number, b"\x05")])
        assert len(store.waiting) == 2
        store.commit()
        assert store.kinds(("flow", await task)) == [e.Created, e.Completed]
        assert (node.runs.table.runs, node.pool.isolate.load, node.runs.counters.ended) == ({}, 0, 1)

    scenario(main)


def test_one_that_the_machine_did_not_write_is_stopped_and_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN_S", 0)

    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node))
        (live,) = node.runs.table.runs.values()
        (decision,) = store.waiting
        store.journals[live.key] = [data for *_, data in decision.journal]
        isolate: Any = node.pool.isolate
        node.runs.reports(isolate, [i.RunReturned(live.number, b"\x05")])
        store.commit(StorageError("the process that writes ended"))
        with pytest.raises(StorageError):
            await task
        assert kinds(node) == [messages.RunStart, messages.RunStop]
        assert (node.runs.table.runs, node.pool.isolate.load) == ({}, 0)
        await turns()
        store.commit()  # it is on disk all the same: taken up, as an orphan of somebody
        await turns()
        assert node.started == [live.instance_id] * 2
        assert not node.pool.isolate.sent[-1].unrecorded

    scenario(main)


def test_one_whose_isolate_ends_meanwhile_goes_to_another_when_both_are_on_disk() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node))
        isolate: Any = node.pool.isolate
        node.runs.isolate_lost(isolate, "killed", crashed=False)
        assert kinds(node) == [messages.RunStart]
        store.commit()
        await turns()
        assert store.kinds(("flow", await task)) == [e.Created, e.RunInterrupted]
        assert kinds(node) == [messages.RunStart, messages.RunStart]
        again = node.pool.isolate.sent[-1]
        assert (again.unrecorded, again.careful, len(again.journal)) == (False, True, 2)
        assert node.pool.isolate.load == 1

    scenario(main)


def test_an_id_that_was_given_may_be_taken_so_its_program_waits_for_the_disk() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node), instance_id="theirs")
        assert (node.started, node.runs.table.runs) == ([], {})
        store.commit(InstanceExistsError("theirs"))
        with pytest.raises(InstanceExistsError):
            await task
        await turns()
        assert node.started == []

    scenario(main)


def test_large_params_are_read_from_the_store_first() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        task = await creating(an_engine(node), params=b"x" * (limits.INLINE_VALUE_BYTES_MAX + 1))
        assert node.started == []
        store.commit()
        await turns()
        assert node.started == [await task]
        assert not node.pool.isolate.sent[0].unrecorded

    scenario(main)


def test_a_run_starts_early_only_when_nobody_waits_before_it() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        engine = an_engine(node, concurrency_max=1)
        first, second = await creating(engine), await creating(engine)
        assert len(node.started) == 1
        store.commit()
        await turns()
        assert node.started == [await first]
        (live,) = [live for live in node.runs.table.runs.values() if live.isolate is not None]
        isolate: Any = node.pool.isolate
        node.runs.reports(isolate, [i.RunReturned(live.number, b"\x05")])
        store.commit()
        await turns()
        assert node.started == [await first, await second]
        assert node.pool.isolate.load == 1

    scenario(main)


def test_a_node_that_stops_starts_nothing_early() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        await node.runs.stop()
        task = await creating(an_engine(node))
        assert node.started == []
        store.commit()
        await task

    scenario(main)
