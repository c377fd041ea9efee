"""What becomes of a step: results, retries, interruptions, grants, and reports that come late or twice."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.workflow.builders import (
    ERROR,
    NO_RETRY,
    NOW,
    ONE_RETRY,
    a_run,
    a_sleep_started,
    a_step_done,
    a_step_failed,
    a_step_requested,
    a_step_started,
    a_wait_requested,
    an_attempt_failed,
    an_attempt_started,
    happens,
    kinds,
)

from stellwerk.core import limits
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Completion, Grant
from stellwerk.core.workflow.machine import INTERNAL_ERROR
from stellwerk.core.workflow.status import Status
from stellwerk.core.workflow.steps import UNLIMITED, StepConfig

# -- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_recorded_with_its_delivery_and_handed_over() -> None:
    state = a_run()
    out = happens(state, a_step_done(config=ONE_RETRY))
    assert out.entries == [e.StepSucceeded(NOW, "do:a-1", "a", 1, 1, 2, b"\x01", 1, ONE_RETRY)]
    assert out.completions == [Completion("do:a-1")]  # without the value: the isolate still holds it
    assert (out.delivery, state.deliveries, state.steps, state.started_at) == (1, 1, 1, 2)
    assert state.finished == {"do:a-1"}


def test_results_that_arrive_together_are_one_delivery_and_those_that_do_not_are_two() -> None:
    state = a_run()
    together = happens(state, a_step_done("a"), a_step_done("b"))
    apart = happens(state, a_step_done("c"))
    assert [entry.delivery for entry in together.entries + apart.entries] == [1, 1, 2]  # type: ignore[union-attr]


def test_a_result_that_the_program_has_been_given_ahead_is_a_delivery_of_its_own() -> None:
    state = a_run(e.EventReceived(2, "refunded", b"\x05"))
    started_at = NOW - 100
    out = happens(state, a_step_done(started_at=started_at, ahead_ms=40), a_wait_requested())
    assert [entry.at for entry in out.entries] == [started_at + 40, NOW, NOW]  # the first as the program's clock said
    assert [(type(entry), getattr(entry, "delivery", 0)) for entry in out.entries] == [
        (e.StepSucceeded, 1), (e.WaitStarted, 0), (e.WaitCompleted, 2),
    ]  # fmt: skip
    assert [completion.key for completion in out.completions] == ["do:a-1", "wait:refund-1"]
    assert (out.delivery, state.deliveries) == (2, 2)


def test_the_end_of_a_run_is_decided_together_with_the_result_that_led_to_it() -> None:
    out = happens(a_run(), a_step_done(ahead_ms=0), i.RunReturned(1, b"\xc0"))
    assert (kinds(out), out.stop) == ([e.StepSucceeded, e.Completed], "complete")


@pytest.mark.parametrize("ahead_ms", [10**9, 2**62])
def test_no_isolate_dates_a_result_into_the_future_or_before_the_run(ahead_ms: int) -> None:
    assert happens(a_run(), a_step_done(ahead_ms=ahead_ms)).entries[0].at == NOW
    state = a_run(an_attempt_started())
    assert happens(state, a_step_done(started_at=-ahead_ms, ahead_ms=0)).entries[0].at == state.started_at


def test_the_result_of_a_nested_step_is_no_delivery_of_the_program() -> None:
    state = a_run()
    out = happens(state, a_step_done("inner", nested=True))
    assert out.entries[0].delivery == 0  # type: ignore[union-attr]
    assert out.completions == [Completion("do:inner-1")]
    assert (out.delivery, state.deliveries) == (0, 0)
    error = happens(state, a_step_failed("inner 2", nested=True, config=NO_RETRY))
    assert error.entries[0].delivery == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("late", [a_step_done(), a_step_done(attempt=2), a_step_failed(), a_step_started()])
def test_a_report_about_a_step_that_has_ended_leads_to_nothing(late: Any) -> None:
    state = a_run()
    happens(state, a_step_done())
    assert happens(state, late).entries == []


@pytest.mark.parametrize("attempt", [0, 1, 3])
@pytest.mark.parametrize("report", [a_step_done, a_step_failed, a_step_started])
def test_a_report_about_another_attempt_than_the_current_one_leads_to_nothing(report: Any, attempt: int) -> None:
    state = a_run(an_attempt_failed(), an_attempt_started(attempt=2))
    assert happens(state, report(attempt=attempt)).entries == []


@pytest.mark.parametrize("report", [a_step_done, a_step_failed, a_step_started, a_step_requested])
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_report_while_the_retry_is_still_to_come_leads_to_nothing(report: Any, attempt: int) -> None:
    assert happens(a_run(an_attempt_failed()), report(attempt=attempt)).entries == []


# -- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        ("constant", [100, 100, 100, 100]),
        ("linear", [100, 200, 300, 400]),
        ("exponential", [100, 200, 400, 800]),
    ],
)
def test_each_failure_waits_as_its_backoff_says(backoff: Any, delays: list[int]) -> None:
    config = StepConfig(4, 100, backoff)
    state = a_run()
    for attempt, delay in enumerate(delays, start=1):
        out = happens(state, a_step_failed(attempt=attempt, config=config))
        assert out.entries == [
            e.AttemptFailed(NOW, "do:a-1", "a", 1, attempt, 2, ERROR, NOW + delay, config),
        ]  # fmt: skip
        assert out.completions == []
        assert state.next_due() == NOW + delay
        due = happens(state, i.TimerFired(), now=NOW + delay)
        assert due.grants == [Grant("do:a-1", attempt + 1)]
        assert kinds(due) == [e.AttemptStarted]
        assert due.take_up
    last = happens(state, a_step_failed(attempt=5))  # the stored configuration counts, not the report's
    assert kinds(last) == [e.StepErrored]
    assert last.completions == [Completion("do:a-1", None, ERROR)]


def test_what_a_delay_function_answered_is_taken_as_it_is_up_to_a_year() -> None:
    config = StepConfig(9, "[dynamic]", "exponential")
    state = a_run(an_attempt_failed(config=config), an_attempt_started(attempt=2))
    out = happens(state, a_step_failed(attempt=2, delay_ms=7))
    assert out.entries[0].retry_at == NOW + 7  # type: ignore[union-attr]
    happens(state, i.TimerFired(), now=NOW + 7)
    out = happens(state, a_step_failed(attempt=3, delay_ms=limits.SLEEP_MS_MAX * 5))
    assert out.entries[0].retry_at == NOW + limits.SLEEP_MS_MAX  # type: ignore[union-attr]


def test_a_retry_is_not_granted_before_it_is_due() -> None:
    state = a_run(an_attempt_failed(retry_at=NOW + 1))
    early = happens(state, i.TimerFired())
    assert (early.entries, early.grants, early.take_up) == ([], [], False)


@pytest.mark.parametrize("changes", [{"retryable": False}, {"config": NO_RETRY}])
def test_an_error_that_may_not_be_retried_ends_the_step(changes: dict[str, Any]) -> None:
    out = happens(a_run(), a_step_failed(**changes))
    assert kinds(out) == [e.StepErrored]
    assert out.entries[0].delivery == out.delivery == 1  # type: ignore[union-attr]
    assert out.stop == ""


def test_unlimited_retries_never_end() -> None:
    config = StepConfig(UNLIMITED, 1, "exponential")
    state = a_run(an_attempt_failed(attempt=10_000, config=config), an_attempt_started(attempt=10_001))
    out = happens(state, a_step_failed(attempt=10_001))
    assert out.entries[0].retry_at == NOW + limits.SLEEP_MS_MAX  # type: ignore[union-attr]


def test_a_fatal_error_ends_the_run_at_once() -> None:
    state = a_run(a_sleep_started(wake_at=NOW + 1))
    out = happens(state, a_step_failed(fatal=True))
    assert out.entries == [e.Errored(NOW, ERROR)]
    assert out.stop
    assert (state.status, state.error, state.next_due()) == (Status.ERRORED, ERROR, None)


def test_the_configuration_of_a_steps_first_entry_wins() -> None:
    state = a_run(an_attempt_started())
    out = happens(state, a_step_failed(config=NO_RETRY))
    assert kinds(out) == [e.AttemptFailed]
    assert out.entries[0].retry_at == NOW + limits.STEP_RETRY_DELAY_MS  # type: ignore[union-attr]


# -- the limit of steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [a_step_done, a_step_failed, a_step_started, a_step_requested])
def test_the_step_past_the_limit_ends_the_run(report: Any) -> None:
    state = a_run(steps_max=2)
    happens(state, a_step_done("a"), a_step_failed("b"))
    assert state.steps == 2
    out = happens(state, report("c"))
    assert out.entries == [
        e.Errored(
            NOW,
            e.ErrorValue(
                "WorkflowFatalError",
                "The limit of 2 steps has been reached. This limit can be changed in your worker configuration.",
            ),
        )
    ]
    assert out.stop == "the limit of steps"


def test_attempts_of_a_step_and_sleeps_do_not_count_towards_the_limit() -> None:
    state = a_run(a_sleep_started(), an_attempt_failed(), an_attempt_started(attempt=2), steps_max=1)
    assert kinds(happens(state, a_step_done(attempt=2))) == [e.StepSucceeded]
    assert state.steps == 1


# -- announced attempts, and grants -----------------------------------------------------------------------------------


def test_an_attempt_is_announced_once() -> None:
    state = a_run()
    first = happens(state, a_step_started(config=ONE_RETRY, nested=True))
    assert first.entries == [e.AttemptStarted(NOW, "do:a-1", "a", 1, 1, ONE_RETRY, True)]
    assert happens(state, a_step_started()).entries == []
    assert state.open["do:a-1"].running


def test_an_attempt_that_is_asked_for_is_recorded_and_granted() -> None:
    state = a_run()
    out = happens(state, a_step_requested("a"), a_step_requested("b"))
    assert kinds(out) == [e.AttemptStarted, e.AttemptStarted]
    assert out.grants == [Grant("do:a-1", 1), Grant("do:b-1", 1)]
    again = happens(state, a_step_requested("a"))  # who asks has not begun it: the grant was lost on its way
    assert (again.entries, again.grants) == ([], [Grant("do:a-1", 1)])


def test_alone_attempts_are_granted_one_at_a_time_in_the_order_of_asking() -> None:
    state = a_run(solo=True)
    out = happens(state, *map(a_step_requested, "abca"))
    assert [grant.key for grant in out.grants] == ["do:a-1", "do:a-1"]  # asked twice: told twice, recorded once
    assert kinds(out) == [e.AttemptStarted]
    assert happens(state, a_step_done("a")).grants == [Grant("do:b-1", 1)]
    assert happens(state, a_step_failed("b")).grants == [Grant("do:c-1", 1)]
    assert happens(state, a_step_done("c")).grants == []
    assert not state.requested


def test_alone_a_nested_attempt_does_not_wait_for_its_outer_one() -> None:
    state = a_run(solo=True)
    happens(state, a_step_requested("outer"))
    assert happens(state, a_step_requested("inner", nested=True)).grants == [Grant("do:inner-1", 1)]
    assert happens(state, a_step_requested("next")).grants == []
    assert happens(state, a_step_done("inner", nested=True)).grants == []  # the outer one still runs
    assert happens(state, a_step_done("outer")).grants == [Grant("do:next-1", 1)]


def test_alone_a_retry_that_falls_due_waits_for_its_turn_and_sets_no_timer_meanwhile() -> None:
    state = a_run(an_attempt_failed("retried", retry_at=NOW), solo=True)
    happens(state, a_step_requested("a"))
    due = happens(state, i.TimerFired())
    assert (due.entries, due.grants) == ([], [])
    assert state.next_due() is None
    assert happens(state, i.TimerFired()).grants == []
    assert happens(state, a_step_done("a")).grants == [Grant("do:retried-1", 2)]
    assert state.open["do:retried-1"].running


def test_alone_two_retries_that_fall_due_together_are_granted_one_after_the_other() -> None:
    state = a_run(an_attempt_failed("a"), an_attempt_failed("b"), solo=True)
    assert happens(state, i.TimerFired()).grants == [Grant("do:a-1", 2)]
    assert happens(state, a_step_done("a", attempt=2)).grants == [Grant("do:b-1", 2)]


def test_alone_a_step_that_ended_though_it_was_never_granted_is_not_granted_afterwards() -> None:
    state = a_run(solo=True)
    happens(state, *map(a_step_requested, "abc"))
    happens(state, a_step_done("b"))  # an isolate that does not keep to the rules
    assert happens(state, a_step_done("a")).grants == [Grant("do:c-1", 1)]
    assert "do:b-1" not in state.open


def test_alone_a_nested_retry_granted_early_does_not_keep_its_outer_step_from_beginning() -> None:
    state = a_run(an_attempt_failed("inner", nested=True), solo=True)
    assert happens(state, i.TimerFired()).grants == [Grant("do:inner-1", 2)]
    assert happens(state, a_step_requested("outer")).grants == [Grant("do:outer-1", 1)]


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_an_interrupted_attempt_is_repeated_and_not_counted() -> None:
    state = a_run(an_attempt_started(config=NO_RETRY))
    out = happens(state, i.Interrupted("its neighbour crashed"))
    assert out.entries == [
        e.AttemptInterrupted(NOW, "do:a-1", 1, "its neighbour crashed"),
        e.RunInterrupted(NOW, "its neighbour crashed"),
    ]
    assert out.take_up
    assert happens(state, a_step_requested()).grants == [Grant("do:a-1", 1)]
    assert kinds(happens(state, a_step_done())) == [e.StepSucceeded]


def test_a_step_with_its_retry_to_come_is_not_interrupted() -> None:
    state = a_run(an_attempt_failed(retry_at=NOW + 50))
    assert kinds(happens(state, i.Interrupted("gone"))) == [e.RunInterrupted]
    assert state.next_due() == NOW + 50


def test_after_so_many_interruptions_of_a_step_the_next_one_counts_and_does_not_end_the_run() -> None:
    state = a_run(an_attempt_started(config=ONE_RETRY))
    for _ in range(limits.INTERRUPTIONS_MAX):
        assert kinds(happens(state, i.Interrupted("gone"))) == [e.AttemptInterrupted, e.RunInterrupted]
        happens(state, a_step_requested())
    counted = happens(state, i.Interrupted("gone"))
    assert counted.entries == [
        e.AttemptFailed(NOW, "do:a-1", "a", 1, 1, NOW, INTERNAL_ERROR, NOW + 100, ONE_RETRY),
        e.RunInterrupted(NOW, "gone"),
    ]
    assert (counted.stop, counted.take_up) == ("", True)
    # Forgiven are so many in all, not for each attempt: the next one counts at once.
    happens(state, i.TimerFired(), now=NOW + 100)
    assert kinds(happens(state, i.Interrupted("gone"))) == [e.StepErrored, e.RunInterrupted]


@pytest.mark.parametrize("name_of_open", ["a", "b"])
def test_alone_the_attempt_under_way_is_to_blame_and_counts_at_once(name_of_open: str) -> None:
    state = a_run(an_attempt_started(name_of_open, config=NO_RETRY), solo=True)
    out = happens(state, i.Interrupted("crashed"))
    assert kinds(out) == [e.StepErrored, e.RunInterrupted]
    assert out.entries[0].key == f"do:{name_of_open}-1"  # type: ignore[union-attr]
    assert out.entries[0].delivery == 1  # type: ignore[union-attr]
    assert out.completions == []  # nobody is there to hear it; the replay hands it over
    assert out.take_up


def test_alone_the_innermost_attempt_is_to_blame_and_its_outer_one_only_interrupted() -> None:
    inner_first = [an_attempt_started("inner", nested=True, config=NO_RETRY), an_attempt_started("outer")]
    for journal in (inner_first, inner_first[::-1]):
        out = happens(a_run(*journal, solo=True), i.Interrupted("crashed"))
        ended = {entry.key: entry for entry in out.entries[:-1]}  # type: ignore[union-attr]
        assert type(ended["do:outer-1"]) is e.AttemptInterrupted
        errored = ended["do:inner-1"]
        assert isinstance(errored, e.StepErrored)
        assert errored.delivery == 0


def test_alone_the_end_of_the_node_is_nobodys_fault() -> None:
    out = happens(a_run(an_attempt_started(), solo=True), i.Interrupted("the node ended", node=True))
    assert kinds(out) == [e.AttemptInterrupted, e.RunInterrupted]


@pytest.mark.parametrize(
    ("node", "most"), [(False, limits.RUN_INTERRUPTIONS_MAX), (True, limits.NODE_INTERRUPTIONS_MAX)]
)
def test_a_run_that_only_ever_loses_its_isolate_ends_errored(node: bool, most: int) -> None:
    state = a_run()
    for _ in range(most):
        assert happens(state, i.Interrupted("gone", node)).take_up
    last = happens(state, i.Interrupted("gone", node))
    assert kinds(last) == [e.RunInterrupted, e.Errored]
    assert (last.stop, last.take_up) == ("interrupted too often", False)
    assert state.error is not None
    assert state.error.message == (
        f"The run lost its isolate {most + 1} times without any progress between (last: gone)"
    )


def test_any_progress_between_starts_the_count_of_lost_isolates_anew() -> None:
    state = a_run()
    for number in range(limits.RUN_INTERRUPTIONS_MAX * 2):
        happens(state, i.Interrupted("gone"), a_step_done(f"step {number}"))
    assert state.status is Status.RUNNING
    assert (state.stalls, state.node_stalls) == (0, 0)


def test_ends_of_the_node_do_not_use_up_the_patience_with_isolates() -> None:
    state = a_run()
    for _ in range(limits.NODE_INTERRUPTIONS_MAX):
        happens(state, i.Interrupted("gone", node=True))
    for _ in range(limits.RUN_INTERRUPTIONS_MAX):
        assert happens(state, i.Interrupted("gone")).stop == ""
    assert happens(state, i.Interrupted("gone")).stop
