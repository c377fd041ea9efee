"""What a program waits for: an object per call of ``step.do``, ``sleep``, ``wait_for_event``, and per asyncio timer.

Each knows what its completion means to the program (``complete``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from workers._js import JsDict

from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.steps import StepConfig
from stellwerk.isolate.failures import from_error_value
from stellwerk.wire import values

if TYPE_CHECKING:
    from stellwerk.isolate.bodies import BodyReader
    from stellwerk.isolate.workflow.run import Run

_decode = values.decoder(JsDict)
_NULL = values.encode(None)


class StepCall(msgspec.Struct, eq=False):
    """One call of a step. It is also the invocation that the step's callback belongs to (``isolate/invocation.py``):
    what it logs and calls carries these names, and making a second object for that would cost a tenth of a step."""

    run: Run
    key: str
    name: str
    count: int
    fn: Callable[..., Any]
    args: dict[str, Any]
    config: StepConfig
    delay: Callable[..., Any] | None
    future: asyncio.Future[Any]
    nested: bool
    wants_context: bool
    active: bool = False  # asked for, executing, or reported and not delivered yet; otherwise it waits to begin
    attempt: int = 0
    started_at: int = 0
    value: bytes | None = None  # the reported result, until it is delivered
    pending: set[asyncio.Task[Any]] | None = None  # what waitUntil keeps alive
    unread: list[BodyReader] | None = None  # bodies of answers that it got; they end with its attempt

    depth: ClassVar[int] = 0

    def complete(self, run: Run, completion: Completion) -> None:
        if self.active:
            run.active -= 1
        if self.future.done():
            return
        if completion.error is not None:
            self.future.set_exception(from_error_value(completion.error))
            return
        value = completion.value
        self.future.set_result(_decode((self.value or _NULL) if value is None else run.bytes_of(value)))

    def succeed(self, run: Run) -> None:
        """With the result that its attempt has reported."""
        run.active -= 1
        if not self.future.done():
            self.future.set_result(_decode(self.value or _NULL))

    # -- as an invocation ---------------------------------------------------------------------------------------------

    @property
    def invocation(self) -> str:
        return self.run.start_message.instance_id

    instance = invocation

    @property
    def step(self) -> str:
        return f"{self.name}-{self.count}"

    @property
    def traceparent(self) -> str:
        return self.run.start_message.traceparent

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def scope(self) -> int:
        return self.run.number

    @property
    def live(self) -> Run:
        return self.run


class SleepCall:
    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def complete(self, run: Run, completion: Completion) -> None:
        if not self.future.done():
            self.future.set_result(None)


class WaitCall:
    __slots__ = ("event_type", "future")

    def __init__(self, future: asyncio.Future[Any], event_type: str) -> None:
        self.future, self.event_type = future, event_type

    def complete(self, run: Run, completion: Completion) -> None:
        if self.future.done():
            return
        if completion.error is not None:
            self.future.set_exception(from_error_value(completion.error))
            return
        payload = None if completion.value is None else _decode(run.bytes_of(completion.value))
        moment = datetime.fromtimestamp(completion.at / 1000)
        self.future.set_result(JsDict(payload=payload, timestamp=moment, type=self.event_type))


class TimerCall:
    """A timer of asyncio in workflow code."""

    __slots__ = ("handle",)

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self.handle = handle

    def complete(self, run: Run, completion: Completion) -> None:
        run.timers.timer_delivered(self.handle)
        run.loop.run_timer(self.handle)


Call = StepCall | SleepCall | WaitCall | TimerCall
