"""Steps inside of steps: recorded, counted within the attempt that calls them, and no deliveries of their own."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.isolate_workflow.little_node import LittleNode, drive, live

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import advance

NO_RETRY = {"retries": {"limit": 0, "delay": 0}}
AT_ONCE = {"retries": {"limit": 2, "delay": 0, "backoff": "constant"}}


class DeclinedError(Exception):
    """A user's own class."""


def test_a_step_inside_of_a_step_is_recorded_and_not_run_again() -> None:
    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            @step.do("inner")
            async def inner() -> Any:
                return 20

            return await inner() + await inner()

        return await outer() + 2

    end = drive(program)
    assert end.output == 42
    assert [(entry.name, entry.delivery) for entry in end.of(e.StepSucceeded)] == [
        ("inner", 0),
        ("inner", 0),
        ("outer", 1),
    ]


def test_nested_steps_of_the_same_name_belong_to_their_own_outer_step() -> None:
    async def program(step: Any) -> Any:
        async def outer(name: str) -> Any:
            @step.do(name)
            async def run() -> Any:
                @step.do("save")
                async def save() -> Any:
                    return f"saved by {name}"

                return await save()

            return await run()

        @step.do("save")
        async def save() -> Any:
            return "saved by run()"

        return [await outer("first"), await save(), await outer("second"), await save()]

    end = drive(program)
    assert end.output == ["saved by first", "saved by run()", "saved by second", "saved by run()"]
    assert len(end.results) == 6


def test_outer_steps_at_once_each_have_nested_steps_of_their_own() -> None:
    async def program(step: Any) -> Any:
        async def outer(number: int) -> Any:
            @step.do("outer")
            async def run() -> Any:
                @step.do("inner")
                async def inner() -> Any:
                    for _ in range(3 - number):
                        await asyncio.sleep(0)
                    return number

                return await inner()

            return await run()

        return await asyncio.gather(*map(outer, range(3)))

    assert drive(program).output == [0, 1, 2]


def test_a_nested_step_that_fails_is_tried_again_and_its_error_can_be_caught_in_the_outer_step() -> None:
    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            @step.do("flaky", config={"retries": {"limit": 2, "delay": 1, "backoff": "constant"}})
            async def flaky(ctx: Any) -> Any:
                if ctx.attempt == 1:
                    raise ValueError("first")
                return ctx.attempt

            @step.do("hopeless", config=NO_RETRY)
            async def hopeless() -> Any:
                raise DeclinedError("never")

            try:
                await hopeless()
            except DeclinedError as error:
                return [await flaky(), str(error)]

        return await outer()

    assert drive(program, one_by_one=True).output == [2, "never"]


def test_in_a_second_attempt_of_the_outer_step_the_nested_steps_run_again_in_every_life() -> None:
    async def program(step: Any) -> Any:
        @step.do("outer", config=AT_ONCE)
        async def outer(ctx: Any) -> Any:
            @step.do("inner")
            async def inner() -> Any:
                return ctx.attempt

            seen = await inner()
            if ctx.attempt == 1:
                raise ValueError("once more")
            return seen

        return await outer()

    assert drive(program).output == 2


def test_a_nested_step_whose_interruptions_count_is_no_delivery_of_its_own() -> None:
    """What a step that ends its isolate leaves: the outer attempt interrupted, the nested step failed for good."""

    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            @step.do("kills", config=NO_RETRY)
            async def kills() -> Any:
                await asyncio.Event().wait()

            try:
                await kills()
            except Exception as error:
                return str(error)

        return await outer()

    def both_run(node: LittleNode) -> bool:
        return sum(step.running for step in node.state.open.values()) == 2

    life = live(program, careful=True, solo=True, until=both_run)
    crash = _interrupted(life.state, life.journal)
    assert [type(entry) for entry in crash.entries] == [e.AttemptInterrupted, e.StepErrored, e.RunInterrupted]
    end = live(program, journal=life.journal, careful=True, solo=True)
    assert end.output == "Attempt failed due to internal workflows error"


def test_a_nested_retry_that_is_granted_before_its_outer_step_runs_again_does_not_block_it() -> None:
    attempts: list[int] = []

    async def program(step: Any) -> Any:
        @step.do("outer")
        async def outer() -> Any:
            @step.do("inner", config={"retries": {"limit": 3, "delay": "1 hour"}})
            async def inner(ctx: Any) -> Any:
                attempts.append(ctx.attempt)
                if ctx.attempt == 1:
                    raise ValueError("once")
                return "done"

            return await inner()

        return await outer()

    def failed(node: LittleNode) -> bool:
        return any(type(e.decode(data)) is e.AttemptFailed for data in node.journal)

    life = live(program, careful=True, until=failed)
    _interrupted(life.state, life.journal)
    (retry,) = [entry for entry in life.entries if isinstance(entry, e.AttemptFailed)]
    due = Decision()
    advance(life.state, i.TimerFired(), now_ms=retry.retry_at, out=due)
    end = live(program, journal=life.journal + [e.encode(entry) for entry in due.entries], careful=True, solo=True)
    assert end.output == "done"
    assert attempts == [1, 2]


def _interrupted(state: Any, journal: list[bytes]) -> Decision:
    out = Decision()
    advance(state, i.Interrupted("crashed"), now_ms=10**15, out=out)
    journal += [e.encode(entry) for entry in out.entries]
    return out
