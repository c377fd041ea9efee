"""Sleeps and events, and how a run tells that it waits, hangs or spins."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.isolate_workflow.little_node import a_journal, drive, live

from stellwerk.core.limits import SLEEP_MS_MAX
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.status import Status
from stellwerk.isolate.workflow.attempts import now_ms
from stellwerk.isolate.workflow.run import HUNG


def one(step: Any, name: str = "one", value: Any = 1) -> Any:
    @step.do(name)
    async def run() -> Any:
        return value

    return run


# -- sleeps -----------------------------------------------------------------------------------------------------------


def test_a_sleep_survives_a_crash_and_is_slept_once() -> None:
    async def program(step: Any) -> Any:
        before = await one(step)()
        await step.sleep("a day", "1 day")
        return before + await one(step)()

    end = drive(program)
    assert end.output == 2
    (started,) = end.of(e.SleepStarted)
    assert (started.key, started.name, started.hidden) == ("sleep:a day-1", "a day", False)
    assert 0 <= started.wake_at - started.at + 50 <= 86_400_100


def test_sleeps_at_once_end_in_the_order_of_their_times() -> None:
    async def program(step: Any) -> Any:
        order: list[str] = []

        async def nap(name: str, hours: int) -> None:
            await step.sleep(name, f"{hours} hours")
            order.append(await one(step, "woke", name)())

        await asyncio.gather(nap("long", 3), nap("short", 1), nap("middle", 2))
        return order

    assert drive(program).output == ["short", "middle", "long"]


def test_a_sleep_longer_than_a_year_is_a_year() -> None:
    async def program(step: Any) -> Any:
        await step.sleep("for good", "1000000000000 years")
        await step.sleep("as a number", 10**30)
        await step.sleep_until("far away", 10**30)

    end = live(program)
    assert end.status is Status.COMPLETE, end.state.error
    for started in end.of(e.SleepStarted):
        assert started.wake_at - started.at <= SLEEP_MS_MAX


@pytest.mark.parametrize("duration", ["i like trains", -1, None, True, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused_where_the_program_can_catch_it(duration: object) -> None:
    async def program(step: Any) -> Any:
        try:
            await step.sleep("nap", duration)
        except ValueError:
            await step.sleep("nap", 1)
            return "refused"

    end = drive(program)
    assert end.output == "refused"
    assert [entry.key for entry in end.of(e.SleepStarted)] == ["sleep:nap-1"]


@pytest.mark.parametrize("form", ["datetime", "iso", "ms"])
def test_sleep_until_takes_a_time_in_every_form(form: str) -> None:
    wake_at = datetime.fromtimestamp((now_ms() + 3_600_000) // 1000, UTC)
    moment: Any = {"datetime": wake_at, "iso": wake_at.isoformat(), "ms": wake_at.timestamp() * 1000}[form]

    async def program(step: Any) -> Any:
        await step.sleep_until("then", moment)
        return await one(step)()

    end = drive(program)
    assert end.output == 1
    assert end.of(e.SleepStarted)[0].wake_at == int(wake_at.timestamp() * 1000)


def test_sleep_until_a_time_in_the_past_raises_on_the_first_execution_only() -> None:
    async def program(step: Any) -> Any:
        try:
            await step.sleep_until("then", datetime.fromtimestamp(0, UTC) + timedelta(days=1))
        except ValueError as error:
            return str(error)
        return "slept"

    assert drive(program).output == "You can't sleep until a time in the past, time-traveler"
    slept = a_journal(e.SleepStarted(2, "sleep:then-1", "then", 1, 86_400_000), at=1)  # asked for before it was past
    assert live(program, journal=slept).output == "slept"


# -- events -----------------------------------------------------------------------------------------------------------


async def two_events(step: Any) -> Any:
    first = await step.wait_for_event("first", "paid")
    assert first["type"] == first.type == "paid"
    assert isinstance(first.timestamp, datetime)
    second = await step.wait_for_event("second", "paid", timeout="1 hour")
    return [first.payload.n, second["payload"]["n"], await one(step)()]


def test_events_are_taken_in_their_order_whether_they_come_before_or_after_the_wait() -> None:
    events = [("paid", {"n": 1}), ("paid", {"n": 2})]
    assert drive(two_events, events=events).output == [1, 2, 1]
    assert drive(two_events, events=events, early=True).output == [1, 2, 1]


def test_an_event_of_another_type_wakes_nobody() -> None:
    async def program(step: Any) -> Any:
        got = await step.wait_for_event("wait", "paid")
        return got.payload

    end = drive(program, events=[("refunded", 1), ("paid", 2)])
    assert end.output == 2
    assert len(end.state.events["refunded"]) == 1


def test_a_wait_that_times_out_raises_and_the_event_goes_to_the_next_wait() -> None:
    async def program(step: Any) -> Any:
        try:
            await step.wait_for_event("first", "paid", timeout="1 minute")
        except Exception as error:
            told = [type(error).__name__, str(error)]
        task = asyncio.ensure_future(step.wait_for_event("second", "paid"))
        await asyncio.sleep(0)
        await one(step)()
        return [*told, (await task).payload]

    end = live(program)  # nobody sends: the first wait ends after a minute, the second after a day
    assert end.error.name == "WorkflowTimeoutError"
    assert [entry.key for entry in end.of(e.WaitTimedOut)] == ["wait:first-1", "wait:second-1"]

    timed_out = next(entry for entry in end.entries if isinstance(entry, e.WaitTimedOut))
    upto = end.journal[: end.entries.index(timed_out) + 1]
    later = drive(program, journal=upto, events=[("paid", 7)])
    assert later.output == ["WorkflowTimeoutError", "Execution timed out after 60000ms", 7]
    assert [entry.key for entry in later.of(e.WaitCompleted)] == ["wait:second-1"]


def test_an_event_type_that_is_none_and_a_step_name_that_is_none_are_refused() -> None:
    async def program(step: Any) -> Any:
        texts = []
        wrongs: list[Callable[[], Any]] = [
            lambda: step.wait_for_event("wait", "no spaces"),
            lambda: step.wait_for_event("a\x00b", "paid"),
            lambda: step.sleep("x" * 257, 1),
        ]
        for wrong in wrongs:
            try:
                await wrong()
            except Exception as error:
                texts.append(f"{type(error).__name__}: {error}")
        return texts

    event, control, long = live(program).output
    assert event.startswith('WorkflowFatalError: Event type "no spaces"')
    assert (
        control == 'WorkflowFatalError: Step name "a\x00b" exceeds max length (256 chars) or invalid characters found'
    )
    assert long.startswith('WorkflowFatalError: Step name "xxx')


# -- settled, hung, spinning ------------------------------------------------------------------------------------------


def test_a_run_says_that_it_has_settled_once_and_only_while_nothing_executes() -> None:
    async def program(step: Any) -> Any:
        await one(step)()
        await step.wait_for_event("wait", "paid")
        await one(step)()

    end = live(program, events=[("paid", 1)])
    kinds = [type(report) for report in end.reports]
    assert kinds == [i.StepDone, i.WaitRequested, i.RunSettled, i.StepDone, i.RunReturned]
    assert len(end.of(e.Suspended)) == 1
    assert [report.heard for report in end.reports if isinstance(report, i.RunSettled)] == [1]
    again = live(program, journal=end.journal[:4], lost="node")
    assert [report.heard for report in again.reports if isinstance(report, i.RunSettled)][:1] == [1]


def test_a_program_that_waits_for_nothing_that_can_come_is_told_so() -> None:
    async def program(step: Any) -> Any:
        await one(step)()
        await asyncio.Event().wait()

    end = drive(program)
    assert end.status is Status.ERRORED
    assert end.error.message == HUNG


def test_a_program_that_never_comes_to_rest_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from stellwerk.isolate.workflow import loop

    monkeypatch.setattr(loop, "SETTLE_CALLBACKS_MAX", 10_000)

    async def program(step: Any) -> Any:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    end = live(program)
    assert (end.status, end.error.name) == (Status.ERRORED, "SpinningError")
    assert "10000 callbacks without waiting" in end.error.message


def test_a_first_life_that_waited_long_for_its_isolate_counts_time_outs_from_when_it_began() -> None:
    async def program(step: Any) -> Any:
        async with asyncio.timeout(600):
            return await one(step)()

    queued_for_an_hour = a_journal(at=now_ms() - 3_600_000)
    end = live(program, journal=queued_for_an_hour)
    (timer,) = end.of(e.SleepStarted)
    assert 590_000 < timer.wake_at - timer.at <= 600_100
