"""A program that waits for one step only is given its result ahead of the record; the world outside is not."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.isolate_workflow.little_node import a_journal, drive, live
from tests.unit.isolate_workflow.wire import Wire, a_step, recorded

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.isolate.workflow.bridge import bridge
from stellwerk.wire import isolate as messages


def test_the_end_of_a_program_follows_the_step_that_it_waited_for_at_once() -> None:
    async def program(step: Any) -> Any:
        return await a_step(step, "one", [])()

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        done, returned = wire.said
        assert (type(done), done.ahead_ms >= 0) == (i.StepDone, True)
        assert (type(returned), returned.value) == (i.RunReturned, done.value)
        assert wire.run.stopped

    asyncio.run(main())


def test_a_step_begins_when_the_results_that_it_may_have_seen_are_on_disk() -> None:
    begun: list[str] = []

    async def program(step: Any) -> Any:
        await a_step(step, "one", begun)()
        await asyncio.gather(a_step(step, "left", begun)(), a_step(step, "right", begun)())

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        assert begun == ["one"]
        assert [type(report) for report in wire.said] == [i.StepDone]  # and not that it had settled
        wire.run.deliver(recorded("do:one-1"))
        await wire.quiet()
        assert begun == ["one", "left", "right"]
        wire.run.stop()

    asyncio.run(main())


def test_what_is_not_the_record_of_that_result_lets_nothing_begin() -> None:
    begun: list[str] = []

    async def program(step: Any) -> Any:
        await a_step(step, "one", begun)()
        await a_step(step, "two", begun)()

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        wire.run.deliver(recorded("timer:asyncio-1"))  # one that the program let go, and that fired all the same
        await wire.quiet()
        assert begun == ["one"]
        wire.run.stop()

    asyncio.run(main())


def test_workflow_code_that_has_seen_such_a_result_calls_nobody_yet() -> None:
    called: list[str] = []

    async def outside() -> None:
        called.append("outside")

    async def program(step: Any) -> Any:
        await a_step(step, "one", [])()
        await bridge(step._run, outside())
        return "called"

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        assert called == []
        wire.run.deliver(recorded("do:one-1"))
        assert (await wire.hears(i.RunReturned)).value == b"\xa6called"
        assert called == ["outside"]

    asyncio.run(main())


def test_a_call_that_was_held_back_is_forgotten_with_its_run() -> None:
    async def outside() -> None:
        raise AssertionError("nobody called")

    async def program(step: Any) -> Any:
        await a_step(step, "one", [])()
        await bridge(step._run, outside())

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        wire.run.stop()
        wire.run.deliver(recorded("do:one-1"))
        await wire.quiet()

    asyncio.run(main())  # a coroutine that nobody awaits would be a warning, and those fail


def test_work_for_after_the_answer_waits_for_the_record_too() -> None:
    """And so does the end of the program that asked for it: the run would leave before it has begun."""
    worked: list[str] = []

    async def work() -> None:
        worked.append("worked")

    async def program(step: Any) -> Any:
        await a_step(step, "one", [])()
        step.host.wait_until(work())

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        assert (worked, [type(report) for report in wire.said]) == ([], [i.StepDone])
        wire.run.deliver(recorded("do:one-1"))
        await wire.quiet()
        assert (worked, type(wire.said[-1])) == (["worked"], i.RunReturned)
        assert wire.run.stopped

    asyncio.run(main())


def test_work_for_after_the_answer_is_forgotten_with_its_run() -> None:
    async def work() -> None:
        raise AssertionError("nobody works")

    async def program(step: Any) -> Any:
        await a_step(step, "one", [])()
        step.host.wait_until(work())

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        await wire.quiet()
        wire.run.stop()
        await wire.quiet()

    asyncio.run(main())  # a coroutine that nobody awaits would be a warning, and those fail


def test_a_result_comes_with_its_delivery_when_something_else_may_come_first() -> None:
    begun: list[str] = []

    async def program(step: Any) -> Any:
        waiting = asyncio.ensure_future(step.wait_for_event("go", "go"))
        await a_step(step, "one", begun)()
        begun.append("after")
        await waiting

    async def main() -> None:
        wire = Wire(program, a_journal(at=1))
        done = await wire.hears(i.StepDone)
        await wire.quiet()
        assert (done.ahead_ms, begun) == (-1, ["one"])
        wire.run.deliver(recorded(done.key))
        assert begun == ["one", "after"]
        wire.run.stop()

    asyncio.run(main())


def test_an_event_that_is_there_already_is_delivered_after_the_result_and_a_replay_does_the_same() -> None:
    """The wait, which the program begins with the result in its hands, ends at once."""

    async def program(step: Any) -> Any:
        first = await a_step(step, "one", [])()
        event = await step.wait_for_event("go", "go")
        return [first, event["payload"]]

    end = drive(program, events=[("go", 5)], early=True)
    assert end.output == ["one", 5]
    ((succeeded,), (completed,)) = end.of(e.StepSucceeded), end.of(e.WaitCompleted)
    assert (succeeded.delivery, completed.delivery) == (1, 2)


def test_after_an_unclean_end_the_program_waits_for_the_record() -> None:
    """What it did with the result may have ended its isolate, and would do so again before anybody has the result."""

    async def program(step: Any) -> Any:
        await a_step(step, "one", [])()

    async def main() -> None:
        wire = Wire(program, a_journal(e.RunInterrupted(2, "it crashed"), at=1), careful=True)
        await wire.hears(i.StepRequested)
        wire.run.grant(messages.AttemptGranted(7, "do:one-1", 1))
        await wire.quiet()
        (done,) = wire.said
        assert (type(done), done.ahead_ms) == (i.StepDone, -1)
        wire.run.deliver(recorded("do:one-1"))
        await wire.hears(i.RunReturned)

    asyncio.run(main())


def test_a_program_reads_the_same_time_in_a_replay() -> None:
    async def program(step: Any) -> Any:
        loop = asyncio.get_running_loop()
        read = []
        for name in ("one", "two", "three"):
            await a_step(step, name, [])()
            read.append(loop.time())
        return read

    first = live(program, frozen=True)
    ended = [entry.at / 1000 for entry in first.of(e.StepSucceeded)]
    assert first.output == ended
    again = live(program, journal=first.journal[:-1], frozen=True, lost="node")
    assert again.output == ended
