"""Code that has changed under a run: it is paused with the reason, and nothing new is begun."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import LittleNode, Program, a_journal, live

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.status import Status


def one(step: Any, name: str) -> Any:
    @step.do(name)
    async def run() -> str:
        return name

    return run


def sequence(*names: str) -> Program:
    async def program(step: Any) -> Any:
        return [await one(step, name)() for name in names]

    return program


def after(count: int) -> Callable[[LittleNode], bool]:
    return lambda node: len(node.state.finished) >= count


@pytest.mark.parametrize(
    ("changed", "missed", "asked"),
    [
        (sequence("validate", "bill", "ship"), "do:charge-1", "do:bill-1"),
        (sequence("charge", "validate", "ship"), "do:validate-1", "do:charge-1"),
        (sequence("validate", "ship"), "do:charge-1", "do:ship-1"),
        (sequence("new", "validate", "charge", "ship"), "do:validate-1", "do:new-1"),
        (sequence("validate"), "do:charge-1", "nothing"),
    ],
    ids=["renamed", "reordered", "removed", "inserted", "ends early"],
)
def test_a_program_that_takes_another_path_is_paused_and_begins_nothing(
    changed: Program, missed: str, asked: str
) -> None:
    first = live(sequence("validate", "charge", "ship"), until=after(2))
    end = live(changed, journal=first.journal, lost="node")
    assert end.status is Status.PAUSED
    assert end.state.reason.startswith(f"The journal says that {missed} ended here, but the program has not asked for")
    assert f"it waits for {asked}" in end.state.reason
    assert end.begun == []
    assert [type(report) for report in end.reports] == [i.RunDiverged]


def test_a_step_added_at_the_end_is_no_divergence() -> None:
    first = live(sequence("validate", "charge", "pack"), until=after(2))
    assert live(sequence("validate", "charge", "ship"), journal=first.journal, lost="node").output[2] == "ship"


@pytest.mark.parametrize(
    "begun",
    [
        e.SleepStarted(2, "sleep:nap-1", "nap", 1, 10**15),
        e.WaitStarted(2, "wait:paid-1", "paid", 1, "paid", 10**15, 1000),
        e.AttemptStarted(2, "do:charge-1", "charge", 1, 1),
        e.AttemptFailed(2, "do:charge-1", "charge", 1, 1, 2, e.ErrorValue("Error", ""), 10**15),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_what_had_begun_and_is_no_longer_asked_for_is_a_divergence(begun: e.AnyEntry) -> None:
    end = live(sequence("other"), journal=a_journal(begun, at=1))
    assert end.status is Status.PAUSED
    assert f"{begun.key} began here" in end.state.reason  # type: ignore[union-attr]
    assert end.begun == []


def test_a_run_on_its_old_code_goes_on_after_the_pause() -> None:
    right = sequence("validate", "charge", "ship")
    first = live(right, until=after(2))
    paused = live(sequence("other"), journal=first.journal)
    assert paused.status is Status.PAUSED
    resumed = [*paused.journal, e.encode(e.Resumed(10**13))]
    assert live(right, journal=resumed).output == ["validate", "charge", "ship"]


def test_the_groups_are_handed_over_one_by_one_and_each_only_when_the_program_has_settled() -> None:
    seen: list[str] = []

    async def program(step: Any) -> Any:
        async def branch(name: str) -> None:
            await one(step, name)()
            await asyncio.sleep(0)
            seen.append(f"{name} goes on")
            await one(step, f"after {name}")()

        await asyncio.gather(branch("a"), branch("b"))

    def done(key: str, delivery: int) -> e.StepSucceeded:
        return e.StepSucceeded(2, f"do:{key}-1", key, 1, 1, 2, b"\xc0", delivery)

    live(program, journal=a_journal(done("b", 1), done("a", 2), at=1))
    assert seen == ["b goes on", "a goes on"]
    seen.clear()
    live(program, journal=a_journal(done("b", 1), done("after b", 2), done("a", 3), at=1))
    assert seen == ["b goes on", "a goes on"]
    end = live(program, journal=a_journal(done("a", 1), done("after b", 2), done("b", 3), at=1))
    assert end.status is Status.PAUSED  # what followed `b` cannot have ended before it
