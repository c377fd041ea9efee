"""What a program waits for: an object per call of ``step.do``, ``sleep``, ``wait_for_event``, and per asyncio timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from stellwerk.core.workflow.steps import StepConfig

if TYPE_CHECKING:
    from stellwerk.isolate.bodies import BodyReader
    from stellwerk.isolate.workflow.run import Run


class StepCallState(Enum):
    IDLE = 0  # waits for the replay to end, or for a retry delay that the node counts
    ACTIVE = 1  # asked for, executing, or reported and not delivered yet


class StepCall:
    """One call of a step. It is also the invocation that the step's callback belongs to (``isolate/invocation.py``):
    what it logs and calls carries these names, and making a second object for that would cost a tenth of a step."""

    __slots__ = (
        "args", "attempt", "config", "count", "delay", "fn", "future", "key", "name", "nested", "pending", "run",
        "started_at", "state", "unread", "value", "wants_context",
    )  # fmt: skip

    depth = 0

    def __init__(
        self,
        run: Run,
        key: str,
        name: str,
        count: int,
        fn: Callable[..., Any],
        args: dict[str, Any],
        config: StepConfig,
        delay: Callable[..., Any] | None,
        future: asyncio.Future[Any],
        nested: bool,
        wants_context: bool,
    ) -> None:
        self.run, self.key, self.name, self.count = run, key, name, count
        self.fn, self.args, self.wants_context = fn, args, wants_context
        self.config, self.delay = config, delay
        self.future, self.nested = future, nested
        self.state = StepCallState.IDLE
        self.attempt = self.started_at = 0
        self.value: bytes | None = None  # the reported result, until it is delivered
        self.pending: set[asyncio.Task[Any]] | None = None  # what waitUntil keeps alive
        self.unread: list[BodyReader] | None = None  # bodies of answers that it got; they end with its attempt

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


class WaitCall:
    __slots__ = ("event_type", "future")

    def __init__(self, future: asyncio.Future[Any], event_type: str) -> None:
        self.future, self.event_type = future, event_type


class TimerCall:
    """A timer of asyncio in workflow code."""

    __slots__ = ("handle",)

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self.handle = handle


Call = StepCall | SleepCall | WaitCall | TimerCall
