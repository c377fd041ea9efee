"""The machine of a run: ``decide`` says what an input leads to, and ``ALLOWED`` in which status it may come.

Theory of operation. A run is driven by inputs (``inputs.py``): reports of the isolate that executes its program,
timers, events, and what people ask for. ``decide`` reads the state and appends entries and actions to a ``Decision``;
it changes nothing else, asks no clock and draws no chance. ``advance`` is decide followed by evolve, and is what an
owner calls: several inputs that arrived together become one Decision, which is one record and one delivery group.

The isolate may lie or be late. A report about a step that has ended already, or about an attempt that is not the
current one, leads to nothing; an input in a status that does not allow it raises ``IllegalTransitionError`` and leaves
the state as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, ConflictError, IllegalTransitionError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Completion, Decision, Grant
from stellwerk.core.workflow.state import EVOLVE, OpenStep, RunState
from stellwerk.core.workflow.status import TERMINAL, Status
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, StepConfig, may_retry, retry_delay_ms, step_limit_text

INTERNAL_ERROR = e.ErrorValue("WorkflowInternalError", "Attempt failed due to internal workflows error")

_LIVE = frozenset({Status.QUEUED, Status.RUNNING, Status.WAITING, Status.WAITING_FOR_PAUSE})
_OPEN = _LIVE | {Status.PAUSED}
_MAY_WAIT = frozenset({Status.QUEUED, Status.RUNNING})

ALLOWED: dict[type, frozenset[Status]] = {
    i.StepDone: _LIVE,
    i.StepFailed: _LIVE,
    i.StepStarted: _LIVE,
    i.StepRequested: _LIVE,
    i.SleepRequested: _LIVE,
    i.SleepReleased: _LIVE,
    i.WaitRequested: _LIVE,
    i.RunSettled: _LIVE,
    i.RunReturned: _LIVE,
    i.RunFailed: _LIVE,
    i.RunDiverged: _LIVE,
    i.Interrupted: _LIVE,
    i.TimerFired: _LIVE,
    i.EventSent: _OPEN,
    i.Terminate: _OPEN,
    i.Resume: frozenset({Status.PAUSED}),
}


def decide(state: RunState, incoming: Any, *, now_ms: int, out: Decision) -> None:
    """Appends to ``out`` what ``incoming`` leads to. Raises ``IllegalTransitionError`` when the status forbids it,
    ``ConflictError`` or ``CapacityError`` when a caller asks for what cannot be; then ``out`` is as it was."""
    kind = type(incoming)
    if state.status not in ALLOWED[kind]:
        raise _refusal(state, incoming)
    _DECIDE[kind](state, incoming, now_ms, out)


def advance(state: RunState, incoming: Any, *, now_ms: int, out: Decision) -> None:
    """``decide``, then ``evolve`` by the entries that it added: for inputs that arrived together, one after another.
    Both are spelled out here, since each step of each run comes by."""
    kind, entries = type(incoming), out.entries
    before = len(entries)
    if state.status not in ALLOWED[kind]:
        raise _refusal(state, incoming)
    _DECIDE[kind](state, incoming, now_ms, out)
    for entry in entries[before:]:
        EVOLVE[type(entry)](state, entry)


def _refusal(state: RunState, incoming: Any) -> Exception:
    if state.status not in TERMINAL:
        return IllegalTransitionError(f"{type(incoming).__name__} may not come in status {state.status.value}")
    if isinstance(incoming, i.Terminate):
        return ConflictError("(instance.cannot_terminate) Cannot terminate instance since its on a finite state")
    if isinstance(incoming, i.EventSent):
        return ConflictError(
            f"(instance.in_finite_state) Cannot send an event to an instance that is {state.status.value}"
        )
    return IllegalTransitionError(f"{type(incoming).__name__} may not come in status {state.status.value}")


def _group(state: RunState, out: Decision) -> int:
    """The delivery group of this decision. The one that a program was given ahead is full."""
    if out.delivery == out.ahead:
        out.delivery = state.deliveries + 1
    return out.delivery


# -- steps ------------------------------------------------------------------------------------------------------------


def _may_begin(state: RunState, key: str, now_ms: int, out: Decision) -> bool:
    """Whether this step is known, or may be begun now. Past the limit of steps the run ends: the SDK refuses such a
    step before it runs, so only a program that goes round the SDK gets here."""
    if key in state.open:
        return True
    if state.steps < state.steps_max:
        return True
    out.entries.append(e.Errored(now_ms, e.ErrorValue("WorkflowFatalError", step_limit_text(state.steps_max))))
    out.stop = "the limit of steps"
    return False


def _is_current(step: OpenStep | None, attempt: int) -> bool:
    """Whether a report belongs to the attempt that is under way: not one that has failed, timed out or never began."""
    if step is None:
        return attempt == 1
    return attempt == step.failures + 1 and step.retry_at is None


def _step_done(state: RunState, report: i.StepDone, now_ms: int, out: Decision) -> None:
    key = report.key
    if key in state.finished:
        return
    step = state.open.get(key)
    if not _is_current(step, report.attempt):
        return
    if step is None and state.steps >= state.steps_max and not _may_begin(state, key, now_ms, out):
        return
    at = now_ms
    if report.nested:
        delivery = 0
    elif report.ahead_ms < 0:
        delivery = _group(state, out)
    else:  # what its clock showed the program has to be what a replay will show
        at = min(now_ms, max(report.started_at + report.ahead_ms, state.started_at or 0))
        delivery = out.ahead = out.delivery = state.deliveries + 1
    config = report.config
    out.entries.append(
        e.StepSucceeded(
            at, key, report.name, report.count, report.attempt, report.started_at, report.value, delivery, config,
            config is not None and config.sensitive,
        )
    )  # fmt: skip
    out.completions.append(Completion(key))
    if state.requested:
        _grant_next(state, key, now_ms, out)


def _step_failed(state: RunState, report: i.StepFailed, now_ms: int, out: Decision) -> None:
    key = report.key
    if key in state.finished:
        return
    step = state.open.get(key)
    if not _is_current(step, report.attempt) or not _may_begin(state, key, now_ms, out):
        return
    if report.fatal:
        out.entries.append(e.Errored(now_ms, report.error))
        out.stop = "a fatal error in a step"
        return
    config = step.config if step is not None else report.config or DEFAULT_CONFIG
    if report.retryable and may_retry(config, report.attempt):
        delay_ms = retry_delay_ms(config, report.attempt, report.delay_ms)
        out.entries.append(
            e.AttemptFailed(
                now_ms, key, report.name, report.count, report.attempt, report.started_at, report.error,
                now_ms + delay_ms, report.config, report.nested,
            )
        )  # fmt: skip
    else:
        delivery = 0 if report.nested else _group(state, out)
        out.entries.append(
            e.StepErrored(
                now_ms, key, report.name, report.count, report.attempt, report.started_at, report.error, delivery,
                report.config,
            )
        )  # fmt: skip
        out.completions.append(Completion(key, None, report.error))
    if state.requested:
        _grant_next(state, key, now_ms, out)


def _step_started(state: RunState, report: i.StepStarted, now_ms: int, out: Decision) -> None:
    step = state.open.get(report.key)
    known = report.key in state.finished or (step is not None and step.running)
    if known or not _is_current(step, report.attempt) or not _may_begin(state, report.key, now_ms, out):
        return
    out.entries.append(
        e.AttemptStarted(
            now_ms, report.key, report.name, report.count, report.attempt, report.config, report.nested,
        )
    )  # fmt: skip


def _step_requested(state: RunState, request: i.StepRequested, now_ms: int, out: Decision) -> None:
    key = request.key
    step = state.open.get(key)
    if key in state.finished or (step is not None and step.retry_at is not None):
        return
    if step is not None and step.running:
        # Its start was recorded while the run had no isolate (a retry fell due); who asks has not begun it.
        out.grants.append(Grant(key, step.failures + 1))
        return
    if not _may_begin(state, key, now_ms, out):
        return
    nested = request.nested if step is None else step.nested
    if state.solo and not nested and _is_busy(state):
        if not state.queues(key):
            state.requested.append((key, request.name, request.count, request.config))
        return
    _grant(state, key, request.name, request.count, request.config, nested, now_ms, out)


def _grant(
    state: RunState,
    key: str,
    name: str,
    count: int,
    config: StepConfig | None,
    nested: bool,
    now_ms: int,
    out: Decision,
) -> None:
    step = state.open.get(key)
    attempt = step.failures + 1 if step is not None else 1
    out.entries.append(e.AttemptStarted(now_ms, key, name, count, attempt, config, nested))
    out.grants.append(Grant(key, attempt))


def _is_busy(state: RunState, ended: str = "") -> bool:
    """Whether an attempt is under way besides ``ended``. Nested ones do not count: the outer one does, and one whose
    retry was granted before the outer attempt began again would make that wait for ever."""
    return any(step.running and not step.nested and key != ended for key, step in state.open.items())


def _grant_next(state: RunState, ended: str, now_ms: int, out: Decision) -> None:
    """One attempt at a time: when the one that ran has ended, the next that asked begins."""
    while state.requested and not _is_busy(state, ended):
        key, name, count, config = state.requested.popleft()
        if key != ended and key not in state.finished:
            _grant(state, key, name, count, config, False, now_ms, out)
            return


# -- sleeps, waits, events --------------------------------------------------------------------------------------------


def _sleep_requested(state: RunState, request: i.SleepRequested, now_ms: int, out: Decision) -> None:
    if request.key in state.sleeps or request.key in state.finished:
        return
    wake_at = min(request.wake_at, now_ms + limits.SLEEP_MS_MAX)
    out.entries.append(e.SleepStarted(now_ms, request.key, request.name, request.count, wake_at, request.hidden))


def _sleep_released(state: RunState, report: i.SleepReleased, now_ms: int, out: Decision) -> None:
    if report.key in state.sleeps:
        out.entries.append(e.SleepCancelled(now_ms, report.key))


def _wait_requested(state: RunState, request: i.WaitRequested, now_ms: int, out: Decision) -> None:
    key = request.key
    if key in state.waits or key in state.finished:
        return
    timeout_ms = min(request.timeout_ms, limits.SLEEP_MS_MAX)
    out.entries.append(
        e.WaitStarted(now_ms, key, request.name, request.count, request.event_type, now_ms + timeout_ms, timeout_ms)
    )
    buffered = state.events.get(request.event_type)
    if buffered:
        at, payload = buffered[0]
        _complete_wait(state, key, request.event_type, at, payload, now_ms, out)


def _complete_wait(
    state: RunState, key: str, event_type: str, event_at: int, payload: e.Value, now_ms: int, out: Decision
) -> None:
    out.entries.append(e.WaitCompleted(now_ms, key, event_type, payload, event_at, _group(state, out)))
    out.completions.append(Completion(key, payload, None, event_at))


def _event_sent(state: RunState, event: i.EventSent, now_ms: int, out: Decision) -> None:
    waiting = next((key for key, wait in state.waits.items() if wait.event_type == event.event_type), None)
    if waiting is not None:
        _complete_wait(state, waiting, event.event_type, now_ms, event.payload, now_ms, out)
        out.take_up = state.status is not Status.PAUSED  # then it is on disk, and reaches the program after the pause
        return
    if state.events_count >= limits.EVENTS_BUFFERED_MAX:
        raise CapacityError(
            f"This instance holds {limits.EVENTS_BUFFERED_MAX} events that it has not waited for yet.",
            cure="Send further events when it has taken some.",
        )
    out.entries.append(e.EventReceived(now_ms, event.event_type, event.payload))


def _timer_fired(state: RunState, incoming: i.TimerFired, now_ms: int, out: Decision) -> None:
    for key, wake_at in sorted(state.sleeps.items(), key=lambda item: item[1]):
        if wake_at <= now_ms:
            out.entries.append(e.SleepCompleted(now_ms, key, _group(state, out)))
            out.completions.append(Completion(key))
    for key, wait in state.waits.items():
        if wait.timeout_at <= now_ms:
            error = e.ErrorValue("WorkflowTimeoutError", f"Execution timed out after {wait.timeout_ms}ms")
            out.entries.append(e.WaitTimedOut(now_ms, key, error, _group(state, out)))
            out.completions.append(Completion(key, None, error))
    busy = state.solo and _is_busy(state)
    for key, step in state.open.items():
        if step.retry_at is None or step.retry_at > now_ms or state.queues(key):
            continue
        if busy and not step.nested:
            state.requested.append((key, step.name, step.count, None))
        else:
            _grant(state, key, step.name, step.count, None, step.nested, now_ms, out)
            busy = busy or (state.solo and not step.nested)
    out.take_up = out.take_up or bool(out.entries)


# -- the run as a whole -----------------------------------------------------------------------------------------------


def _run_settled(state: RunState, report: i.RunSettled, now_ms: int, out: Decision) -> None:
    """``waiting`` is written when it lasts: a sleep of a moment is over before anybody could look."""
    if report.heard < state.deliveries:
        return
    due = state.next_due()
    soon = due is not None and due - now_ms < limits.PARK_AFTER_MS
    if state.status not in _MAY_WAIT or soon or _is_busy(state):
        return
    if due is None and not state.waits:
        return
    out.entries.append(e.Suspended(now_ms, due or 0))


def _run_returned(state: RunState, report: i.RunReturned, now_ms: int, out: Decision) -> None:
    out.entries.append(e.Completed(now_ms, report.value))
    out.stop = "complete"


def _run_failed(state: RunState, report: i.RunFailed, now_ms: int, out: Decision) -> None:
    out.entries.append(e.Errored(now_ms, report.error))
    out.stop = "errored"


def _run_diverged(state: RunState, report: i.RunDiverged, now_ms: int, out: Decision) -> None:
    out.entries.append(e.Paused(now_ms, report.reason))
    out.stop = "diverged"


def _interrupted(state: RunState, incoming: i.Interrupted, now_ms: int, out: Decision) -> None:
    running = [(key, step) for key, step in state.open.items() if step.running]
    culprit = _culprit(running) if state.solo and not incoming.node else ""
    counted = False
    for key, step in running:
        if key == culprit or step.interruptions >= limits.INTERRUPTIONS_MAX:
            _count_interruption(state, key, step, now_ms, out)
            counted = True
        else:
            out.entries.append(e.AttemptInterrupted(now_ms, key, step.failures + 1, incoming.cause))
    out.entries.append(e.RunInterrupted(now_ms, incoming.cause, incoming.node))
    lost = state.stalls - state.node_stalls + (not incoming.node)
    node_lost = state.node_stalls + incoming.node
    if not counted and (lost > limits.RUN_INTERRUPTIONS_MAX or node_lost > limits.NODE_INTERRUPTIONS_MAX):
        times = max(lost, node_lost)
        message = f"The run lost its isolate {times} times without any progress between (last: {incoming.cause})"
        out.entries.append(e.Errored(now_ms, e.ErrorValue("WorkflowInternalError", message)))
        out.stop = "interrupted too often"
        return
    out.take_up = True


def _culprit(running: list[tuple[str, OpenStep]]) -> str:
    """Of attempts that ran alone with their nested ones: the innermost, which began last, was executing."""
    nested = [key for key, step in running if step.nested]
    return nested[-1] if nested else running[-1][0] if running else ""


def _count_interruption(state: RunState, key: str, step: OpenStep, now_ms: int, out: Decision) -> None:
    attempt = step.failures + 1
    if may_retry(step.config, attempt):
        retry_at = now_ms + retry_delay_ms(step.config, attempt)
        out.entries.append(
            e.AttemptFailed(
                now_ms, key, step.name, step.count, attempt, now_ms, INTERNAL_ERROR, retry_at, step.config, step.nested,
            )
        )  # fmt: skip
    else:
        delivery = 0 if step.nested else _group(state, out)
        out.entries.append(
            e.StepErrored(
                now_ms, key, step.name, step.count, attempt, now_ms, INTERNAL_ERROR, delivery, step.config,
            )
        )  # fmt: skip


def _terminate(state: RunState, incoming: i.Terminate, now_ms: int, out: Decision) -> None:
    out.entries.append(e.Terminated(now_ms, incoming.trigger))
    out.stop = "terminated"


def _resume(state: RunState, incoming: i.Resume, now_ms: int, out: Decision) -> None:
    out.entries.append(e.Resumed(now_ms))
    out.take_up = True


_DECIDE: dict[type, Callable[[RunState, Any, int, Decision], None]] = {
    i.StepDone: _step_done,
    i.StepFailed: _step_failed,
    i.StepStarted: _step_started,
    i.StepRequested: _step_requested,
    i.SleepRequested: _sleep_requested,
    i.SleepReleased: _sleep_released,
    i.WaitRequested: _wait_requested,
    i.RunSettled: _run_settled,
    i.RunReturned: _run_returned,
    i.RunFailed: _run_failed,
    i.RunDiverged: _run_diverged,
    i.Interrupted: _interrupted,
    i.TimerFired: _timer_fired,
    i.EventSent: _event_sent,
    i.Terminate: _terminate,
    i.Resume: _resume,
}
