"""Timers of asyncio in workflow code, made durable: each is a sleep that the journal knows under a key of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from stellwerk.core.limits import SLEEP_MS_MAX
from stellwerk.core.workflow import inputs
from stellwerk.isolate.workflow.calls import TimerCall
from stellwerk.isolate.workflow.replay import Replay

_NAME = "asyncio"


class DurableTimers:
    """One run's: the ``Timers`` of its loop."""

    def __init__(self, run: int, replay: Replay, send: Callable[[Any], None]) -> None:
        self._run, self._replay, self._send = run, replay, send
        self._keys: dict[asyncio.TimerHandle, str] = {}

    def timer_started(self, handle: asyncio.TimerHandle, now_ms: int) -> None:
        key, count = self._replay.next_key("timer", _NAME)
        self._keys[handle] = key
        wake_at = round(min(handle.when() * 1000, now_ms + SLEEP_MS_MAX))
        request = inputs.SleepRequested(self._run, key, _NAME, count, wake_at, True)
        self._replay.wait(key, TimerCall(handle), lambda: None if handle.cancelled() else self._send(request))

    def timer_cancelled(self, handle: asyncio.TimerHandle) -> None:
        key = self._keys.pop(handle, None)
        if key is not None:
            self._replay.let_go(key, lambda: self._send(inputs.SleepReleased(self._run, key)))

    def timer_delivered(self, handle: asyncio.TimerHandle) -> None:
        self._keys.pop(handle, None)

    def forget(self) -> None:
        """The run has left. A handle leads back to the loop that these timers belong to."""
        self._keys.clear()
