"""The state of a run: what its journal adds up to, and ``evolve``, which adds one entry.

There is one state per live run, held by its owner. It is mutable because the owner alone sees it; everything that may
be derived from the journal is changed only by ``evolve``, so that reading the journal again gives an equal state (a
property test demands it). What finished steps returned is not in here: only that they did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from stellwerk.core.errors import IllegalTransitionError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.status import MOVES, TERMINAL, Status
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, StepConfig


class OpenStep:
    """A step that has begun and has no result yet."""

    __slots__ = ("config", "count", "failures", "interruptions", "name", "nested", "retry_at", "running")

    def __init__(self, name: str, count: int, config: StepConfig | None, nested: bool) -> None:
        self.name, self.count, self.nested = name, count, nested
        self.config = config or DEFAULT_CONFIG
        self.failures = 0  # attempts that count
        self.interruptions = 0  # in all its attempts: a step that ends its node must not be forgiven ten times for each
        self.running = False  # an attempt is known to be under way
        self.retry_at: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenStep) and all(
            getattr(self, slot) == getattr(other, slot) for slot in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


class OpenWait(NamedTuple):
    event_type: str
    timeout_at: int
    timeout_ms: int


class RunState:
    """One incarnation of an instance."""

    __slots__ = (
        "created", "deliveries", "ended_at", "error", "events", "events_count", "finished", "node_stalls", "open",
        "output", "reason", "requested", "sleeps", "solo", "stalls", "started_at", "status", "steps", "steps_max",
        "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = Status.QUEUED
        self.created: e.Created | None = None
        self.started_at: int | None = None
        self.ended_at: int | None = None
        self.deliveries = 0  # number of the last delivery group
        self.steps = 0  # distinct `do` steps so far
        self.steps_max = 0
        self.open: dict[str, OpenStep] = {}
        self.finished: set[str] = set()  # keys of steps, sleeps and waits that have ended
        self.sleeps: dict[str, int] = {}  # key -> wake_at
        self.waits: dict[str, OpenWait] = {}  # in the order of their calls: waiters of a type are served in it
        self.events: dict[str, deque[tuple[int, e.Value]]] = {}  # type -> (at, payload) nobody has waited for yet
        self.events_count = 0
        self.stalls = 0  # interruptions since the last result that was recorded
        self.node_stalls = 0  # those of them that were the node's own end
        self.output: e.Value | None = None
        self.error: e.ErrorValue | None = None
        self.reason = ""  # why it is paused
        # Not from the journal: how the present life of the run is driven.
        self.solo = False  # attempts are granted one at a time, to find out which one ends its isolate
        self.requested: deque[tuple[str, str, int, StepConfig | None]] = deque()

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def next_due(self) -> int | None:
        """When the earliest sleep, time-out or retry is due; None when nothing waits for the clock."""
        due = [*self.sleeps.values()]
        due += [wait.timeout_at for wait in self.waits.values()]
        due += [step.retry_at for key, step in self.open.items() if step.retry_at is not None and not self.queues(key)]
        return min(due) if due else None

    def queues(self, key: str) -> bool:
        """Whether this step waits for its turn in a run whose attempts are granted one at a time."""
        return bool(self.requested) and any(key == queued for queued, *_ in self.requested)

    def open_step(self, entry: e.AttemptStarted | e.AttemptFailed) -> OpenStep:
        """The step of an attempt. Name, configuration and place are those of its first entry."""
        step = self.open.get(entry.key)
        if step is None:
            step = self.open[entry.key] = OpenStep(entry.name, entry.count, entry.config, entry.nested)
            self.steps += 1
        return step


def from_journal(entries: Iterable[e.AnyEntry]) -> RunState:
    """The state that a journal adds up to."""
    state = RunState()
    for entry in entries:
        evolve(state, entry)
    return state


def evolve(state: RunState, entry: Any) -> None:
    """Adds one entry to the state."""
    EVOLVE[type(entry)](state, entry)


def _progress(state: RunState, delivery: int) -> None:
    state.stalls = state.node_stalls = 0
    if delivery > state.deliveries:
        state.deliveries = delivery
    if state.status is not Status.RUNNING:
        _run(state)


def _move(state: RunState, status: Status) -> None:
    """The one place where a status changes, and only as the table says."""
    if status not in MOVES[state.status]:
        raise IllegalTransitionError(f"{state.status.value} may not be followed by {status.value}")
    state.status = status


def _run(state: RunState) -> None:
    if state.status is Status.QUEUED or state.status is Status.WAITING:
        _move(state, Status.RUNNING)


def _created(state: RunState, entry: e.Created) -> None:
    state.created = entry
    state.steps_max = entry.steps_max


def _step_ended(state: RunState, entry: e.StepSucceeded | e.StepErrored) -> None:
    key = entry.key
    if state.open.pop(key, None) is None and key not in state.finished:
        state.steps += 1
    state.finished.add(key)
    if state.requested:  # whoever ended it had asked for it as well, and did not wait for the answer
        state.requested = deque(request for request in state.requested if request[0] != key)
    if state.started_at is None:
        state.started_at = entry.started_at
    _progress(state, entry.delivery)


def _attempt_started(state: RunState, entry: e.AttemptStarted) -> None:
    step = state.open_step(entry)
    step.running, step.retry_at = True, None
    if state.started_at is None:
        state.started_at = entry.at
    _run(state)


def _attempt_interrupted(state: RunState, entry: e.AttemptInterrupted) -> None:
    step = state.open[entry.key]
    step.running = False
    step.interruptions += 1


def _attempt_failed(state: RunState, entry: e.AttemptFailed) -> None:
    step = state.open_step(entry)
    step.running, step.failures, step.retry_at = False, entry.attempt, entry.retry_at
    if state.started_at is None:
        state.started_at = entry.started_at
    _progress(state, 0)


def _sleep_started(state: RunState, entry: e.SleepStarted) -> None:
    state.sleeps[entry.key] = entry.wake_at
    if state.started_at is None:
        state.started_at = entry.at
    _run(state)


def _sleep_completed(state: RunState, entry: e.SleepCompleted) -> None:
    del state.sleeps[entry.key]
    state.finished.add(entry.key)
    _progress(state, entry.delivery)


def _sleep_cancelled(state: RunState, entry: e.SleepCancelled) -> None:
    del state.sleeps[entry.key]
    state.finished.add(entry.key)


def _wait_started(state: RunState, entry: e.WaitStarted) -> None:
    state.waits[entry.key] = OpenWait(entry.event_type, entry.timeout_at, entry.timeout_ms)
    if state.started_at is None:
        state.started_at = entry.at
    _run(state)


def _event_received(state: RunState, entry: e.EventReceived) -> None:
    state.events.setdefault(entry.event_type, deque()).append((entry.at, entry.payload))
    state.events_count += 1


def _wait_completed(state: RunState, entry: e.WaitCompleted) -> None:
    del state.waits[entry.key]
    state.finished.add(entry.key)
    # Events are buffered only while nobody waits for their type, so a buffered one is the one that was taken.
    buffered = state.events.get(entry.event_type)
    if buffered:
        buffered.popleft()
        state.events_count -= 1
        if not buffered:
            del state.events[entry.event_type]
    _progress(state, entry.delivery)


def _wait_timed_out(state: RunState, entry: e.WaitTimedOut) -> None:
    del state.waits[entry.key]
    state.finished.add(entry.key)
    _progress(state, entry.delivery)


def _suspended(state: RunState, entry: e.Suspended) -> None:
    _move(state, Status.WAITING)


def _run_interrupted(state: RunState, entry: e.RunInterrupted) -> None:
    state.stalls += 1
    if entry.node:
        state.node_stalls += 1


def _end(state: RunState, status: Status, at: int) -> None:
    _move(state, status)
    state.ended_at = at
    state.open.clear()
    state.sleeps.clear()
    state.waits.clear()
    state.requested.clear()


def _completed(state: RunState, entry: e.Completed) -> None:
    _end(state, Status.COMPLETE, entry.at)
    state.output = entry.value


def _errored(state: RunState, entry: e.Errored) -> None:
    _end(state, Status.ERRORED, entry.at)
    state.error = entry.error


def _terminated(state: RunState, entry: e.Terminated) -> None:
    _end(state, Status.TERMINATED, entry.at)


def _paused(state: RunState, entry: e.Paused) -> None:
    _move(state, Status.PAUSED)
    state.reason = entry.reason


def _resumed(state: RunState, entry: e.Resumed) -> None:
    _move(state, Status.QUEUED)
    state.reason = ""


EVOLVE: dict[type, Callable[[RunState, Any], None]] = {
    e.Created: _created,
    e.StepSucceeded: _step_ended,
    e.StepErrored: _step_ended,
    e.AttemptStarted: _attempt_started,
    e.AttemptInterrupted: _attempt_interrupted,
    e.AttemptFailed: _attempt_failed,
    e.SleepStarted: _sleep_started,
    e.SleepCompleted: _sleep_completed,
    e.SleepCancelled: _sleep_cancelled,
    e.WaitStarted: _wait_started,
    e.EventReceived: _event_received,
    e.WaitCompleted: _wait_completed,
    e.WaitTimedOut: _wait_timed_out,
    e.Suspended: _suspended,
    e.RunInterrupted: _run_interrupted,
    e.Completed: _completed,
    e.Errored: _errored,
    e.Terminated: _terminated,
    e.Paused: _paused,
    e.Resumed: _resumed,
}
