"""What workflow code may not do outside of a step, what a run that is let go leaves behind, and grants out of turn."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import a_journal, live
from tests.unit.isolate_workflow.wire import Wire

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.status import Status
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.bridge import bridge
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.step import WorkflowStep
from stellwerk.wire import isolate as messages


def one(step: Any, name: str, value: Any = 1) -> Any:
    @step.do(name)
    async def run() -> Any:
        return value

    return run


OUTSIDE: dict[str, tuple[str, Callable[[], Awaitable[Any]]]] = {
    "open_connection": ("A network connection", lambda: asyncio.open_connection("localhost", 1)),
    "start_server": ("A network connection", lambda: asyncio.start_server(lambda r, w: None, "localhost", 0)),
    "getaddrinfo": ("A network connection", lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80)),
    "subprocess": ("A child process", lambda: asyncio.create_subprocess_exec(sys.executable, "-V")),
    "shell": ("A child process", lambda: asyncio.create_subprocess_shell("true")),
    "thread": ("Work in another thread", lambda: asyncio.to_thread(print)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_io_and_threads_are_refused_with_the_cure_and_allowed_within_a_step(name: str) -> None:
    what, attempt = OUTSIDE[name]

    async def program(step: Any) -> Any:
        try:
            await attempt()
        except RuntimeError as error:
            return str(error)

    assert live(program).output == (
        f"{what} is not possible in workflow code outside of a step, because a replay could not repeat it. "
        "Do it inside a step: @step.do(...)."
    )


def test_the_loop_cannot_be_run_stopped_or_given_signals_by_workflow_code() -> None:
    async def program(step: Any) -> Any:
        loop = asyncio.get_running_loop()
        refused = []
        for act in (
            loop.stop,
            loop.run_forever,
            loop.close,
            lambda: loop.add_signal_handler(signal.SIGTERM, print),
            lambda: loop.call_soon_threadsafe(print),
        ):
            try:
                act()
            except RuntimeError as error:
                refused.append(str(error).split(" is not")[0])
        return refused

    assert live(program).output == ["Running or stopping the loop"] * 3 + [
        "A signal handler",
        "Work in another thread",
    ]


def test_threads_work_inside_a_step() -> None:
    async def program(step: Any) -> Any:
        @step.do("thread")
        async def thread() -> Any:
            return await asyncio.to_thread(lambda: 42)

        return await thread()

    assert live(program).output == 42


@pytest.mark.parametrize("kind", ["sleep", "sleep_until", "wait_for_event"])
def test_sleeps_and_waits_inside_of_a_step_are_refused(kind: str) -> None:
    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            argument: Any = {"sleep": 1, "sleep_until": 10**14, "wait_for_event": "paid"}[kind]
            try:
                await getattr(step, kind)("inside", argument)
            except Exception as error:
                return f"{type(error).__name__}: {error}"

        return await outer()

    shown = "step.wait_for_event" if kind == "wait_for_event" else "step.sleep"
    assert live(program).output == (
        f"WorkflowFatalError: {shown} cannot be used inside the callback of a step; use it in run() itself."
    )


def test_steps_past_the_limit_are_refused_before_they_run() -> None:
    async def program(step: Any) -> Any:
        for number in range(4):
            await one(step, f"step {number}")()

    assert live(program, journal=a_journal(steps_max=4)).status is Status.COMPLETE
    end = live(program, journal=a_journal(steps_max=3))
    assert end.error.message == (
        "The limit of 3 steps has been reached. This limit can be changed in your worker configuration."
    )
    assert len(end.begun) == 3


# -- letting go -------------------------------------------------------------------------------------------------------


def test_a_run_that_is_let_go_in_the_middle_of_everything_leaves_nothing_behind_and_says_nothing() -> None:
    ended: list[str] = []

    async def program(step: Any) -> Any:
        @step.do("stuck")
        async def stuck() -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("step cancelled")

        async def waits() -> None:
            await step.wait_for_event("wait", "paid")

        async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
            group.create_task(stuck())
            group.create_task(waits())
            group.create_task(step.sleep("nap", "1 hour"))
            group.create_task(asyncio.Event().wait())

    end = live(program, frozen=True, until=lambda node: bool(node.begun) and bool(node.state.waits))
    assert ended == ["step cancelled"]
    assert end.unhandled == []
    assert not [report for report in end.reports if isinstance(report, i.StepDone | i.StepFailed | i.RunFailed)]


def test_code_that_cleans_up_with_a_step_while_its_run_is_let_go_hurts_nobody() -> None:
    async def program(step: Any) -> Any:
        try:
            await step.wait_for_event("wait", "paid")
        finally:
            try:
                await one(step, "clean up")()
            finally:
                await asyncio.sleep(1)  # bounded: never slept

    end = live(program, frozen=True, until=lambda node: bool(node.state.waits))
    assert end.begun == []
    assert end.unhandled == []
    assert [type(entry) for entry in end.entries] == [e.Created, e.WaitStarted, e.Suspended]


# -- careful mode and grants ------------------------------------------------------------------------------------------


def test_in_careful_mode_each_attempt_is_recorded_before_it_begins() -> None:
    journalled: list[Any] = []

    async def program(step: Any) -> Any:
        @step.do("one")
        async def run() -> Any:
            journalled.append(node.state.open["do:one-1"].running)
            return 1

        return await run()

    class Noted:
        state: Any

    node: Any = Noted()

    def note(little: Any) -> bool:
        node.state = little.state
        return False

    end = live(program, careful=True, until=note)
    assert end.output == 1
    assert journalled == [True]
    assert [type(entry) for entry in end.entries] == [e.Created, e.AttemptStarted, e.StepSucceeded, e.Completed]


def test_a_grant_that_comes_before_the_program_asks_is_kept_for_it() -> None:
    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            @step.do("inner")
            async def inner(ctx: Any) -> Any:
                return ctx.attempt

            return await inner()

        return await outer()

    async def main() -> None:
        inner = "do:outer-1#1\tinner-1"
        failed = e.AttemptFailed(2, inner, "inner", 1, 1, 2, e.ErrorValue("Error", ""), 3, nested=True)
        wire = Wire(program, a_journal(failed, at=1), careful=True)
        asked = await wire.hears(i.StepRequested)
        assert asked.key == "do:outer-1"
        wire.run.grant(messages.AttemptGranted(7, inner, 2))
        wire.run.grant(messages.AttemptGranted(7, "do:outer-1", 1))
        done = await wire.hears(i.StepDone)
        assert (done.key, done.attempt, done.value, done.nested) == (inner, 2, b"\x02", True)
        wire.run.stop()

    asyncio.run(main())


def test_a_call_to_the_outside_from_workflow_code_is_awaited_before_the_run_counts_as_settled() -> None:
    async def program(step: Any) -> Any:
        answer = await bridge(runs[0], outside())
        assert await one(step, "one", answer)() == 5
        try:
            await bridge(runs[0], broken())
        except LookupError as error:
            return str(error)

    async def outside() -> int:
        await asyncio.sleep(0)
        return 5

    async def broken() -> None:
        raise LookupError("nobody there")

    runs: list[Run] = []

    async def main() -> None:
        async def begin(step: Any) -> Any:
            return await program(step)

        wire = Wire.__new__(Wire)
        wire.said = []
        start = messages.RunStart(7, "orders", "Orders", "id", b"\x80", 1, a_journal(at=1), {}, 1_000)
        wire.run = Run(
            start, attempts=Attempts(), send=wire.said.append, on_end=lambda run: None, keep_together=lambda: None,
            report_unhandled=lambda context: None, steps_max=100,
        )  # fmt: skip
        runs.append(wire.run)
        step = WorkflowStep(wire.run)
        wire.run.start(lambda: begin(step))
        assert wire.said == []
        done = await wire.hears(i.StepDone)
        wire.run.deliver(messages.Deliver(7, [Completion(done.key)], 2_000))
        returned = await wire.hears(i.RunReturned)
        assert returned.value == b"\xacnobody there"
        assert wire.said == []  # it never said that it had settled

    asyncio.run(main())


def test_groups_that_arrive_while_a_call_to_the_outside_holds_up_the_replay_stay_apart() -> None:
    gate = asyncio.Event()

    async def program(step: Any) -> Any:
        tasks = [asyncio.ensure_future(step.wait_for_event(name, name)) for name in ("a", "b")]
        await bridge(runs[0], gate.wait())
        await one(step, "recorded")()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return len(done)

    runs: list[Run] = []

    async def main() -> None:
        journal = a_journal(
            e.WaitStarted(2, "wait:a-1", "a", 1, "a", 10**15, 10**6),
            e.WaitStarted(2, "wait:b-1", "b", 1, "b", 10**15, 10**6),
            e.StepSucceeded(2, "do:recorded-1", "recorded", 1, 1, 2, b"\x01", 1),
            at=1,
        )
        said: list[Any] = []
        start = messages.RunStart(7, "orders", "Orders", "id", b"\x80", 1, journal, {}, 1_000)
        run = Run(
            start, attempts=Attempts(), send=said.append, on_end=lambda run: None, keep_together=lambda: None,
            report_unhandled=lambda context: None, steps_max=100,
        )  # fmt: skip
        runs.append(run)
        step = WorkflowStep(run)
        run.start(lambda: program(step))
        run.deliver(messages.Deliver(7, [Completion("wait:a-1", b"\xc0")], 2_000))
        run.deliver(messages.Deliver(7, [Completion("wait:b-1", b"\xc0")], 2_001))
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        (returned,) = said
        assert isinstance(returned, i.RunReturned)
        assert returned.value == b"\x01"  # one done: the second group is another delivery

    asyncio.run(main())
