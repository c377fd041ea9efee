"""A run that has ended is free at once, without the collector of cycles: nothing of it leads back to it."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import a_journal

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Completion
from stellwerk.isolate.logs import LogCapture
from stellwerk.isolate.workflow.runs import IsolateRuns
from stellwerk.wire import isolate as messages

Program = Callable[[Any, Any], Any]


def one(step: Any, name: str, value: Any = 1) -> Any:
    @step.do(name)
    async def run() -> Any:
        return value

    return run


async def returns(event: Any, step: Any) -> Any:
    for name in ("one", "two"):
        await one(step, name, {"list": [1]})()

    @step.do("three")
    async def three(ctx: Any, two: Any) -> Any:
        return two

    return await asyncio.gather(three(), one(step, "four")())


async def returns_before_its_tasks(event: Any, step: Any) -> Any:
    tasks = [asyncio.ensure_future(one(step, name)()) for name in ("one", "two")]
    gathered = asyncio.gather(*tasks, asyncio.sleep(1000))
    await asyncio.sleep(0)
    return gathered is None


async def raises(event: Any, step: Any) -> Any:
    await one(step, "one")()
    raise LookupError("nothing there")


async def raises_what_a_step_raised(event: Any, step: Any) -> Any:
    @step.do("one", config={"retries": {"limit": 0, "delay": 0}})
    async def broken() -> Any:
        raise LookupError("nothing there")

    await broken()


async def is_cancelled(event: Any, step: Any) -> Any:
    await one(step, "one")()
    raise asyncio.CancelledError("no more")


async def hangs(event: Any, step: Any) -> Any:
    await one(step, "one")()
    await asyncio.Event().wait()


async def spins(event: Any, step: Any) -> Any:
    await one(step, "one")()
    for _ in iter(int, 1):
        await asyncio.sleep(0)


async def waits(event: Any, step: Any) -> Any:
    await one(step, "one")()
    await step.wait_for_event("wait", "paid")


async def waits_for_everything(event: Any, step: Any) -> Any:
    @step.do("stuck")
    async def stuck() -> Any:
        await asyncio.Event().wait()

    async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
        group.create_task(stuck())
        group.create_task(step.sleep("nap", "1 hour"))
        group.create_task(asyncio.wait_for(step.wait_for_event("wait", "paid"), 5))
        gathered = asyncio.gather(asyncio.sleep(5), one(step, "one")(), asyncio.Event().wait())
        await asyncio.wait([gathered, *group._tasks], return_when=asyncio.ALL_COMPLETED)


ENDS: dict[str, tuple[Program, type | None]] = {
    "success": (returns, i.RunReturned),
    "success with tasks that go on": (returns_before_its_tasks, i.RunReturned),
    "failure": (raises, i.RunFailed),
    "failure of a step": (raises_what_a_step_raised, i.RunFailed),
    "cancellation": (is_cancelled, i.RunFailed),
    "hanging": (hangs, i.RunFailed),
    "spinning": (spins, i.RunFailed),
    "divergence": (waits, i.RunDiverged),
    "stop": (waits, None),
    "stop in the middle of everything": (waits_for_everything, None),
}


class Isolate:
    """The isolate's half, with a node that records nothing and agrees to everything."""

    def __init__(self, program: Program) -> None:
        self.said: list[Any] = []
        self.traces: list[weakref.ref[Any]] = []  # of what the run is made of
        self.program = program
        worker: Any = self
        channel: Any = self
        flags = frozenset({"python_workflows_implicit_dependencies"})
        self.runs = IsolateRuns(channel, worker, None, LogCapture(lambda log: None), flags, lambda: None)

    def send(self, report: Any) -> None:
        self.said.append(report)

    def keep_together(self) -> None:
        pass

    def find(self, name: str) -> Any:
        isolate = self

        class Orders:
            def __init__(self, ctx: Any, env: Any) -> None:
                pass

            async def run(self, event: Any, step: Any) -> Any:
                parts = (step, step._run, asyncio.get_running_loop(), asyncio.current_task())
                isolate.traces += map(weakref.ref, parts)
                del parts
                return await isolate.program(event, step)

        return Orders, "workflow"

    async def lives(self, journal: list[bytes]) -> list[Any]:
        """Until nothing moves any more; what it reported."""
        self.runs.start(messages.RunStart(1, "orders", "Orders", "id", b"\xc0", 1, journal, {}, 2, steps_max=100))
        reports = []
        for _ in range(20):
            said, self.said = self.said, []
            reports += said
            for report in said:
                if isinstance(report, i.StepDone | i.StepFailed):
                    error = report.error if isinstance(report, i.StepFailed) else None
                    self.runs.deliver(messages.Deliver(1, [Completion(report.key, None, error)], 5, 1))
            await asyncio.sleep(0)
        return reports

    async def stop(self) -> None:
        self.runs.stop(messages.RunStop(1, ""))
        for _ in range(3):  # attempts that are cancelled end
            await asyncio.sleep(0)


@pytest.fixture
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_has_ended_is_free_at_once(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, last = ENDS[how]
    monkeypatch.setattr("stellwerk.isolate.workflow.loop.SETTLE_CALLBACKS_MAX", 100)
    other = e.StepSucceeded(2, "do:other-1", "other", 1, 1, 2, b"\xc0", 1)
    journal = a_journal(*([other] if last is i.RunDiverged else []), at=1)

    async def main() -> None:
        isolate = Isolate(program)
        reports = await isolate.lives(journal)
        if last is None:
            await isolate.stop()
        else:
            assert type(reports[-1]) is last
        assert isolate.traces
        assert [trace() for trace in isolate.traces if trace() is not None] == []

    asyncio.run(main())
