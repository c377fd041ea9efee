"""The way from workflow code to the isolate's own loop, where the outside world is: calls, and bodies of answers.

What comes over it is not recorded: a replay asks for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.run import Run


async def bridge(run: Run, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Awaits something of the isolate's loop from workflow code."""
    await _recorded(run, coroutine)
    future: asyncio.Future[Any] = run.loop.create_future()
    run.bridged += 1

    def arrived(task: asyncio.Task[Any]) -> None:
        run.bridged -= 1
        if run.stopped or future.done():
            return
        if task.cancelled():
            future.cancel()
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())
        run.go_on()

    run.loop.home.create_task(coroutine).add_done_callback(arrived)
    return await future


async def _recorded(run: Run, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Nobody outside may hear of a result that is not on disk."""
    waiting: asyncio.Future[None] = run.loop.create_future()
    run.ahead.when_recorded(lambda: None if waiting.done() else waiting.set_result(None))
    if waiting.done():
        return
    try:
        await waiting
    except BaseException:
        coroutine.close()
        raise


class BridgedBody:
    """A body that comes in pieces, read by workflow code: each piece is carried over from the isolate's loop."""

    def __init__(self, run: Run, body: AsyncIterator[bytes]) -> None:
        self._run, self._body = run, body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        async def piece() -> bytes | None:
            return await anext(self._body, None)

        found: bytes | None = await bridge(self._run, piece())
        if found is None:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        close = getattr(self._body, "aclose", None)
        if close is not None:
            await bridge(self._run, close())
