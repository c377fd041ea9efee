"""Steps as programs use them: results, errors, retries, time-outs, nesting. Each program survives a crash anywhere."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import LittleNode, a_journal, drive, live
from workers._js import JsDict
from workers.workflows import NonRetryableError

from stellwerk.core.limits import STEP_OUTPUT_BYTES_MAX
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.status import Status
from stellwerk.core.workflow.steps import StepConfig
from stellwerk.isolate.failures import StepError, WorkflowTimeoutError

NO_RETRY = {"retries": {"limit": 0, "delay": 0}}
AT_ONCE = {"retries": {"limit": 2, "delay": 0, "backoff": "constant"}}


class DeclinedError(Exception):
    """A user's own class, with the usual message."""


class CodedError(Exception):
    """A user's own class that keeps what it is told and makes its text from it."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class WordyError(Exception):
    """A user's own class whose arguments are not those of its base."""

    def __init__(self, name: str, *, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


class FinalError(NonRetryableError):
    """A user's own kind of NonRetryableError."""


# -- results ----------------------------------------------------------------------------------------------------------


def test_none_is_a_result_like_any_other() -> None:
    async def program(step: Any) -> Any:
        @step.do("nothing")
        async def nothing() -> None: ...

        return [await nothing(), await nothing()]

    assert drive(program).output == [None, None]


def test_results_come_back_as_values_with_attribute_access_and_never_shared() -> None:
    kept: dict[str, Any] = {"order": {"id": 7, "lines": [{"sku": "x"}]}}

    async def program(step: Any) -> Any:
        @step.do("order")
        def order() -> Any:
            return kept

        got = await order()
        assert isinstance(got, JsDict)
        seen = [got.order.id, got["order"]["lines"][0].sku]
        got.order.id = 8
        return [*seen, (await order()).order.id]

    assert drive(program).output == [7, "x", 7]


def test_a_plain_function_and_an_awaitable_are_steps_too() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        def plain() -> int:
            return 1

        @step.do()
        def later() -> Any:
            return asyncio.gather(asyncio.sleep(0))  # an awaitable that is no coroutine

        return [await plain(), await later()]

    end = drive(program)
    assert end.output == [1, [None]]
    assert list(end.results) == ["do:plain-1", "do:later-1"]


def test_each_attempt_is_a_task_of_the_isolates_own_loop_that_has_the_name_of_its_step() -> None:
    seen: list[Any] = []

    async def program(step: Any) -> Any:
        @step.do("charge")
        async def charge(ctx: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            seen.append((task.get_name(), asyncio.get_running_loop(), task.get_loop()))
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return ctx.attempt

        return await charge()

    async def main() -> None:
        end = await LittleNode(program=program, journal=a_journal()).live()
        assert end.output == 1
        home = asyncio.get_running_loop()
        assert seen == [("do:charge-1", home, home)]

    asyncio.run(main())


def test_the_same_name_twice_is_two_steps_and_in_call_order() -> None:
    async def program(step: Any) -> Any:
        seen = []
        for number in range(3):

            @step.do("again")
            async def again(ctx: Any, number: int = number) -> Any:
                raise AssertionError("not reached: the parameter has no step")

            @step.do("again")
            async def once_more(ctx: Any) -> Any:
                return ctx.step.count

            seen.append(await once_more())
        return seen

    end = drive(program)
    assert end.output == [1, 2, 3]
    assert list(end.results) == ["do:again-1", "do:again-2", "do:again-3"]


def test_a_result_that_cannot_be_kept_ends_the_run_at_once_though_the_program_would_catch_it() -> None:
    async def program(step: Any) -> Any:
        @step.do("odd", config=AT_ONCE)
        async def odd() -> Any:
            return object()

        try:
            await odd()
        except Exception:
            return "caught"

    end = drive(program)
    assert end.status is Status.ERRORED
    assert end.error.name == "WorkflowFatalError"
    assert end.error.message == (
        'The execution of the Workflow instance was terminated, as the step "odd" returned a value which is not '
        "serialisable"
    )
    assert end.begun == [("do:odd-1", 1)]


def test_a_result_of_more_than_a_mebibyte_fails_the_attempt_and_is_tried_again() -> None:
    sizes = [STEP_OUTPUT_BYTES_MAX + 1, STEP_OUTPUT_BYTES_MAX - 100]

    async def program(step: Any) -> Any:
        @step.do("large", config=AT_ONCE)
        async def large(ctx: Any) -> Any:
            return "x" * sizes[ctx.attempt - 1]

        return len(await large())

    end = live(program)
    assert end.output == STEP_OUTPUT_BYTES_MAX - 100
    (failed,) = end.of(e.AttemptFailed)
    assert failed.error.name == "WorkflowInternalError"
    assert failed.error.message == "Step large-1 output is too large. Maximum allowed size is 1MiB."


# -- the context ------------------------------------------------------------------------------------------------------


def test_the_context_tells_step_attempt_and_configuration_and_changing_it_changes_nothing() -> None:
    seen: list[Any] = []

    async def program(step: Any) -> Any:
        @step.do("flaky", config=AT_ONCE)
        async def flaky(ctx: Any) -> Any:
            seen.append(json.loads(json.dumps(ctx)))
            ctx.config.retries.limit = 0
            ctx["attempt"] = 99
            if len(seen) < 3:
                raise ValueError("again")
            return ctx["step"]["name"]

        return await flaky()

    assert live(program).output == "flaky"
    assert [ctx["attempt"] for ctx in seen] == [1, 2, 3]
    assert seen[0] == {
        "step": {"name": "flaky", "count": 1},
        "attempt": 1,
        "config": {"retries": {"limit": 2, "delay": 0, "backoff": "constant"}, "timeout": "10 minutes"},
    }
    assert seen[2]["config"] == seen[0]["config"]


def test_the_context_of_a_step_without_configuration_shows_the_defaults() -> None:
    async def program(step: Any) -> Any:
        @step.do("plain")
        async def plain(ctx: Any) -> Any:
            return ctx.config

        return await plain()

    retries = {"limit": 5, "delay": 1000, "backoff": "exponential"}
    assert live(program).output == {"retries": retries, "timeout": "10 minutes"}


# -- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "pauses"), [("constant", [10, 10, 10]), ("linear", [10, 20, 30]), ("exponential", [10, 20, 40])]
)
def test_retries_wait_as_their_backoff_says(backoff: str, pauses: list[int]) -> None:
    async def program(step: Any) -> Any:
        @step.do("flaky", config={"retries": {"limit": 3, "delay": "10 seconds", "backoff": backoff}})
        async def flaky(ctx: Any) -> Any:
            if ctx.attempt <= 3:
                raise ValueError(f"attempt {ctx.attempt}")
            return ctx.attempt

        return await flaky()

    end = drive(program)
    assert end.output == 4
    assert [entry.retry_at - entry.at for entry in end.of(e.AttemptFailed)] == [seconds * 1000 for seconds in pauses]


def test_when_all_retries_are_used_up_the_program_gets_the_last_error_as_its_own_class() -> None:
    async def program(step: Any) -> Any:
        @step.do("charge", config=AT_ONCE)
        async def charge(ctx: Any) -> Any:
            raise DeclinedError(f"declined {ctx.attempt}")

        try:
            await charge()
        except DeclinedError as error:
            return str(error)

    end = drive(program)
    assert end.output == "declined 3"
    assert [entry.attempt for entry in end.of(e.AttemptFailed, e.StepErrored)] == [1, 2, 3]


@pytest.mark.parametrize(
    "error", [NonRetryableError("no"), FinalError("no"), Exception("NonRetryableError: a quirk of Cloudflare")]
)
def test_a_non_retryable_error_is_not_tried_again_and_can_be_caught(error: Exception) -> None:
    async def program(step: Any) -> Any:
        @step.do("charge")
        async def charge() -> Any:
            raise error

        try:
            await charge()
        except type(error) as caught:
            return [type(caught).__name__, str(caught)]

    end = drive(program)
    assert end.output == [type(error).__name__, str(error)]
    assert end.begun == [("do:charge-1", 1)]


def test_an_error_that_nobody_catches_is_the_error_of_the_run() -> None:
    async def program(step: Any) -> Any:
        @step.do("charge")
        async def charge() -> Any:
            raise NonRetryableError("card expired")

        await charge()

    end = drive(program)
    assert (end.status, end.error.name, end.error.message) == (Status.ERRORED, "NonRetryableError", "card expired")


@pytest.mark.parametrize("answer", [25, "2 seconds", 0])
def test_a_delay_function_says_how_long_to_wait_and_its_answer_is_taken_as_it_is(answer: object) -> None:
    asked: list[Any] = []

    async def program(step: Any) -> Any:
        def delay(about: Any) -> Any:
            asked.append((about.ctx.attempt, str(about.error), "delay" in about.ctx.config.retries))
            return answer

        @step.do("flaky", config={"retries": {"limit": 2, "delay": delay, "backoff": "exponential"}})
        async def flaky(ctx: Any) -> Any:
            if ctx.attempt <= 2:
                raise ValueError(f"attempt {ctx.attempt}")
            return ctx.attempt

        return await flaky()

    end = live(program)
    assert end.output == 3
    assert asked == [(1, "attempt 1", False), (2, "attempt 2", False)]
    expected = 2000 if answer == "2 seconds" else answer
    assert [entry.retry_at - entry.at for entry in end.of(e.AttemptFailed)] == [expected] * 2
    assert {entry.config.delay for entry in end.of(e.AttemptFailed)} == {"[dynamic]"}


def _raises(about: Any) -> Any:
    raise RuntimeError("broken")


async def _raises_later(about: Any) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("delay", "message"),
    [
        (_raises, "threw an error: broken"),
        (_raises_later, "threw an error: broken"),
        (
            lambda about: "i like trains",
            'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")',
        ),
        (
            lambda about: None,
            'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")',
        ),
    ],
)
def test_a_delay_function_that_does_not_answer_ends_the_step(delay: Any, message: str) -> None:
    async def program(step: Any) -> Any:
        @step.do("flaky", config={"retries": {"limit": 2, "delay": delay}})
        async def flaky() -> Any:
            raise ValueError("no")

        await flaky()

    end = live(program)
    assert end.begun == [("do:flaky-1", 1)]
    assert (end.error.name, end.error.message) == (
        "NonRetryableDelayError",
        f'The delay function for step "flaky-1" {message}',
    )


def test_an_attempt_that_takes_too_long_fails_and_its_late_result_is_discarded() -> None:
    late = asyncio.Event
    finished: list[int] = []

    async def program(step: Any) -> Any:
        first_may_end = late()

        @step.do("slow", config={**AT_ONCE, "timeout": 40})
        async def slow(ctx: Any) -> Any:
            if ctx.attempt == 1:
                await first_may_end.wait()
            else:
                first_may_end.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            finished.append(ctx.attempt)
            return ctx.attempt

        return await slow()

    end = live(program)
    assert end.output == 2
    assert finished == [1, 2]
    assert [report.attempt for report in end.reports if isinstance(report, i.StepDone)] == [2]
    (failed,) = end.of(e.AttemptFailed)
    assert (failed.error.name, failed.error.message) == ("WorkflowTimeoutError", "Execution timed out after 40ms")


def test_a_delay_function_is_asked_about_time_outs_too() -> None:
    asked: list[Any] = []

    async def program(step: Any) -> Any:
        def delay(about: Any) -> Any:
            asked.append(about.error)
            return 7

        @step.do("slow", config={"retries": {"limit": 1, "delay": delay}, "timeout": 20})
        async def slow(ctx: Any) -> Any:
            if ctx.attempt == 1:
                await asyncio.Event().wait()
            return ctx.attempt

        return await slow()

    end = live(program)
    assert end.output == 2
    assert [(type(error), str(error)) for error in asked] == [(WorkflowTimeoutError, "Execution timed out after 20ms")]
    assert [entry.retry_at - entry.at for entry in end.of(e.AttemptFailed)] == [7]


def test_an_attempt_that_lasts_is_announced_and_not_run_again_without_being_recorded_first() -> None:
    async def program(step: Any) -> Any:
        may_end.clear()

        @step.do("lasts")
        async def lasts() -> Any:
            await may_end.wait()
            return 1

        return await lasts()

    may_end = asyncio.Event()

    def announced(node: LittleNode) -> bool:
        if any(type(e.decode(data)) is e.AttemptStarted for data in node.journal):
            may_end.set()
        return False

    end = drive(program, until=announced)
    assert end.output == 1
    assert [type(entry) for entry in end.entries] == [e.Created, e.AttemptStarted, e.StepSucceeded, e.Completed]


def test_the_configuration_of_the_first_execution_wins_over_later_code() -> None:
    journal = a_journal(
        e.AttemptFailed(5, "do:a-1", "a", 1, 1, 4, e.ErrorValue("Error", "no"), 6, StepConfig(1, 0, "constant")),
        e.AttemptStarted(5, "do:b-1", "b", 1, 1, None),
        at=1,
    )

    async def at_once(step: Any) -> Any:
        @step.do("a", config={"retries": {"limit": 9, "delay": 1}})
        async def a(ctx: Any) -> Any:
            return ctx.config.retries.limit

        @step.do("b", config=NO_RETRY)
        async def b(ctx: Any) -> Any:
            return ctx.config.retries.limit

        return await asyncio.gather(a(), b())

    assert live(at_once, journal=journal, lost="node").output == [1, 5]


# -- errors as they come back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text"),
        KeyError("key"),
        OSError(2, "No such file"),
        TimeoutError(),
        DeclinedError("a", 1),
        CodedError(5),
        WordyError("card", reason="expired"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ExceptionGroup("several", [ValueError("one")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_raised_again_as_its_class_with_its_text_in_every_life(error: Exception) -> None:
    async def program(step: Any) -> Any:
        @step.do("fails", config=NO_RETRY)
        async def fails() -> Any:
            raise error

        try:
            await fails()
        except type(error) as caught:
            return ["its class", str(caught)]

    end = drive(program)
    assert end.output == ["its class", str(error)]


def test_an_error_that_leaves_the_run_keeps_its_text_whatever_its_class_does() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def program(step: Any) -> Any:
        raise Mute("hidden")

    end = live(program)
    assert end.status is Status.ERRORED
    assert end.error.name == "Mute"


def test_an_unknown_class_is_raised_as_a_step_error_that_carries_its_name() -> None:
    error = e.ErrorValue("Gone", "no such class", "", "a_module_that_is_not_loaded:Gone")
    journal = a_journal(e.StepErrored(5, "do:a-1", "a", 1, 1, 4, error, 1), at=1)

    async def program(step: Any) -> Any:
        @step.do("a")
        async def a() -> Any: ...

        try:
            await a()
        except StepError as caught:
            return [caught.name, str(caught)]

    assert live(program, journal=journal).output == ["Gone", "no such class"]
