"""One builder per noun for the tests of the rules: ``a_run``, ``a_step_done``, ... with everything in it a default."""

from __future__ import annotations

import copy
from typing import Any

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import advance
from stellwerk.core.workflow.state import RunState, from_journal
from stellwerk.core.workflow.status import Status
from stellwerk.core.workflow.steps import StepConfig

NOW = 1_000_000
ERROR = e.ErrorValue("ValueError", "no")
NO_RETRY = StepConfig(0, 0, "constant")
ONE_RETRY = StepConfig(1, 100, "constant")
JOURNALLED = [slot for slot in RunState.__slots__ if slot not in ("solo", "requested")]


def a_created(*, steps_max: int = 100, at: int = 1) -> e.Created:
    return e.Created(at, b"\x80", "orders", "version-1", "Orders", "api", {"orders": "version-1"}, steps_max)


def a_run(*entries: e.AnyEntry, status: Status | None = None, steps_max: int = 100, solo: bool = False) -> RunState:
    """A run with this journal; or, with ``status``, one that has come so far: a step under way (where that can be), a
    sleep until 2 s from ``NOW``, and a wait for ``paid``."""
    state = from_journal([a_created(steps_max=steps_max), *entries, *(() if status is None else _LIFE[status])])
    state.solo = solo
    if status in (Status.WAITING_FOR_PAUSE, Status.UNKNOWN):  # no journal leads there yet
        state.status = status
    assert status is None or state.status is status
    return state


_ASLEEP: list[e.AnyEntry] = [
    e.SleepStarted(2, "sleep:nap-1", "nap", 1, NOW + 2_000),
    e.WaitStarted(2, "wait:payment-1", "payment", 1, "paid", NOW + 100_000, 100_000),
]
_AWAKE: list[e.AnyEntry] = [*_ASLEEP, e.AttemptStarted(2, "do:a-1", "a", 1, 1)]
_LIFE: dict[Status, list[e.AnyEntry]] = {
    Status.QUEUED: [],
    Status.RUNNING: _AWAKE,
    Status.WAITING: [*_ASLEEP, e.Suspended(3, NOW + 2_000)],
    Status.WAITING_FOR_PAUSE: _AWAKE,
    Status.PAUSED: [*_ASLEEP, e.Paused(3, "held")],
    Status.COMPLETE: [*_AWAKE, e.Completed(3, b"\xc0")],
    Status.ERRORED: [*_AWAKE, e.Errored(3, ERROR)],
    Status.TERMINATED: [*_AWAKE, e.Terminated(3, "api")],
    Status.UNKNOWN: [],
}


def a_step_done(name: str = "a", **changes: Any) -> i.StepDone:
    given: dict[str, Any] = {"key": f"do:{name}-1", "name": name, "count": 1, "attempt": 1, "started_at": 2}
    return i.StepDone(1, **{**given, "value": b"\x01", **changes})


def a_step_failed(name: str = "a", **changes: Any) -> i.StepFailed:
    given: dict[str, Any] = {"key": f"do:{name}-1", "name": name, "count": 1, "attempt": 1, "started_at": 2}
    return i.StepFailed(1, **{**given, "error": ERROR, "retryable": True, **changes})


def a_step_started(name: str = "a", **changes: Any) -> i.StepStarted:
    return i.StepStarted(
        1, **{"key": f"do:{name}-1", "name": name, "count": 1, "attempt": 1, "started_at": 2, **changes}
    )


def a_step_requested(name: str = "a", **changes: Any) -> i.StepRequested:
    return i.StepRequested(1, **{"key": f"do:{name}-1", "name": name, "count": 1, "attempt": 1, **changes})


def a_sleep_requested(name: str = "doze", *, wake_at: int = NOW + 5_000, hidden: bool = False) -> i.SleepRequested:
    return i.SleepRequested(1, f"sleep:{name}-1", name, 1, wake_at, hidden)


def a_wait_requested(
    name: str = "refund", *, event_type: str = "refunded", timeout_ms: int = 60_000
) -> i.WaitRequested:
    return i.WaitRequested(1, f"wait:{name}-1", name, 1, event_type, timeout_ms)


def a_sleep_started(name: str = "nap", *, wake_at: int = NOW, hidden: bool = False) -> e.SleepStarted:
    return e.SleepStarted(2, f"sleep:{name}-1", name, 1, wake_at, hidden)


def a_wait_started(name: str = "payment", *, event_type: str = "paid", timeout_at: int = NOW + 60_000) -> e.WaitStarted:
    return e.WaitStarted(2, f"wait:{name}-1", name, 1, event_type, timeout_at, 60_000)


def an_attempt_started(name: str = "a", *, attempt: int = 1, **changes: Any) -> e.AttemptStarted:
    return e.AttemptStarted(2, f"do:{name}-1", name, 1, attempt, **changes)


def an_attempt_failed(name: str = "a", *, attempt: int = 1, retry_at: int = NOW, **changes: Any) -> e.AttemptFailed:
    return e.AttemptFailed(2, f"do:{name}-1", name, 1, attempt, 2, ERROR, retry_at, **changes)


def happens(state: RunState, *inputs: Any, now: int = NOW) -> Decision:
    """What these inputs, arriving together, lead to."""
    out = Decision()
    for incoming in inputs:
        advance(state, incoming, now_ms=now, out=out)
    return out


def kinds(out: Decision) -> list[type]:
    return [type(entry) for entry in out.entries]


def picture(state: RunState, slots: list[str] | None = None) -> dict[str, Any]:
    """Everything that a state holds, to be compared."""
    return {slot: copy.deepcopy(getattr(state, slot)) for slot in slots or RunState.__slots__}
