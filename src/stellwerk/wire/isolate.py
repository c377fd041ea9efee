"""Messages between the node and an isolate, versioned. Both sides may be of different releases during a roll-out.

Calls: whoever starts a call numbers it, the node with even numbers, the isolate with odd ones. A body that does not
fit into its head follows as BODY frames of the same call, ended by ``BodyEnd``; the receiver grants ``Credit`` in
bytes. For a call of mine, what comes in is the answer's body and what goes out is the request's.

Adding a field with a default at the end is compatible; anything else takes a new ``PROTOCOL`` number. Tags are never
reused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stellwerk.core.limits import STEPS_PER_INSTANCE
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.core.workflow.inputs import RunReport

PROTOCOL = 1

HeaderList = list[tuple[bytes, bytes]]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


# -- life of an isolate -----------------------------------------------------------------------------------------------


class BindingSpec(msgspec.Struct, frozen=True, array_like=True):
    """One name in ``env``. ``kind``: ``plain_text``, ``json``, ``secret_text``, ``service``, ``workflow``."""

    name: str
    kind: str
    value: Any = None  # the text or JSON of a var; {"service", "entrypoint", "props"}; {"workflow"}


class Boot(Message, frozen=True, tag=1):
    """First message to an isolate: what it is."""

    protocol: int
    worker: str
    version_id: str
    bundle: str  # folder with the version's files
    main_module: str  # relative to the bundle, ends in .py
    dependencies: list[str]  # folders for sys.path, after the main module's own
    bindings: list[BindingSpec]
    compatibility_date: str
    compatibility_flags: list[str]


class Export(msgspec.Struct, frozen=True, array_like=True):
    name: str
    kind: str  # entrypoint, workflow, object
    methods: list[str]


class Ready(Message, frozen=True, tag=2):
    protocol: int
    exports: list[Export]
    import_ms: int


class BootFailed(Message, frozen=True, tag=3):
    error: ErrorValue


class Drain(Message, frozen=True, tag=4):
    """Finish what you have, then end. No new work follows."""


class Ping(Message, frozen=True, tag=6):
    """Are you there? Answered by ``Pong`` in the isolate's next turn, unless its code blocks the loop."""


class Pong(Message, frozen=True, tag=7):
    pass


class LogRecord(msgspec.Struct, frozen=True, array_like=True):
    at: int
    level: str  # debug, info, warn, error
    text: str
    invocation: str = ""
    instance: str = ""
    step: str = ""
    trace_id: str = ""
    logger: str = ""
    stack: str = ""


class Log(Message, frozen=True, tag=5):
    records: list[LogRecord]
    dropped: int = 0


# -- calls ------------------------------------------------------------------------------------------------------------


class HttpRequest(Message, frozen=True, tag=10):
    """To an isolate: run ``fetch`` of an entrypoint. From an isolate: ``env.<binding>.fetch`` (``target`` names it)."""

    call: int
    target: str  # to an isolate: the entrypoint's class; from one: the binding's name
    method: str
    url: str
    headers: HeaderList
    body: bytes | None  # None with streaming=True: BODY frames follow
    streaming: bool = False
    traceparent: str = ""
    depth: int = 0  # chained invocations so far
    scope: int = 0  # from an isolate: the run or call on whose behalf; selects the run manifest
    request_id: str = ""
    props: Any = None
    cf: Any = None


class HttpResponse(Message, frozen=True, tag=11):
    call: int
    status: int
    headers: HeaderList
    body: bytes | None
    streaming: bool = False
    reason: str = ""
    pending: bool = False  # waitUntil work goes on; ``CallEnded`` follows


class RpcCall(Message, frozen=True, tag=12):
    call: int
    target: str
    method: str
    args: bytes  # value of [args, kwargs]
    traceparent: str = ""
    depth: int = 0
    scope: int = 0
    props: Any = None
    request_id: str = ""
    stubs: list[int] | None = None


class RpcResult(Message, frozen=True, tag=13):
    """Answer to ``RpcCall``, ``StubCall`` and ``WorkflowCall``."""

    call: int
    value: bytes
    pending: bool = False
    stubs: list[int] | None = None


class CallFailed(Message, frozen=True, tag=14):
    """The call ended with an exception instead of an answer. ``code`` is a stable code of ``core/errors.py``."""

    call: int
    error: ErrorValue
    code: str = "worker.exception"
    pending: bool = False


class CallEnded(Message, frozen=True, tag=15):
    """The last waitUntil of an answered call has ended."""

    call: int


class CallCancelled(Message, frozen=True, tag=16):
    """The caller has gone; the answer is no longer wanted. ``abort``: the work on it must end too."""

    call: int
    abort: bool = False


class BodyEnd(Message, frozen=True, tag=17):
    """No more BODY frames for this call. ``error`` not empty: the body broke off."""

    call: int
    error: str = ""


class Credit(Message, frozen=True, tag=18):
    call: int
    size: int


class WorkflowCall(Message, frozen=True, tag=19):
    """From an isolate: an operation on a workflow binding. Answered by ``RpcResult`` or ``CallFailed``."""

    call: int
    binding: str
    operation: str  # create, create_batch, get, status, terminate, send_event
    args: bytes  # value, a dict
    scope: int = 0
    traceparent: str = ""


# -- stubs ------------------------------------------------------------------------------------------------------------
# A function or stream that a value takes along stays where it is; its receiver gets a stub. The value holds places in
# ``stubs``, the list beside it. What an isolate sends there is either one of its own, under an odd number that it never
# uses again, or a stub that it holds, under the even number that the node gave it. What an isolate gets is always even,
# and means something to this isolate only: the node keeps, for each, who holds what.


class StubCall(Message, frozen=True, tag=20):
    """Call a function. From an isolate: a stub that it holds (even). To an isolate: a function of its own (odd)."""

    call: int
    stub: int
    method: str  # of an ``RpcTarget``; empty: the function itself
    args: bytes  # value of [args, kwargs]
    traceparent: str = ""
    depth: int = 0
    scope: int = 0
    request_id: str = ""
    stubs: list[int] | None = None


class StreamOpen(Message, frozen=True, tag=22):
    """Send the stream behind this stub, once. Answered by ``HttpResponse`` with BODY frames, or ``CallFailed``."""

    call: int
    stub: int


class StubsDropped(Message, frozen=True, tag=21):
    """From an isolate: it lets go of these stubs. To an isolate: nobody holds these functions of its own any more."""

    stubs: list[int]


# -- runs -------------------------------------------------------------------------------------------------------------


class RunStart(Message, frozen=True, tag=30):
    """Run an instance from the top against its journal. ``run`` numbers this life of the instance in this node."""

    run: int
    workflow: str
    class_name: str
    instance_id: str
    params: bytes
    created_at: int
    journal: list[bytes]  # encoded entries, in order, without values that were replaced (see ``blobs``)
    blobs: dict[str, bytes]  # sha256 -> value, for the BlobRefs in the journal
    now: int  # the journal's clock at the start
    careful: bool = False  # ask before each attempt (``StepRequested`` -> ``AttemptGranted``)
    traceparent: str = ""
    preserve_non_retryable: bool = True  # show a NonRetryableError as it is, and not as Cloudflare once did
    steps_max: int = STEPS_PER_INSTANCE
    unrecorded: bool = False  # the run itself is still being written: nothing acts outside before ``RunRecorded``


class RunPast(Message, frozen=True, tag=45):
    """A part of a large journal, sent before the ``RunStart`` that has the rest: one frame could not hold it all."""

    run: int
    journal: list[bytes]
    blobs: dict[str, bytes]


class RunRecorded(Message, frozen=True, tag=46):
    """A run that was started while it was being written is on disk."""

    run: int


class AttemptGranted(Message, frozen=True, tag=35):
    """Begin this attempt now: the answer to ``StepRequested``, and what follows when a retry delay has passed."""

    run: int
    key: str
    attempt: int


class Deliver(Message, frozen=True, tag=43):
    """One delivery group, recorded. The program sees all of it before it goes on."""

    run: int
    completions: list[Completion]
    now: int
    number: int = 0  # of the group; 0: nested steps only


class RunStop(Message, frozen=True, tag=44):
    """Forget this run without a word: terminated, parked, or taken over. In-flight attempts are cancelled."""

    run: int
    reason: str


AnyMessage = (
    Boot
    | Ready
    | BootFailed
    | Drain
    | Ping
    | Pong
    | Log
    | HttpRequest
    | HttpResponse
    | RpcCall
    | RpcResult
    | CallFailed
    | CallEnded
    | CallCancelled
    | BodyEnd
    | Credit
    | WorkflowCall
    | StubCall
    | StreamOpen
    | StubsDropped
    | RunStart
    | RunPast
    | RunRecorded
    | AttemptGranted
    | Deliver
    | RunStop
    | RunReport
)

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode = msgspec.msgpack.Decoder(AnyMessage).decode
decode_batch = msgspec.msgpack.Decoder(list[AnyMessage]).decode
"""The content of a MESSAGE frame: what was sent in one go is one array, which costs less than a frame for each."""
