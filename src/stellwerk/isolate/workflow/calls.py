"""What a program waits for: an object per call of ``step.do``, ``sleep``, ``wait_for_event``, and per asyncio timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any

from stellwerk.core.workflow.steps import StepConfig


class StepCallState(Enum):
    IDLE = 0  # waits for the replay to end, or for a retry delay that the node counts
    ACTIVE = 1  # asked for, executing, or reported and not delivered yet


class StepCall:
    """One call of a step."""

    __slots__ = (
        "args", "attempt", "config", "count", "delay", "fn", "future", "key", "name", "nested", "started_at", "state",
        "task", "value", "wants_context",
    )  # fmt: skip

    def __init__(
        self,
        *,
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
        self.key, self.name, self.count = key, name, count
        self.fn, self.args, self.wants_context = fn, args, wants_context
        self.config, self.delay = config, delay
        self.future, self.nested = future, nested
        self.state = StepCallState.IDLE
        self.attempt = 0
        self.started_at = 0
        self.task: asyncio.Task[None] | None = None
        self.value: bytes | None = None  # the reported result, until it is delivered


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
