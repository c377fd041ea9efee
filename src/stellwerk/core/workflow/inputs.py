"""Inputs: everything that may happen to a run, one frozen type each. The machine takes nothing else.

Those that an isolate reports are at the same time the messages on its channel (``wire/isolate.py`` lists them with
the others): the report of a step that ended travels from the channel to the machine without being copied into a
second type, because this is the hottest path of all. ``run`` is the address on the channel; the machine ignores it.
Tags are never reused.
"""

from __future__ import annotations

import msgspec

from stellwerk.core.workflow.entries import ErrorValue, Value
from stellwerk.core.workflow.steps import StepConfig


class RunInput(msgspec.Struct, frozen=True, array_like=True):
    """Base of what an isolate reports about a run. ``run`` numbers one life of an instance in one node."""

    run: int


class StepDone(RunInput, frozen=True, tag=31):
    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    value: Value
    config: StepConfig | None = None
    nested: bool = False
    ahead_ms: int = -1  # not negative: so long after its start the program was given the result, ahead of the record


class StepFailed(RunInput, frozen=True, tag=32):
    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    error: ErrorValue
    retryable: bool
    delay_ms: int | None = None  # what a delay function answered
    config: StepConfig | None = None
    nested: bool = False
    fatal: bool = False  # ends the whole run at once (a result that cannot be serialised)


class StepStarted(RunInput, frozen=True, tag=33):
    """An attempt that lasts longer than a moment says so; no answer."""

    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    config: StepConfig | None = None
    nested: bool = False


class StepRequested(RunInput, frozen=True, tag=34):
    """In careful mode: may this attempt begin? Answered by ``AttemptGranted``."""

    key: str
    name: str
    count: int
    attempt: int
    config: StepConfig | None = None
    nested: bool = False


class SleepRequested(RunInput, frozen=True, tag=36):
    key: str
    name: str
    count: int
    wake_at: int  # absolute
    hidden: bool = False


class SleepReleased(RunInput, frozen=True, tag=37):
    """The program let go of a hidden timer."""

    key: str


class WaitRequested(RunInput, frozen=True, tag=38):
    key: str
    name: str
    count: int
    event_type: str
    timeout_ms: int


class RunSettled(RunInput, frozen=True, tag=39):
    """Nothing of this run executes now; all that it waits for are timers, retries and events.

    ``heard``: the number of the last delivery group that the program has seen. If there is a later one, it is on its
    way to a program that will go on.
    """

    heard: int = 0


class RunReturned(RunInput, frozen=True, tag=40):
    value: Value


class RunFailed(RunInput, frozen=True, tag=41):
    error: ErrorValue


class RunDiverged(RunInput, frozen=True, tag=42):
    """The program asked for something else than the journal says."""

    reason: str


# -- what the node itself puts in -------------------------------------------------------------------------------------


class Interrupted(msgspec.Struct, frozen=True):
    """The process that ran the program has gone.

    ``node`` tells that the node itself had ended. An isolate's end while this run had it alone and its attempts were
    granted one at a time (``RunState.solo``) is blamed on the attempt under way: it counts as failed. In every other
    case the open attempts are *interrupted*: repeated, and not counted.
    """

    cause: str
    node: bool = False


class TimerFired(msgspec.Struct, frozen=True):
    """The time has come that the earliest sleep, time-out or retry waits for."""


class EventSent(msgspec.Struct, frozen=True):
    """``send_event``, already checked for type and size."""

    event_type: str
    payload: Value


class Terminate(msgspec.Struct, frozen=True):
    trigger: str


class Resume(msgspec.Struct, frozen=True):
    """Take a paused run up again."""


RunReport = (
    StepDone
    | StepFailed
    | StepStarted
    | StepRequested
    | SleepRequested
    | SleepReleased
    | WaitRequested
    | RunSettled
    | RunReturned
    | RunFailed
    | RunDiverged
)
Input = RunReport | Interrupted | TimerFired | EventSent | Terminate | Resume
