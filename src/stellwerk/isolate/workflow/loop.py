"""The event loop that workflow code runs on: deterministic, without I/O, and able to tell when it has settled.

Completion order alone does not replay asyncio, so a run has a loop of its own inside the isolate's: callbacks run in
the order in which they were scheduled, until none is left. Then the program has *settled*: it waits for steps, sleeps
or events only, and the next delivery group may be handed over. ``asyncio.gather``, ``wait``, ``as_completed``,
``TaskGroup``, ``timeout`` and ``sleep`` work as they do elsewhere; the clock is the journal's (the time of the last
delivery), and a timer is a durable one. Everything else that touches the world is refused with the cure: a step.

Callbacks of steps do not run here but on the isolate's own loop, where all of asyncio is at hand.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol
from weakref import ref

import msgspec

from stellwerk.core.limits import SETTLE_CALLBACKS_MAX


class OutsideStepError(RuntimeError):
    """Workflow code asked for something that a replay could not repeat."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not possible in workflow code outside of a step, because a replay could not repeat it. "
            "Do it inside a step: @step.do(...)."
        )


class SpinningError(RuntimeError):
    """Workflow code never came to rest."""


class StoppedError(BaseException):
    """The run has left this isolate; nothing that its program still does counts."""


class Timers(Protocol):
    """Who makes timers of this loop durable."""

    def timer_started(self, handle: asyncio.TimerHandle, now_ms: int) -> None: ...

    def timer_cancelled(self, handle: asyncio.TimerHandle) -> None: ...


_set_running = asyncio._set_running_loop
_get_running = asyncio._get_running_loop


class _Handle(msgspec.Struct, eq=False):
    """A scheduled callback: what asyncio's own handle does, at a tenth of its price (each turn of a step makes one)."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: contextvars.Context | None
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class WorkflowLoop(asyncio.AbstractEventLoop):
    """One run's loop. ``settle`` runs it; nothing else does."""

    def __init__(
        self, home: asyncio.AbstractEventLoop, timers: Timers, on_unhandled: Callable[[dict[str, Any]], None]
    ) -> None:
        self.home = home  # the isolate's own loop
        self.ready: deque[_Handle] = deque()
        self._timers = timers
        self._on_unhandled = on_unhandled
        self._tasks: set[ref[asyncio.Task[Any]]] = set()
        self.now_ms = 0
        self.settling = False  # workflow code runs right now, and no other code of this thread
        self.closed = False

    def settle(self) -> None:
        """Runs callbacks until none is left. Raises ``SpinningError`` when that never happens."""
        ready = self.ready
        left = SETTLE_CALLBACKS_MAX
        self.settling = True
        _set_running(self)
        try:
            while ready:
                handle = ready.popleft()
                try:
                    if handle.is_cancelled:
                        pass
                    elif handle.context is None:
                        handle.callback(*handle.args)
                    else:
                        handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    pass  # raised by a task, which has ended with it: no reason to end the isolate
                except BaseException as error:
                    self.call_exception_handler({"message": "Exception in a callback", "exception": error})
                left -= 1
                if not left:
                    raise SpinningError(
                        f"The workflow ran {SETTLE_CALLBACKS_MAX} callbacks without waiting for a step, a sleep or an "
                        "event. Use `await step.sleep(...)` in loops that wait for something."
                    )
        finally:
            _set_running(self.home)
            self.settling = False

    def abandon(self) -> None:
        """Closes what has not ended, here and now. Left to the garbage collector, the ``finally`` of a program would
        run at any time, on whichever loop runs then: another run's."""
        self.closed = True
        unfinished = [task for known in self._tasks if (task := known()) is not None and not task.done()]
        if unfinished:
            outer = _get_running()
            _set_running(self)
            try:
                for task in unfinished:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with suppress(BaseException):
                        task.get_coro().close()
                    _wake_nobody(task)
            finally:
                _set_running(outer)
        self._tasks.clear()
        self.ready.clear()

    # -- what asyncio asks of a loop ----------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, context)
        self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.closed:
            self._timers.timer_started(handle, self.now_ms)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not self.closed:
            self._timers.timer_cancelled(handle)

    def run_timer(self, handle: asyncio.TimerHandle) -> None:
        """The timer has been delivered."""
        self.ready.append(_Handle(handle._run, (), None))

    def time(self) -> float:
        return self.now_ms / 1000

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_: object,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)
        self._tasks.add(ref(task, self._tasks.discard))
        return task

    get_debug = staticmethod(bool)  # False, told without a call into Python: each future asks

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.closed

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.closed:
            self._on_unhandled(context)

    default_exception_handler = call_exception_handler

    # -- what a replay could not repeat -------------------------------------------------------------------------------

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        raise OutsideStepError("Work in another thread")

    def run_in_executor(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        raise OutsideStepError("Work in another thread")


def _wake_nobody(task: asyncio.Task[Any]) -> None:
    """A task that never ends and what it waits for know each other for good, and a ``gather`` knows all its tasks."""
    for future in (task, task._fut_waiter):  # type: ignore[attr-defined]
        for callback, _ in getattr(future, "_callbacks", None) or ():
            future.remove_done_callback(callback)


def _refused(what: str) -> Callable[..., Any]:
    def method(self: WorkflowLoop, *args: Any, **kwargs: Any) -> Any:
        raise OutsideStepError(what)

    return method


for _what, _names in {
    "A network connection": (
        "create_connection create_server create_datagram_endpoint create_unix_connection create_unix_server "
        "sock_connect sock_recv sock_recv_into sock_sendall sock_accept sock_sendfile start_tls sendfile "
        "connect_accepted_socket add_reader add_writer getaddrinfo getnameinfo"
    ),
    "A child process": "subprocess_shell subprocess_exec connect_read_pipe connect_write_pipe",
    "A signal handler": "add_signal_handler remove_signal_handler",
    "Running or stopping the loop": "run_forever run_until_complete stop close",
}.items():
    for _name in _names.split():
        setattr(WorkflowLoop, _name, _refused(_what))
