"""Entries: what the journal of an instance says, one frozen type each. The journal is the only truth.

An entry is never changed and never removed. ``delivery`` numbers the *delivery groups*: completions that carry the
same number reached the program together, in the order of their entries; 0 means that the program never saw it as a
delivery of its own (a step that was started from inside another step).

They are msgspec structs, because the journal stores exactly these values: encoding a frozen dataclass by hand cost
more than everything else in a step together. The tag is the entry's number in the stored bytes: never reuse one.
Times are milliseconds since the epoch. ``value`` and ``payload`` are bytes in the format of ``wire/values.py``.
"""

from __future__ import annotations

import msgspec

from stellwerk.core.workflow.steps import StepConfig


class ErrorValue(msgspec.Struct, frozen=True, array_like=True):
    """An exception as a value: what Cloudflare shows (name, message), and what is needed to raise it again."""

    name: str
    message: str
    stack: str = ""
    module: str = ""  # where the class was defined, so that a replay raises the same class
    args: bytes = b""  # the exception's args as a value, or empty when they cannot be sent


class BlobRef(msgspec.Struct, frozen=True, array_like=True):
    """Stands for a value that is kept as a content-addressed blob."""

    sha256: str
    size: int


Value = bytes | BlobRef


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """Base of all entries."""

    at: int


class Created(Entry, frozen=True, tag=1):
    """First entry of every incarnation."""

    params: Value
    worker: str
    version_id: str
    class_name: str
    trigger: str  # api, binding, event, cron
    manifest: dict[str, str]  # the run manifest: worker -> version, frozen for this incarnation
    steps_max: int
    preserve_non_retryable: bool = True


class StepSucceeded(Entry, frozen=True, tag=2):
    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    value: Value
    delivery: int
    config: StepConfig | None = None  # None: the default configuration
    sensitive: bool = False


class AttemptStarted(Entry, frozen=True, tag=3):
    """Written before an attempt that may be the second one after an unclean end, and lazily for attempts that last."""

    key: str
    name: str
    count: int
    attempt: int
    config: StepConfig | None = None
    nested: bool = False  # called inside of another step


class AttemptInterrupted(Entry, frozen=True, tag=4):
    """The attempt ended because of something else; it does not count against the retries."""

    key: str
    attempt: int
    cause: str


class AttemptFailed(Entry, frozen=True, tag=5):
    """A failed attempt that will be followed by another at ``retry_at``."""

    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    error: ErrorValue
    retry_at: int
    config: StepConfig | None = None
    nested: bool = False


class StepErrored(Entry, frozen=True, tag=6):
    """The step failed for good: no retries left, or a non-retryable error. ``run()`` sees the error."""

    key: str
    name: str
    count: int
    attempt: int
    started_at: int
    error: ErrorValue
    delivery: int
    config: StepConfig | None = None


class SleepStarted(Entry, frozen=True, tag=7):
    key: str
    name: str
    count: int
    wake_at: int
    hidden: bool = False  # a timer of asyncio in workflow code, not a step of the user's


class SleepCompleted(Entry, frozen=True, tag=8):
    key: str
    delivery: int


class SleepCancelled(Entry, frozen=True, tag=9):
    """The program let go of a timer of asyncio (a time-out that was not needed)."""

    key: str


class WaitStarted(Entry, frozen=True, tag=10):
    key: str
    name: str
    count: int
    event_type: str
    timeout_at: int
    timeout_ms: int


class EventReceived(Entry, frozen=True, tag=11):
    event_type: str
    payload: Value


class WaitCompleted(Entry, frozen=True, tag=12):
    """The oldest buffered event of the type went to this wait."""

    key: str
    event_type: str
    payload: Value
    event_at: int
    delivery: int


class WaitTimedOut(Entry, frozen=True, tag=13):
    key: str
    error: ErrorValue
    delivery: int


class Suspended(Entry, frozen=True, tag=14):
    """Everything the program waits for is a timer or an event: status ``waiting``. ``wake_at`` 0: only an event."""

    wake_at: int


class RunInterrupted(Entry, frozen=True, tag=15):
    """The isolate or the node ended while the run was live."""

    cause: str
    node: bool = False


class Completed(Entry, frozen=True, tag=16):
    value: Value


class Errored(Entry, frozen=True, tag=17):
    error: ErrorValue


class Terminated(Entry, frozen=True, tag=18):
    trigger: str


class Paused(Entry, frozen=True, tag=19):
    reason: str


class Resumed(Entry, frozen=True, tag=20):
    """Back to ``queued`` after a pause."""


AnyEntry = (
    Created
    | StepSucceeded
    | AttemptStarted
    | AttemptInterrupted
    | AttemptFailed
    | StepErrored
    | SleepStarted
    | SleepCompleted
    | SleepCancelled
    | WaitStarted
    | EventReceived
    | WaitCompleted
    | WaitTimedOut
    | Suspended
    | RunInterrupted
    | Completed
    | Errored
    | Terminated
    | Paused
    | Resumed
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyEntry)

encode = _encoder.encode
"""An entry to the bytes that the journal keeps."""

decode = _decoder.decode
"""Bytes of the journal to an entry. Raises ``msgspec.ValidationError`` for anything else."""
