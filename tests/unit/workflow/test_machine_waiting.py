"""Sleeps, waits and events, suspension, pause, and the ends of a run."""

from __future__ import annotations

import pytest
from tests.unit.workflow.builders import (
    ERROR,
    NOW,
    a_run,
    a_sleep_requested,
    a_sleep_started,
    a_step_done,
    a_wait_requested,
    a_wait_started,
    an_attempt_failed,
    an_attempt_started,
    happens,
    kinds,
    picture,
)

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, ConflictError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.status import Status

# -- sleeps -----------------------------------------------------------------------------------------------------------


def test_a_sleep_is_recorded_once_with_its_time() -> None:
    state = a_run()
    request = a_sleep_requested(wake_at=NOW + 5_000)
    out = happens(state, request, request)
    assert out.entries == [e.SleepStarted(NOW, "sleep:doze-1", "doze", 1, NOW + 5_000)]
    assert state.next_due() == NOW + 5_000
    happens(state, i.TimerFired(), now=NOW + 5_000)
    assert happens(state, request).entries == []  # it has been slept


def test_a_sleep_lasts_at_most_365_days() -> None:
    out = happens(a_run(), a_sleep_requested(wake_at=NOW + 10 * limits.SLEEP_MS_MAX))
    assert out.entries[0].wake_at == NOW + limits.SLEEP_MS_MAX  # type: ignore[union-attr]


def test_sleeps_that_are_due_end_together_in_the_order_of_their_times() -> None:
    state = a_run(
        a_sleep_started("late", wake_at=NOW),
        a_sleep_started("early", wake_at=NOW - 9),
        a_sleep_started("not yet", wake_at=NOW + 1),
    )
    out = happens(state, i.TimerFired())
    assert out.entries == [
        e.SleepCompleted(NOW, "sleep:early-1", 1),
        e.SleepCompleted(NOW, "sleep:late-1", 1),
    ]
    assert out.completions == [Completion("sleep:early-1"), Completion("sleep:late-1")]
    assert out.take_up
    assert state.next_due() == NOW + 1


def test_a_timer_that_fires_with_nothing_due_leads_to_nothing() -> None:
    state = a_run(a_sleep_started(wake_at=NOW + 1))
    out = happens(state, i.TimerFired())
    assert (out.entries, out.take_up, out.delivery) == ([], False, 0)


def test_a_hidden_timer_that_the_program_lets_go_never_fires() -> None:
    state = a_run()
    happens(state, i.SleepRequested(1, "timer:asyncio-1", "asyncio", 1, NOW + 1, True))
    released = i.SleepReleased(1, "timer:asyncio-1")
    assert happens(state, released).entries == [e.SleepCancelled(NOW, "timer:asyncio-1")]
    assert state.next_due() is None
    assert happens(state, released).entries == []
    assert happens(state, i.TimerFired(), now=NOW + 1).entries == []
    assert happens(state, i.SleepReleased(1, "timer:asyncio-9")).entries == []


# -- waits and events -------------------------------------------------------------------------------------------------


def test_a_wait_lasts_at_most_365_days_and_keeps_the_time_out_that_counts() -> None:
    out = happens(a_run(), a_wait_requested(timeout_ms=10 * limits.SLEEP_MS_MAX))
    assert out.entries == [
        e.WaitStarted(
            NOW, "wait:refund-1", "refund", 1, "refunded", NOW + limits.SLEEP_MS_MAX, limits.SLEEP_MS_MAX,
        )
    ]  # fmt: skip


def test_an_event_goes_to_the_oldest_wait_of_its_type() -> None:
    state = a_run(a_wait_started("other", event_type="refunded"), a_wait_started("first"), a_wait_started("second"))
    out = happens(state, i.EventSent("paid", b"\x01"))
    assert out.entries == [e.WaitCompleted(NOW, "wait:first-1", "paid", b"\x01", NOW, 1)]
    assert out.completions == [Completion("wait:first-1", b"\x01", None, NOW)]
    assert out.take_up
    assert list(state.waits) == ["wait:other-1", "wait:second-1"]
    assert state.events == {}


def test_events_nobody_waits_for_are_kept_in_their_order_per_type() -> None:
    state = a_run()
    for number in range(3):
        out = happens(state, i.EventSent("paid", bytes([number])), now=NOW + number)
        assert out.entries == [e.EventReceived(NOW + number, "paid", bytes([number]))]
        assert not out.take_up
    happens(state, i.EventSent("refunded", b"\x09"))
    assert state.events_count == 4
    for number in range(3):
        out = happens(state, a_wait_requested(f"wait {number}", event_type="paid"), now=NOW + 50)
        assert kinds(out) == [e.WaitStarted, e.WaitCompleted]
        assert out.completions == [Completion(f"wait:wait {number}-1", bytes([number]), None, NOW + number)]
    assert (state.events_count, list(state.events), state.waits) == (1, ["refunded"], {})
    assert kinds(happens(state, a_wait_requested("wait 3", event_type="paid"))) == [e.WaitStarted]


def test_a_wait_is_recorded_once() -> None:
    state = a_run()
    assert kinds(happens(state, a_wait_requested(), a_wait_requested())) == [e.WaitStarted]
    happens(state, i.EventSent("refunded", b"\x01"))
    assert happens(state, a_wait_requested()).entries == []


def test_a_wait_that_timed_out_gets_no_event_any_more() -> None:
    state = a_run(a_wait_started("first", timeout_at=NOW), a_wait_started("second"))
    out = happens(state, i.TimerFired())
    error = e.ErrorValue("WorkflowTimeoutError", "Execution timed out after 60000ms")
    assert out.entries == [e.WaitTimedOut(NOW, "wait:first-1", error, 1)]
    assert out.completions == [Completion("wait:first-1", None, error)]
    assert happens(state, i.EventSent("paid", b"\x01")).entries[0].key == "wait:second-1"  # type: ignore[union-attr]
    assert kinds(happens(state, i.EventSent("paid", b"\x02"))) == [e.EventReceived]


def test_more_events_than_a_run_may_hold_are_refused_and_change_nothing() -> None:
    state = a_run(*[e.EventReceived(2, "paid", b"\xc0")] * limits.EVENTS_BUFFERED_MAX)
    before = picture(state)
    with pytest.raises(CapacityError, match=f"holds {limits.EVENTS_BUFFERED_MAX} events") as refused:
        happens(state, i.EventSent("refunded", b"\x01"))
    assert refused.value.retryable
    assert picture(state) == before
    happens(state, a_wait_requested(event_type="paid"))
    assert kinds(happens(state, i.EventSent("refunded", b"\x01"))) == [e.EventReceived]


def test_an_event_for_a_paused_run_is_kept_and_does_not_start_it() -> None:
    paused = e.Paused(3, "held")
    waiting = a_run(a_wait_started(), paused)
    out = happens(waiting, i.EventSent("paid", b"\x01"))
    assert kinds(out) == [e.WaitCompleted]
    assert not out.take_up
    assert waiting.status is Status.PAUSED
    not_waiting = a_run(paused)
    assert kinds(happens(not_waiting, i.EventSent("paid", b"\x01"))) == [e.EventReceived]
    resumed = happens(waiting, i.Resume())
    assert resumed.entries == [e.Resumed(NOW)]
    assert resumed.take_up
    assert (waiting.status, waiting.reason) == (Status.QUEUED, "")


@pytest.mark.parametrize("end", [e.Completed(3, b"\xc0"), e.Errored(3, ERROR), e.Terminated(3, "api")])
def test_a_run_that_has_ended_takes_no_event_and_no_end(end: e.AnyEntry) -> None:
    state = a_run(a_wait_started(), end)
    before = picture(state)
    with pytest.raises(ConflictError, match=r"\(instance.in_finite_state\)"):
        happens(state, i.EventSent("paid", b"\x01"))
    with pytest.raises(ConflictError, match=r"\(instance.cannot_terminate\)"):
        happens(state, i.Terminate("api"))
    assert picture(state) == before


# -- settled, suspended -----------------------------------------------------------------------------------------------


def test_a_settled_run_is_suspended_until_its_earliest_time() -> None:
    state = a_run(a_sleep_started(wake_at=NOW + 9_000), an_attempt_failed(retry_at=NOW + 5_000), a_wait_started())
    out = happens(state, i.RunSettled(1))
    assert out.entries == [e.Suspended(NOW, NOW + 5_000)]
    assert state.status is Status.WAITING
    assert happens(state, i.RunSettled(1)).entries == []


def test_a_pause_of_a_moment_is_no_suspension() -> None:
    soon = a_run(a_sleep_started(wake_at=NOW + limits.PARK_AFTER_MS - 1))
    assert happens(soon, i.RunSettled(1)).entries == []
    long = a_run(a_sleep_started(wake_at=NOW + limits.PARK_AFTER_MS))
    assert kinds(happens(long, i.RunSettled(1))) == [e.Suspended]


def test_a_run_that_waits_for_nothing_or_has_an_attempt_under_way_is_not_suspended() -> None:
    assert happens(a_run(), i.RunSettled(1)).entries == []
    busy = a_run(a_sleep_started(wake_at=NOW + 9_000), an_attempt_started())
    assert happens(busy, i.RunSettled(1)).entries == []


def test_a_run_that_settled_before_it_heard_of_a_completion_is_not_suspended() -> None:
    """A sleep ends while the word that the program has settled is on its way: the program goes on, and must not be
    put away until its other sleep, of a year, is over."""
    state = a_run(a_sleep_started("short", wake_at=NOW), a_sleep_started("long", wake_at=NOW + 10**9))
    assert happens(state, i.TimerFired()).delivery == 1
    assert happens(state, i.RunSettled(1, heard=0)).entries == []
    assert kinds(happens(state, i.RunSettled(1, heard=1))) == [e.Suspended]


def test_a_nested_attempt_whose_outer_step_is_over_does_not_keep_a_run_from_being_suspended() -> None:
    state = a_run(a_sleep_started(wake_at=NOW + 9_000), an_attempt_started("orphan", nested=True))
    assert kinds(happens(state, i.RunSettled(1))) == [e.Suspended]


def test_whatever_happens_to_a_waiting_run_makes_it_run_again() -> None:
    suspended = e.Suspended(3, NOW)
    slept = a_run(a_sleep_started(), suspended)
    happens(slept, i.TimerFired())
    woken = a_run(a_wait_started(), suspended)
    happens(woken, i.EventSent("paid", b"\x01"))
    retried = a_run(an_attempt_failed(), suspended)
    happens(retried, i.TimerFired())
    assert {slept.status, woken.status, retried.status} == {Status.RUNNING}


# -- the run as a whole -----------------------------------------------------------------------------------------------


def test_the_ends_of_a_run_stop_it_and_forget_what_it_waited_for() -> None:
    for incoming, status in (
        (i.RunReturned(1, b"\x05"), Status.COMPLETE),
        (i.RunFailed(1, ERROR), Status.ERRORED),
        (i.Terminate("api"), Status.TERMINATED),
    ):
        state = a_run(a_sleep_started(), a_wait_started(), an_attempt_started())
        out = happens(state, incoming)
        assert out.stop
        assert (state.status, state.ended_at, state.next_due()) == (status, NOW, None)
        assert not (state.open or state.sleeps or state.waits)
    assert happens(a_run(), i.RunReturned(1, b"\x05")).entries == [e.Completed(NOW, b"\x05")]


def test_a_divergence_pauses_the_run_with_its_reason_until_it_is_resumed() -> None:
    state = a_run(a_sleep_started(wake_at=NOW + 5), a_step_done_entry())
    out = happens(state, i.RunDiverged(1, "another path"))
    assert out.entries == [e.Paused(NOW, "another path")]
    assert out.stop
    assert (state.status, state.reason) == (Status.PAUSED, "another path")
    assert state.next_due() == NOW + 5  # the sleep goes on
    assert happens(state, i.Resume()).take_up
    assert kinds(happens(state, i.TimerFired(), now=NOW + 5)) == [e.SleepCompleted]


def a_step_done_entry() -> e.StepSucceeded:
    return e.StepSucceeded(2, "do:a-1", "a", 1, 1, 2, b"\x01", 1)


def test_inputs_that_arrive_together_see_what_the_earlier_ones_led_to() -> None:
    state = a_run()
    out = happens(state, a_wait_requested(), i.EventSent("refunded", b"\x01"), a_step_done(), i.RunReturned(1, b"\xc0"))
    assert kinds(out) == [e.WaitStarted, e.WaitCompleted, e.StepSucceeded, e.Completed]
    assert [completion.key for completion in out.completions] == ["wait:refund-1", "do:a-1"]
    assert out.delivery == 1
