"""Dependencies between steps, in the mode of today (by parameter name) and in the older one (``depends``)."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import drive, live

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.status import Status

NO_RETRY = {"retries": {"limit": 0, "delay": 0}}


def test_a_parameter_names_the_step_whose_result_it_gets() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        async def one() -> int:
            return 1

        @step.do("two")
        async def called_otherwise(one: int) -> int:
            return one + 1

        @step.do()
        async def three(two: int, one: int) -> list[int]:
            return [one, two, 3]

        return await three()

    end = drive(program)
    assert end.output == [1, 2, 3]
    assert list(end.results) == ["do:one-1", "do:two-1", "do:three-1"]  # `one` ran once


def test_the_context_may_stand_anywhere_among_the_dependencies() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        async def a() -> str:
            return "a"

        @step.do()
        async def b() -> str:
            return "b"

        @step.do()
        async def first(ctx: Any, a: str, b: str) -> Any:
            return ctx.step.name + a + b

        @step.do()
        async def middle(a: str, ctx: Any, b: str) -> Any:
            return a + ctx.step.name + b

        @step.do()
        async def last(a: str, *, b: str, ctx: Any) -> Any:
            return a + b + ctx.step.name

        return [await first(), await middle(), await last()]

    assert drive(program).output == ["firstab", "amiddleb", "ablast"]


def test_a_parameter_that_no_step_is_named_after_is_refused_when_the_step_is_called() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        async def lonely(somebody: Any = None) -> Any: ...

        texts = []
        for _ in range(2):
            try:
                await lonely()
            except TypeError as error:
                texts.append(str(error))
        return texts

    end = drive(program)
    assert end.output == ["Received unexpected parameter somebody"] * 2
    assert end.begun == []


def test_a_step_is_no_dependency_of_itself() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        async def me(me: Any) -> Any: ...

        await me()

    assert live(program).error.message == "Received unexpected parameter me"


def test_a_bound_method_is_a_callback_without_its_self() -> None:
    class Orders:
        def load(self, ctx: Any) -> str:
            return f"{type(self).__name__}.{ctx.step.name}"

    async def program(step: Any) -> Any:
        orders = Orders()
        unbound = Orders.load
        first = await step.do("bound")(orders.load)()
        try:
            await step.do("unbound")(unbound)()
        except TypeError as error:
            return [first, str(error)]

    assert drive(program).output == ["Orders.bound", "Received unexpected parameter self"]


def test_callbacks_that_share_a_wrapper_keep_their_own_parameters() -> None:
    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs)

        return wrapper

    async def program(step: Any) -> Any:
        @step.do()
        @logged
        async def base(ctx: Any) -> Any:
            return ctx.step.name

        @step.do()
        @logged
        async def dependent(base: Any) -> Any:
            return base + "!"

        return await dependent()

    assert drive(program).output == "base!"


def test_dependencies_run_one_after_another_or_at_once() -> None:
    def diamond(concurrent: bool) -> Any:
        async def program(step: Any) -> Any:
            running: list[str] = []
            most = 0

            async def part(name: str) -> str:
                nonlocal most
                running.append(name)
                most = max(most, len(running))
                for _ in range(3):
                    await asyncio.sleep(0)
                running.remove(name)
                return name

            @step.do()
            async def left() -> str:
                return await part("left")

            @step.do()
            async def right() -> str:
                return await part("right")

            @step.do(concurrent=concurrent)
            async def join(left: str, right: str) -> Any:
                return [left, right, most]

            return await join()

        return program

    assert live(diamond(concurrent=True)).output == ["left", "right", 2]
    assert live(diamond(concurrent=False)).output == ["left", "right", 1]
    assert drive(diamond(concurrent=True), same_end=False).output[:2] == ["left", "right"]


def test_a_dependency_under_way_is_awaited_and_not_run_again() -> None:
    async def program(step: Any) -> Any:
        @step.do()
        async def base() -> int:
            for _ in range(3):
                await asyncio.sleep(0)
            return 5

        @step.do()
        async def one(base: int) -> int:
            return base + 1

        @step.do()
        async def two(base: int) -> int:
            return base + 2

        return await asyncio.gather(one(), two())

    end = drive(program)
    assert end.output == [6, 7]
    assert sorted(end.results) == ["do:base-1", "do:one-1", "do:two-1"]


def test_calling_a_step_again_runs_it_again_and_dependents_get_the_last_result() -> None:
    calls: list[int] = []

    async def program(step: Any) -> Any:
        @step.do()
        async def count(ctx: Any) -> int:
            calls.append(1)
            return int(ctx.step.count)

        @step.do()
        async def shows(count: int) -> int:
            return count

        return [await count(), await count(), await shows()]

    end = drive(program)
    assert end.output == [1, 2, 2]


def test_a_failing_dependency_is_raised_and_the_dependent_step_never_starts() -> None:
    async def program(step: Any) -> Any:
        @step.do(config=NO_RETRY)
        async def base() -> Any:
            raise LookupError("gone")

        @step.do()
        async def dependent(base: Any) -> Any: ...

        seen = []
        for _ in range(2):
            try:
                await dependent()
            except LookupError as error:
                seen.append(str(error))
        return seen

    end = drive(program)
    assert end.output == ["gone", "gone"]
    assert [entry.key for entry in end.of(e.StepErrored, e.StepSucceeded)] == ["do:base-1"]


# -- the older mode ---------------------------------------------------------------------------------------------------


def test_the_older_mode_maps_the_list_to_the_parameters_in_order() -> None:
    async def program(step: Any) -> Any:
        @step.do("one")
        async def one() -> int:
            return 1

        @step.do("two", [one])
        async def two(anything: int, ctx: Any) -> int:
            return anything + int(ctx.attempt)

        @step.do("three", depends=[two, one], concurrent=True)
        async def three(x: int, ctx: Any, y: int) -> list[int]:
            return [x, y]

        return await three()

    end = drive(program, implicit=False)
    assert end.output == [2, 1]
    assert sorted(end.results) == ["do:one-1", "do:three-1", "do:two-1"]


@pytest.mark.parametrize(
    ("parameters", "depends", "text"),
    [
        ("a, b", None, "Step has 2 non-ctx parameter(s) but no 'depends' list provided"),
        ("ctx, a", None, "Step has 1 non-ctx parameter(s) but no 'depends' list provided"),
        ("a, b", 1, "Step declares 2 non-ctx parameter(s) but 'depends' has 1 item(s)"),
        ("ctx", 1, "Step declares 0 non-ctx parameter(s) but 'depends' has 1 item(s)"),
        ("", 2, "Step declares 0 non-ctx parameter(s) but 'depends' has 2 item(s)"),
    ],
)
def test_the_older_mode_refuses_a_list_that_does_not_fit(parameters: str, depends: int | None, text: str) -> None:
    async def program(step: Any) -> Any:
        @step.do("base")
        async def base() -> Any: ...

        callback = eval(f"lambda {parameters}: None")
        await step.do("wrong", depends=None if depends is None else [base] * depends)(callback)()

    end = live(program, implicit=False)
    assert end.status is Status.ERRORED
    assert (end.error.name, end.error.message) == ("TypeError", text)
    assert end.begun == []
