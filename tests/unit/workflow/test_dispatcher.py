"""Whose turn it is, and what happens when the isolate that was found is gone, or the run is, by the time they meet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from stellwerk.core.isolate.machine import Status as IsolateStatus
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.state import RunState, evolve
from stellwerk.core.workflow.status import Status
from stellwerk.node.workflow.dispatcher import Dispatcher
from stellwerk.node.workflow.live import LiveRun, Place


def a_run(name: str = "run") -> LiveRun:
    state = RunState()
    evolve(state, e.Created(1, b"\x80", "worker", "version", "Flow", "api", {"worker": "version"}, 100))
    return LiveRun(
        account_id="local", workflow="flow", instance_id=name, incarnation=1, number=1, state=state, seq=1,
        written=Status.QUEUED, journal=[],
    )  # fmt: skip


class AnIsolate:
    def __init__(self, status: IsolateStatus) -> None:
        self.status = status
        self.load = 0

    def begin(self) -> None:
        self.load += 1


class APool:
    """Gives the isolates of a list, one after the other, to whoever waits for one."""

    def __init__(self, *isolates: AnIsolate) -> None:
        self.isolates = list(isolates)
        self.released: list[AnIsolate] = []

    def ready(self, version: object) -> None:
        return None

    async def acquire(self, version: object, *, solo: bool) -> AnIsolate:
        await asyncio.sleep(0)
        return self.isolates.pop(0)

    def release_solo(self, isolate: AnIsolate) -> None:
        self.released.append(isolate)


class Versions:
    def loaded(self, version_id: str) -> None:
        return None

    async def load(self, version_id: str) -> object:
        return SimpleNamespace(version_id=version_id)


def a_dispatcher(pool: APool, begun: list[Any], *, wanted: bool = True) -> Dispatcher:
    async def load(key: Any) -> None:
        return None

    async def adopt(live: LiveRun) -> None:
        raise AssertionError("nobody here has outlived a node")

    pool_: Any = pool
    versions: Any = Versions()
    return Dispatcher(
        pool_,
        versions,
        load=load,
        wanted=lambda live: wanted,
        adopt=adopt,
        begin=lambda live, isolate: begun.append((live, isolate)),
        give_up=lambda live, error: begun.append((live, error)),
    )


async def until_quiet(dispatcher: Dispatcher) -> None:
    while dispatcher._tasks:
        await asyncio.gather(*dispatcher._tasks)


def test_an_isolate_that_ended_before_the_run_got_it_is_not_used() -> None:
    async def main() -> None:
        gone, good = AnIsolate(IsolateStatus.CRASHED), AnIsolate(IsolateStatus.READY)
        begun: list[Any] = []
        dispatcher = a_dispatcher(APool(gone, good), begun)
        live = a_run()
        live.solo = True
        dispatcher.enqueue(live)
        await until_quiet(dispatcher)
        assert begun == [(live, good)]
        assert (gone.load, good.load) == (0, 1)

    asyncio.run(main())


def test_a_copy_that_was_dropped_while_its_isolate_started_gets_none() -> None:
    async def main() -> None:
        isolate = AnIsolate(IsolateStatus.READY)
        pool, begun = APool(isolate), list[Any]()
        dispatcher = a_dispatcher(pool, begun)
        live = a_run()
        live.solo = True
        dispatcher.enqueue(live)
        await asyncio.sleep(0)  # it has asked for its isolate
        dispatcher._wanted = lambda live: False
        await until_quiet(dispatcher)
        assert (begun, isolate.load, pool.released, live.place) == ([], 0, [isolate], Place.IDLE)

    asyncio.run(main())


def test_a_workflow_at_its_limit_keeps_the_others_waiting_in_their_order() -> None:
    async def main() -> None:
        begun: list[Any] = []
        dispatcher = a_dispatcher(APool(*(AnIsolate(IsolateStatus.READY) for _ in range(3))), begun)
        dispatcher.limit("flow", 1)
        runs = [a_run(name) for name in "abc"]
        for live in runs:
            dispatcher.enqueue(live)
        await until_quiet(dispatcher)
        assert [live.instance_id for live, _ in begun] == ["a"]
        assert dispatcher.queued == 2
        dispatcher.left("flow", solo=False)
        await until_quiet(dispatcher)
        assert [live.instance_id for live, _ in begun] == ["a", "b"]

    asyncio.run(main())
