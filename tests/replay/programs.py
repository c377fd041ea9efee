"""One program per feature whose journal is kept for good. Never change one: its journal would no longer fit.

A program that has to do something new gets a new name, and a journal of its own (``record.py``).
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.isolate_workflow.little_node import Program
from workers.workflows import NonRetryableError

AT_ONCE = {"retries": {"limit": 2, "delay": 0, "backoff": "constant"}}
NO_RETRY = {"retries": {"limit": 0, "delay": 0}}


class DeclinedError(Exception):
    """The card was declined."""


def one(step: Any, name: str, value: Any, turns: int = 0) -> Any:
    @step.do(name)
    async def run() -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    return run


async def sequence(step: Any) -> Any:
    return [await one(step, name, index)() for index, name in enumerate(["validate", "charge", "größe 🚂"])]


async def values(step: Any) -> Any:
    kinds = [None, True, 2**53 - 1, -1.5, "text", b"bytes", {"a": [1, {"b": 2}]}, {1, 2}, [float("inf")]]
    got = [await one(step, f"value {index}", value)() for index, value in enumerate(kinds)]
    got[5], got[7] = bytes(got[5]).decode(), sorted(got[7])
    return got


async def gather_of_twenty(step: Any) -> Any:
    return await asyncio.gather(*(one(step, "part", number, turns=number % 3)() for number in range(20)))


async def first_of_two(step: Any) -> Any:
    tasks = [asyncio.ensure_future(one(step, name, name, turns)()) for name, turns in (("slow", 2), ("quick", 0))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    rest = [await task for task in pending]
    return [[task.result() for task in done], rest, await one(step, "after", len(done))()]


async def retries(step: Any) -> Any:
    @step.do("flaky", config={"retries": {"limit": 3, "delay": "10 seconds", "backoff": "exponential"}})
    async def flaky(ctx: Any) -> Any:
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        return ctx.attempt

    return await flaky()


async def caught_errors(step: Any) -> Any:
    @step.do("declined", config=AT_ONCE)
    async def declined(ctx: Any) -> Any:
        raise DeclinedError(f"declined {ctx.attempt}")

    @step.do("final")
    async def final() -> Any:
        raise NonRetryableError("no such card")

    @step.do("missing", config=NO_RETRY)
    async def missing() -> Any:
        raise KeyError("card")

    told = []
    for run, kind in ((declined, DeclinedError), (final, NonRetryableError), (missing, KeyError)):
        try:
            await run()
        except kind as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


async def nested(step: Any) -> Any:
    async def outer(name: str) -> Any:
        @step.do(name)
        async def run() -> Any:
            return [await one(step, "inner", name)(), await one(step, "inner", 2)()]

        return await run()

    return [await outer("first"), await outer("second")]


async def dependencies(step: Any) -> Any:
    @step.do()
    async def left() -> int:
        return 1

    @step.do()
    async def right(left: int) -> int:
        return left + 1

    @step.do(concurrent=True)
    async def join(left: int, ctx: Any, right: int) -> Any:
        return [left, right, ctx.step.name]

    return await join()


async def sleeps(step: Any) -> Any:
    await asyncio.gather(step.sleep("short", "1 hour"), step.sleep("long", "1 day"))
    return await one(step, "after", "slept")()


async def hidden_timers(step: Any) -> Any:
    async with asyncio.timeout(3600):
        first = await one(step, "quick", "in time")()
    try:
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    except TimeoutError:
        return [first, await one(step, "after", "timed out")()]


async def events(step: Any) -> Any:
    paid = [(await step.wait_for_event(f"payment {number}", "paid")).payload for number in range(2)]
    try:
        await step.wait_for_event("never", "shipped", timeout="1 hour")
    except Exception as error:
        return [paid, type(error).__name__, str(error)]


async def uncaught_error(step: Any) -> Any:
    await one(step, "before", 1)()
    raise DeclinedError("nobody catches it")


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        sequence, values, gather_of_twenty, first_of_two, retries, caught_errors, nested, dependencies, sleeps,
        hidden_timers, events, uncaught_error,
    )
}  # fmt: skip
EVENTS: list[tuple[str, Any]] = [("paid", 10), ("paid", {"eur": 20})]
