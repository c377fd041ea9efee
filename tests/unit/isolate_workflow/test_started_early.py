"""A program that is started while its run is being written: it runs, and nothing of it reaches the world outside."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.unit.isolate_workflow.little_node import Program, a_journal
from tests.unit.isolate_workflow.wire import Wire, a_step, recorded

from stellwerk.core.workflow import inputs as i
from stellwerk.isolate.workflow.bridge import bridge


def started_early(program: Program) -> Wire:
    return Wire(program, a_journal(at=1), unrecorded=True)


def test_its_steps_begin_when_the_run_is_on_disk() -> None:
    begun: list[str] = []

    async def program(step: Any) -> Any:
        begun.append("program")
        await asyncio.gather(a_step(step, "left", begun)(), a_step(step, "right", begun)())

    async def main() -> None:
        wire = started_early(program)
        await wire.quiet()
        assert (begun, wire.said) == (["program"], [])  # and not that it had settled
        wire.run.recorded()
        await wire.quiet()
        assert begun == ["program", "left", "right"]
        wire.run.stop()

    asyncio.run(main())


def test_the_result_of_its_first_step_goes_ahead_as_always() -> None:
    async def program(step: Any) -> Any:
        return await a_step(step, "one", [])()

    async def main() -> None:
        wire = started_early(program)
        wire.run.recorded()
        await wire.quiet()
        done, returned = wire.said
        assert (done.ahead_ms >= 0, returned.value) == (True, done.value)

    asyncio.run(main())


def test_workflow_code_calls_nobody_before() -> None:
    called: list[str] = []

    async def outside() -> None:
        called.append("outside")

    async def program(step: Any) -> Any:
        await bridge(step._run, outside())

    async def main() -> None:
        wire = started_early(program)
        await wire.quiet()
        assert (called, wire.said) == ([], [])
        wire.run.recorded()
        await wire.hears(i.RunReturned)
        assert called == ["outside"]

    asyncio.run(main())


def test_what_the_machine_records_behind_the_creation_is_asked_for_at_once() -> None:
    """The node sends it to the disk after the creation, so that it cannot be there without it."""

    async def program(step: Any) -> Any:
        await step.sleep("a while", 1_000)

    async def main() -> None:
        wire = started_early(program)
        assert (await wire.hears(i.SleepRequested)).name == "a while"
        await wire.quiet()
        assert wire.said == []
        wire.run.recorded()
        await wire.hears(i.RunSettled)
        wire.run.stop()

    asyncio.run(main())


def test_a_program_without_steps_ends_before_its_run_is_on_disk() -> None:
    async def program(step: Any) -> Any:
        return "done"

    async def main() -> None:
        wire = started_early(program)
        assert (await wire.hears(i.RunReturned)).value == b"\xa4done"
        wire.run.recorded()  # nobody is there any more

    asyncio.run(main())


def test_one_that_leaves_work_for_after_the_answer_ends_when_that_has_begun() -> None:
    worked: list[str] = []

    async def work() -> None:
        worked.append("worked")

    async def program(step: Any) -> Any:
        step.host.wait_until(work())

    async def main() -> None:
        wire = started_early(program)
        await wire.quiet()
        assert (worked, wire.said) == ([], [])
        wire.run.recorded()
        await wire.hears(i.RunReturned)
        await wire.quiet()
        assert worked == ["worked"]

    asyncio.run(main())


def test_a_program_that_waits_for_nothing_known_is_found_when_its_run_is_on_disk() -> None:
    async def program(step: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        wire = started_early(program)
        await wire.quiet()
        assert wire.said == []
        wire.run.recorded()
        assert "hung" in (await wire.hears(i.RunFailed)).error.message

    asyncio.run(main())


def test_a_run_that_was_refused_has_done_nothing() -> None:
    begun: list[str] = []

    async def outside() -> None:
        begun.append("outside")

    async def program(step: Any) -> Any:
        calls: list[Coroutine[Any, Any, Any]] = [a_step(step, "one", begun)(), bridge(step._run, outside())]
        await asyncio.gather(*calls)

    async def main() -> None:
        wire = started_early(program)
        await wire.quiet()
        wire.run.stop()
        wire.run.recorded()
        wire.run.deliver(recorded("do:one-1"))
        await wire.quiet()
        assert (begun, wire.said) == ([], [])

    asyncio.run(main())
