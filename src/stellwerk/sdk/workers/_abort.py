"""``AbortController`` and ``AbortSignal``: giving up on a fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from workers._js import JsException, JsProxy

T = TypeVar("T")


class AbortSignal(JsProxy):
    def __init__(self) -> None:
        self.aborted = False
        self.reason: Any = None
        self._listeners: list[Callable[[], Any]] = []

    @staticmethod
    def abort(reason: Any = None) -> AbortSignal:
        signal = AbortSignal()
        signal._fire(reason)
        return signal

    @staticmethod
    def timeout(milliseconds: float) -> AbortSignal:
        """A signal that fires by itself."""
        signal = AbortSignal()
        error = JsException("The operation was aborted due to timeout", name="TimeoutError")
        asyncio.get_running_loop().call_later(milliseconds / 1000, signal._fire, error)
        return signal

    def addEventListener(self, kind: str, listener: Callable[..., Any], *_options: Any) -> None:
        if kind == "abort":
            self._listeners.append(lambda: listener(self))

    def throwIfAborted(self) -> None:
        if self.aborted:
            raise self._error()

    def _fire(self, reason: Any = None) -> None:
        if self.aborted:
            return
        self.aborted = True
        self.reason = JsException("The operation was aborted", name="AbortError") if reason is None else reason
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def _error(self) -> BaseException:
        return self.reason if isinstance(self.reason, BaseException) else JsException(str(self.reason))


class AbortController(JsProxy):
    def __init__(self) -> None:
        self.signal = AbortSignal()

    def abort(self, reason: Any = None) -> None:
        self.signal._fire(reason)


async def guarded(work: Awaitable[T], signal: AbortSignal) -> T:
    """The result of ``work``, or the signal's reason as an exception if that comes first and cancels ``work``."""
    task = asyncio.ensure_future(work)
    if signal.aborted:
        task.cancel()
    else:
        signal._listeners.append(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if signal.aborted:
            raise signal._error() from None
        raise
    finally:
        if task.cancel in signal._listeners:
            signal._listeners.remove(task.cancel)
