"""asyncio in workflow code: whatever it does with steps, a replay after any crash comes to the same end."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.isolate_workflow.little_node import a_journal, drive, live

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.status import Status


def adder(step: Any, name: str, value: Any, turns: int = 0) -> Any:
    """A step that takes ``turns`` turns of the isolate's loop."""

    @step.do(name)
    async def add() -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    return add


def test_steps_in_sequence_survive_a_crash_after_each_of_them() -> None:
    async def program(step: Any) -> Any:
        total = 0
        for number in range(4):
            total += await adder(step, f"add {number}", number)()
        return total

    end = drive(program)
    assert end.output == 6
    assert [entry.delivery for entry in end.of(e.StepSucceeded)] == [1, 2, 3, 4]


def test_a_gather_of_twenty_steps_survives_a_crash_anywhere() -> None:
    async def program(step: Any) -> Any:
        return await asyncio.gather(*(adder(step, "part", n, turns=n % 5)() for n in range(20)))

    end = drive(program)
    assert end.output == list(range(20))
    assert {entry.key for entry in end.of(e.StepSucceeded)} == {f"do:part-{n}" for n in range(1, 21)}
    assert len({entry.delivery for entry in end.of(e.StepSucceeded)}) == 5  # ended in five turns: five groups


async def race(step: Any) -> Any:
    tasks = [asyncio.ensure_future(adder(step, name, name)()) for name in ("a", "b")]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    first = len(done)
    if pending:
        done, _ = await asyncio.wait(pending)
    return [first, len(done), await adder(step, "after", "after")()]


def test_two_completions_in_one_group_reach_first_completed_together_in_every_life() -> None:
    end = live(race)
    assert end.output == [2, 2, "after"]
    for mark in end.marks[:-1]:
        if e.StepSucceeded in map(type, end.entries[: mark.entries]):
            assert live(race, journal=end.journal[: mark.entries], lost="node").output == end.output


def test_two_completions_in_two_groups_reach_first_completed_one_by_one_in_every_life() -> None:
    end = live(race, one_by_one=True)
    assert end.output == [1, 1, "after"]
    after_both = [mark for mark in end.marks if len([*filter(_succeeded, end.entries[: mark.entries])]) >= 2]
    assert after_both
    for mark in after_both[:-1]:
        again = live(race, journal=end.journal[: mark.entries], lost="node")  # batches, were they not recorded apart
        assert again.output == end.output


def _succeeded(entry: e.AnyEntry) -> bool:
    return isinstance(entry, e.StepSucceeded)


def test_as_completed_gives_the_recorded_order_again() -> None:
    async def program(step: Any) -> Any:
        steps = [adder(step, name, name, turns)() for name, turns in (("slow", 3), ("quick", 0), ("middle", 1))]
        order = [await next_one for next_one in asyncio.as_completed(steps)]
        return [order[0], sorted(order), await adder(step, "last", len(order))()]

    assert drive(program).output == ["quick", ["middle", "quick", "slow"], 3]


def test_a_task_group_with_a_failing_step_cancels_the_others_in_every_life() -> None:
    async def program(step: Any) -> Any:
        @step.do("fails", config={"retries": {"limit": 0, "delay": 0}})
        async def fails() -> None:
            raise ValueError("no")

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        seen: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                group.create_task(waits())
        except* ValueError as errors:
            seen.append(str(errors.exceptions[0]))
        return [seen, await adder(step, "after", 1)()]

    assert drive(program).output == [["cancelled", "no"], 1]


def test_a_time_out_that_is_not_needed_leaves_a_cancelled_timer() -> None:
    async def program(step: Any) -> Any:
        async with asyncio.timeout(3600):
            first = await adder(step, "a", 1)()
        return first + await adder(step, "b", 1)()

    end = drive(program)
    assert end.output == 2
    assert [entry.hidden for entry in end.of(e.SleepStarted)] == [True]
    assert len(end.of(e.SleepCancelled)) == 1
    assert not end.of(e.SleepCompleted)


def test_a_time_out_fires_over_a_step_that_takes_too_long_and_does_so_in_every_later_life() -> None:
    async def program(step: Any) -> Any:
        @step.do("stuck")
        async def stuck() -> None:
            await asyncio.Event().wait()

        try:
            async with asyncio.timeout(0.03):
                await stuck()
        except TimeoutError:
            return ["late", await adder(step, "instead", 1)()]

    end = live(program)
    assert end.output == ["late", 1]
    fired = next(n for n, entry in enumerate(end.entries) if isinstance(entry, e.SleepCompleted))
    for mark in end.marks:
        if fired < mark.entries < len(end.journal):
            assert live(program, journal=end.journal[: mark.entries], lost="isolate").output == end.output


def test_wait_for_takes_the_same_path_in_every_life() -> None:
    async def program(step: Any) -> Any:
        quick = await asyncio.wait_for(adder(step, "quick", 1)(), timeout=60)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), timeout=5)
        except TimeoutError:
            return quick + await adder(step, "after", 10)()

    assert drive(program).output == 11


def test_two_timers_that_fall_due_together_are_delivered_together() -> None:
    async def program(step: Any) -> Any:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(5)  # bounded: the little node's clock jumps
        except TimeoutError:
            return await adder(step, "after", "timed out")()
        return "slept"

    end = drive(program)
    assert end.output == "timed out"
    assert end.unhandled == []


def test_sleep_in_workflow_code_is_a_durable_timer_with_the_clock_of_the_journal() -> None:
    async def program(step: Any) -> Any:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(86_400)  # bounded: the little node's clock jumps
        slept = loop.time() - before
        return [slept >= 86_399.9, await adder(step, "after", 1)()]

    end = drive(program)
    assert end.output == [True, 1]
    assert [entry.hidden for entry in end.of(e.SleepStarted)] == [True]
    assert end.of(e.Suspended)


def test_queue_event_lock_and_condition_between_tasks_work() -> None:
    async def program(step: Any) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        lock, ready = asyncio.Lock(), asyncio.Event()
        got: list[int] = []

        async def producer() -> None:
            for number in range(3):
                await queue.put(await adder(step, "produce", number)())
            ready.set()

        async def consumer() -> None:
            for _ in range(3):
                number = await queue.get()
                async with lock:
                    got.append(await adder(step, "consume", number * 10)())

        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            group.create_task(consumer())
            await ready.wait()
        return got

    assert drive(program).output == [0, 10, 20]
    assert drive(program, one_by_one=True).output == [0, 10, 20]


def test_a_step_left_behind_by_a_program_that_returns_does_not_make_a_replay_diverge() -> None:
    async def program(step: Any) -> Any:
        task = asyncio.ensure_future(adder(step, "left behind", 1, turns=1)())
        first = await adder(step, "awaited", 2)()
        assert not task.cancelled()
        return first

    assert live(program).output == 2
    left = e.StepSucceeded(5, "do:left behind-1", "left behind", 1, 1, 4, b"\x01", 2)
    awaited = e.StepSucceeded(4, "do:awaited-1", "awaited", 1, 1, 4, b"\x02", 1)
    end = live(program, journal=a_journal(awaited, left, at=1), lost="node")  # recorded, then crashed before the end
    assert end.status is Status.COMPLETE, end.state.reason
    assert end.output == 2


def test_a_timer_that_fires_while_the_program_lets_it_go_does_not_make_a_replay_diverge() -> None:
    async def program(step: Any) -> Any:
        async with asyncio.timeout(60):
            first = await adder(step, "a", 1)()
        return first + await adder(step, "b", 1)()

    journal = a_journal(
        e.SleepStarted(2, "timer:asyncio-1", "asyncio", 1, 60_002, True),
        e.StepSucceeded(60_001, "do:a-1", "a", 1, 1, 4, b"\x01", 1),
        e.SleepCompleted(60_002, "timer:asyncio-1", 2),  # the program's word that it is not needed came later
        at=1,
    )
    end = live(program, journal=journal, lost="node")
    assert end.status is Status.COMPLETE, end.state.reason
    assert end.output == 2


def _raise_key_error() -> None:
    raise KeyError("missing")


def test_an_exception_in_a_callback_is_reported_and_hurts_nobody_else() -> None:
    async def program(step: Any) -> Any:
        task = asyncio.ensure_future(adder(step, "a", 1)())
        task.add_done_callback(lambda _: 1 / 0)
        asyncio.get_running_loop().call_soon(_raise_key_error)
        return await task

    end = live(program)
    assert end.output == 1
    assert [type(context["exception"]) for context in end.unhandled] == [KeyError, ZeroDivisionError]


def test_sys_exit_in_workflow_code_fails_the_run_and_not_the_isolate() -> None:
    async def program(step: Any) -> Any:
        await adder(step, "a", 1)()
        raise SystemExit(3)

    end = live(program)
    assert end.status is Status.ERRORED
    assert end.error.name == "SystemExit"
