"""What a program waits for besides its steps: a durable sleep, and an event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stellwerk.core.times import parse_duration_ms
from stellwerk.core.workflow import inputs
from stellwerk.isolate.failures import WorkflowFatalError
from stellwerk.isolate.workflow.calls import SleepCall, WaitCall
from stellwerk.isolate.workflow.loop import StoppedError

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.run import Run


async def sleep_until_ms(run: Run, name: str, wake_at: int) -> None:
    """A durable sleep. The wake-up time of the first execution counts; a replay's is ignored."""
    _refuse_in_step(run, "step.sleep")
    key, count = run.replay.next_key("sleep", name)
    future: asyncio.Future[None] = run.loop.create_future()
    request = inputs.SleepRequested(run.number, key, name, count, wake_at)
    run.replay.wait(key, SleepCall(future), lambda: run.send(request))
    await future


async def wait_for_event(run: Run, name: str, event_type: str, timeout: object) -> Any:
    _refuse_in_step(run, "step.wait_for_event")
    timeout_ms = parse_duration_ms(timeout)
    key, count = run.replay.next_key("wait", name)
    future: asyncio.Future[Any] = run.loop.create_future()
    request = inputs.WaitRequested(run.number, key, name, count, event_type, timeout_ms)
    run.replay.wait(key, WaitCall(future, event_type), lambda: run.send(request))
    return await future


def _refuse_in_step(run: Run, what: str) -> None:
    if run.stopped:
        raise StoppedError
    if asyncio.get_running_loop() is not run.loop:
        raise WorkflowFatalError(f"{what} cannot be used inside the callback of a step; use it in run() itself.")
