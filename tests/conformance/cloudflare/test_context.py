"""``context.test.ts``: the step's context, retries, and results that are bytes."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from tests.conformance.cloudflare.kit import Lab, covers, step_named


@covers(31)
def test_the_first_attempt_is_attempt_1(lab: Lab) -> None:
    code = """
    @step.do("one")
    async def one(ctx):
        return ctx["attempt"]
    return await one()
    """
    assert lab.output(code) == 1


@covers(32)
def test_a_limit_of_two_retries_makes_three_attempts(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("fails", config={"retries": {"limit": 2, "delay": 1, "backoff": "constant"}})
        async def fails(ctx):
            note(ctx.attempt)
            raise ValueError(f"attempt {ctx.attempt}")
        await fails()
        """
    )
    ended = lab.ended(instance)
    assert lab.notes(instance) == [1, 2, 3]
    assert ended["error"] == {"name": "ValueError", "message": "attempt 3"}
    attempts = step_named(ended, "fails-1")["attempts"]
    assert [attempt["error"]["message"] for attempt in attempts] == ["attempt 1", "attempt 2", "attempt 3"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@covers(33)
@pytest.mark.parametrize(("delay", "at_least_s"), [(150, 0.15), ("1 second", 0.95)])
def test_a_retry_waits_for_its_delay(lab: Lab, delay: Any, at_least_s: float) -> None:
    ended = lab.run(
        """
        @step.do("flaky", config={"retries": {"limit": 1, "delay": data, "backoff": "constant"}})
        async def flaky(ctx):
            if ctx.attempt == 1:
                raise RuntimeError("once")
            return ctx.attempt
        return await flaky()
        """,
        delay,
    )
    assert ended["output"] == 2
    first, second = step_named(ended, "flaky-1")["attempts"]
    assert moment(second["start"]) - moment(first["end"]) >= at_least_s


@pytest.mark.parametrize(
    ("backoff", "delays_ms"), [("constant", [40, 40, 40]), ("linear", [40, 80, 120]), ("exponential", [40, 80, 160])]
)
def test_the_backoffs_grow_as_documented(lab: Lab, backoff: str, delays_ms: list[int]) -> None:
    ended = lab.run(
        """
        @step.do("fails", config={"retries": {"limit": 3, "delay": 40, "backoff": data}})
        async def fails():
            raise RuntimeError("always")
        await fails()
        """,
        backoff,
    )
    attempts = step_named(ended, "fails-1")["attempts"]
    pauses_ms = [(moment(after["start"]) - moment(before["end"])) * 1000 for before, after in pairwise(attempts)]
    assert all(pause >= delay - 1 for pause, delay in zip(pauses_ms, delays_ms, strict=True)), pauses_ms


@covers(35, 36)
def test_the_context_names_the_step_and_counts_its_calls(lab: Lab) -> None:
    code = """
    found = []
    for name in ("same", "other", "same"):
        @step.do(name)
        async def one(ctx):
            return ctx["step"]
        found.append(await one())
    return found
    """
    assert lab.output(code) == [
        {"name": "same", "count": 1},
        {"name": "other", "count": 1},
        {"name": "same", "count": 2},
    ]


@covers(37)
def test_the_context_has_the_default_configuration(lab: Lab) -> None:
    code = """
    @step.do("one")
    async def one(ctx):
        return ctx["config"]
    return await one()
    """
    assert lab.output(code) == {
        "retries": {"limit": 5, "delay": 1000, "backoff": "exponential"},
        "timeout": "10 minutes",
    }


@covers(38)
def test_what_is_given_is_laid_over_the_defaults(lab: Lab) -> None:
    code = """
    @step.do("one", config={"retries": {"limit": 1, "delay": "2 seconds"}, "timeout": "5 minutes"})
    async def one(ctx):
        return ctx["config"]
    return await one()
    """
    assert lab.output(code) == {
        "retries": {"limit": 1, "delay": "2 seconds", "backoff": "exponential"},
        "timeout": "5 minutes",
    }


@covers(39)
def test_changing_the_context_changes_no_retry(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("fails", config={"retries": {"limit": 1, "delay": 1}})
        async def fails(ctx):
            note([ctx.attempt, ctx["config"]["retries"]["limit"]])
            ctx["config"]["retries"]["limit"] = 100
            ctx["attempt"] = 0
            raise RuntimeError("always")
        await fails()
        """
    )
    lab.ended(instance)
    assert lab.notes(instance) == [[1, 1], [2, 1]]


@covers(54)
def test_two_hundred_kilobytes_are_a_result(lab: Lab) -> None:
    code = """
    @step.do("bytes")
    async def make():
        return b"x" * 200_000
    made = await make()
    await step.wait_for_event("so that it is replayed", "go", timeout="1 hour")
    return [type(made).__name__, len(made), bytes(made[:2]).decode()]
    """
    instance = lab.begin(code)
    lab.waiting(instance)
    lab.kill_isolate()
    lab.send(instance, "go")
    assert lab.ended(instance)["output"] == ["memoryview", 200_000, "xx"]


@covers(55, 57)
def test_a_view_of_a_part_is_stored_as_that_part(lab: Lab) -> None:
    code = """
    large = bytearray(range(256)) * 8000
    @step.do("view")
    async def make():
        return memoryview(large)[10:14]
    return [list(await make()), type(await make()).__name__]
    """
    assert lab.output(code) == [[10, 11, 12, 13], "memoryview"]


@covers(56)
def test_the_next_step_sees_the_result_as_the_program_does(lab: Lab) -> None:
    code = """
    @step.do("first")
    async def first():
        return {"bytes": b"abc", "date": datetime(2026, 1, 2, 3, 4, 5, 678901), "whole": 2.0, "none": None}
    @step.do("second")
    async def second(first):
        return [type(first).__name__, type(first.bytes).__name__, first.date.isoformat(), first.whole, first.none]
    return await second()
    """
    assert lab.output(code) == ["JsDict", "memoryview", "2026-01-02T03:04:05.678000", 2, None]


@covers(58, 59)
def test_views_deep_in_a_result_are_stored_as_their_parts(lab: Lab) -> None:
    code = """
    large = memoryview(bytes(500_000))
    @step.do("nested")
    async def nested():
        return {"a": large[:3], "list": [{"b": large[5:9]}, {"b": large[:0]}]}
    found = await nested()
    return [len(found.a), [len(each.b) for each in found.list]]
    """
    assert lab.output(code) == [3, [4, 0]]


def test_a_result_over_1_mib_fails_its_attempts(lab: Lab) -> None:
    ended = lab.run(
        """
        @step.do("large", config={"retries": {"limit": 1, "delay": 1}})
        async def large():
            return "x" * (1024 * 1024 + 1)
        await large()
        """
    )
    error = {
        "name": "WorkflowInternalError",
        "message": "Step large-1 output is too large. Maximum allowed size is 1MiB.",
    }
    assert ended["error"] == error
    assert [attempt["error"] for attempt in step_named(ended, "large-1")["attempts"]] == [error, error]


def test_a_result_that_cannot_be_kept_ends_the_run_at_once(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("strange")
        async def strange():
            return object()
        try:
            await strange()
        except Exception:
            note("caught")
        """
    )
    ended = lab.ended(instance)
    assert ended["error"] == {
        "name": "WorkflowFatalError",
        "message": 'The execution of the Workflow instance was terminated, as the step "strange" returned a value '
        "which is not serialisable",
    }
    assert lab.notes(instance) == []


@covers(60, 62)
def test_a_sensitive_output_is_redacted_for_people_and_real_for_the_program(lab: Lab) -> None:
    ended = lab.run(
        """
        @step.do("secret", config={"sensitive": "output", "retries": {"limit": 1, "delay": 1}})
        async def secret(ctx):
            if ctx.attempt == 1:
                raise ValueError("errors are shown")
            return "the key"
        return [await secret(), len(await secret())]
        """
    )
    assert ended["output"] == ["the key", 7]  # what the run itself returns is not the step's output
    first = step_named(ended, "secret-1")
    assert first["output"] == "[REDACTED]"
    assert first["attempts"][0]["error"]["message"] == "errors are shown"
