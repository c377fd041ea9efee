"""Waiting for the end of a run: the owner has its final state in memory, so the store is not asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.workflow.doubles import ANode, AStore, an_engine, scenario, turns

from stellwerk.core import limits
from stellwerk.core.errors import StorageError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.status import Status
from stellwerk.node.workflow import dispatcher as dispatcher_module
from stellwerk.node.workflow.engine import Engine, InstanceStatus

SOON_MS = 20_000  # longer than any test lives
ERROR = e.ErrorValue("ValueError", "no")


async def created(engine: Engine, store: AStore) -> None:
    creating = asyncio.create_task(engine.create("flow", instance_id="run", params=b"\x80", trigger="api"))
    await turns()
    store.commit()
    await creating


async def ends(node: ANode, report: Any) -> None:
    """The isolate reports, and that gets on disk."""
    isolate: Any = node.pool.isolate
    node.runs.reports(isolate, [report])
    node.store.commit()
    await turns()


def number(node: ANode) -> int:
    (live,) = node.runs.table.runs.values()
    return live.number


async def seen(store: AStore, report: Any) -> InstanceStatus:
    """What somebody hears who creates a run and waits for it, once its isolate has reported this."""
    node = ANode(store)
    engine = an_engine(node)
    await created(engine, store)
    waiting = asyncio.create_task(engine.wait("flow", "run", timeout_ms=SOON_MS))
    await turns()
    await ends(node, report(number(node)))
    return await waiting


def test_create_and_wait_read_nothing_from_the_store() -> None:
    async def main(store: AStore) -> None:
        found = await seen(store, lambda run: i.RunReturned(run, b"\x05"))
        assert found == InstanceStatus(Status.COMPLETE, b"\x05")
        assert (store.loads, store.blob_reads) == (0, 0)

    scenario(main)


def test_an_error_is_told_without_reading_as_well() -> None:
    async def main(store: AStore) -> None:
        assert await seen(store, lambda run: i.RunFailed(run, ERROR)) == InstanceStatus(Status.ERRORED, None, ERROR)
        assert (store.loads, store.blob_reads) == (0, 0)

    scenario(main)


def test_a_run_that_is_paused_is_told_as_that() -> None:
    async def main(store: AStore) -> None:
        assert await seen(store, lambda run: i.RunDiverged(run, "other code")) == InstanceStatus(Status.PAUSED)

    scenario(main)


def test_a_large_output_is_read_from_its_blob() -> None:
    async def main(store: AStore) -> None:
        large = b"x" * (limits.INLINE_VALUE_BYTES_MAX + 1)
        found = await seen(store, lambda run: i.RunReturned(run, large))
        assert found == InstanceStatus(Status.COMPLETE, large)
        assert (store.loads, store.blob_reads) == (0, 1)

    scenario(main)


def test_nobody_hears_of_an_end_that_is_not_on_disk() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        engine = an_engine(node)
        await created(engine, store)
        waiting = asyncio.create_task(engine.wait("flow", "run", timeout_ms=SOON_MS))
        await turns()
        isolate: Any = node.pool.isolate
        node.runs.reports(isolate, [i.RunReturned(number(node), b"\x05")])
        await turns()
        assert not waiting.done()
        store.commit()
        assert (await waiting).status is Status.COMPLETE

    scenario(main)


def test_after_the_time_it_is_told_how_the_run_stands_and_nobody_waits_any_more() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        engine = an_engine(node)
        await created(engine, store)
        assert await engine.wait("flow", "run", timeout_ms=1) == InstanceStatus(Status.RUNNING)
        assert node.runs.table._waiters == {}
        await ends(node, i.RunReturned(number(node), b"\x05"))
        assert store.kinds(("flow", "run")) == [e.Created, e.Completed]

    scenario(main)


def test_a_run_that_has_ended_before_is_read() -> None:
    async def main(store: AStore) -> None:
        store.holds("run", e.Completed(2_000, b"\x05"))
        engine = an_engine(ANode(store))
        assert await engine.wait("flow", "run", timeout_ms=SOON_MS) == InstanceStatus(Status.COMPLETE, b"\x05")
        assert store.loads == 1

    scenario(main)


def test_a_run_is_described_as_running_before_its_row_is() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        engine = an_engine(node)
        await created(engine, store)

        handed = (await engine.describe("flow", "run")).row
        await ends(node, i.StepDone(number(node), "do:a-1", "a", 1, 1, 2_000, b"\x01"))
        node.runs.table.forget(next(iter(node.runs.table.runs.values())))
        read = (await engine.describe("flow", "run")).row

        assert (handed.status, handed.started_at) == (Status.RUNNING, None)
        assert (read.status, read.started_at) == (Status.RUNNING, 2_000)

    scenario(main)


def test_an_end_that_is_not_on_disk_is_not_described() -> None:
    async def main(store: AStore) -> None:
        node = ANode(store)
        engine = an_engine(node)
        await created(engine, store)
        isolate: Any = node.pool.isolate
        node.runs.reports(isolate, [i.RunFailed(number(node), ERROR)])

        row = (await engine.describe("flow", "run")).row

        assert (row.status, row.ended_at) == (Status.RUNNING, None)
        store.commit()

    scenario(main)


def test_a_create_that_failed_and_is_on_disk_all_the_same_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that writes may die between the commit and the answer; a repeat then hears that the id is taken."""
    monkeypatch.setattr(dispatcher_module, "LOOK_AGAIN_S", 0)

    async def main(store: AStore) -> None:
        node = ANode(store)
        creating = asyncio.create_task(an_engine(node).create("flow", instance_id="run", params=b"\x80", trigger="api"))
        await turns()
        (decision,) = store.waiting
        store.journals["flow", "run"] = [data for *_, data in decision.journal]
        store.commit(StorageError("the process that writes ended"))
        with pytest.raises(StorageError):
            await creating
        await turns()
        store.commit()  # the double's rows are older than the node, so it is taken for an orphan
        await turns()

        assert node.started == ["run"]

    scenario(main)
