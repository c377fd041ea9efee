"""One run in the isolate: the program, what it waits for, its replay, and what is reported to the node.

Life of a run. ``start`` executes ``run(event, step)`` on a loop of its own until it settles, hands over the recorded
delivery groups one by one, and then lets begin what the journal does not know yet. From there on the node speaks:
``deliver`` brings a group of completions that are on disk, ``grant`` allows an attempt. When nothing executes and the
program waits for timers or events only, the node is told (``RunSettled``) and may take the run out of memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any

from workers._js import JsDict

from stellwerk.core.limits import SLEEP_MS_MAX, STEP_OUTPUT_BYTES_MAX
from stellwerk.core.times import parse_duration_ms
from stellwerk.core.workflow import entries, inputs
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.replay import ReplayCursor, divergence_text
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, step_key, step_limit_text
from stellwerk.isolate.failures import (
    WorkflowFatalError,
    WorkflowInternalError,
    from_error_value,
    is_non_retryable,
    to_error_value,
)
from stellwerk.isolate.logs import NOBODY, current
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.calls import Call, SleepCall, StepCall, StepCallState, TimerCall, WaitCall
from stellwerk.isolate.workflow.loop import OutsideStepError, SpinningError, WorkflowLoop
from stellwerk.wire import isolate as messages
from stellwerk.wire import values

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.step import StepFunction

HUNG = (
    "The Workers runtime canceled this request because it detected that your Worker's code had hung and would never "
    "generate a response. The workflow waits for something that is no step, no sleep and no event."
)


UNHANDLED_NON_RETRYABLE = (  # Cloudflare's, until the date of workflows_preserve_non_retryable_error_message
    "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError and it was not handled"
)

_running_loop = asyncio._get_running_loop


def _place_of_nested(name: str) -> str:
    """Where a step inside of a step is counted: within the attempt that calls it. Were it counted with all others of
    its name, a replay would count differently, because it does not execute the outer steps that have ended."""
    outer = current.get(NOBODY)
    return f"{outer.key[3:]}#{outer.attempt}\t{name}" if isinstance(outer, StepCall) else name


class StoppedError(BaseException):
    """The run has left this isolate; nothing that its program still does counts."""


class Run:
    """A live run of one instance."""

    def __init__(
        self,
        start: messages.RunStart,
        *,
        attempts: Attempts,
        send: Callable[[Any], None],
        on_end: Callable[[Run], None],
        report_unhandled: Callable[[dict[str, Any]], None],
        steps_max: int,
    ) -> None:
        self.start_message = start
        self.number = start.run
        self.send = send
        self.real_loop = asyncio.get_running_loop()
        self.loop = WorkflowLoop(self, report_unhandled)  # type: ignore[abstract]
        self.stopped = False
        self.replaying = True
        self.active = 0  # step calls that execute, or wait for an answer of the node that must come soon
        self.bridged = 0  # calls of workflow code to the outside that are under way
        self._attempts, self._on_end = attempts, on_end
        self._steps_max = steps_max
        self._pending: dict[str, Call] = {}
        self._counts: dict[str | tuple[str, str], int] = {}  # steps by name, everything else by kind and name
        self._granted: dict[str, int] = {}
        self._deferred: list[Callable[[], None]] = []
        self._backlog: deque[messages.Deliver] = deque()
        self._heard = 0  # the last delivery group that the program has seen
        self._settled = False
        self._unburdened = False  # live, and the journal holds nothing that a step would have to be looked up in
        self._started_steps = 0
        self._timers: dict[asyncio.TimerHandle, str] = {}
        self._let_go: set[str] = set()  # timers that the program cancelled; one may have fired at the same moment
        blobs = start.blobs
        self._blobs = blobs
        self.cursor = cursor = ReplayCursor(entries.decode(entry) for entry in start.journal)
        first_life = not (cursor.groups or cursor.attempts or cursor.started)
        self.loop.now_ms = start.now if first_life else start.created_at
        self._task: asyncio.Task[Any] | None = None

    # -- the node speaks ----------------------------------------------------------------------------------------------

    def start(self, program: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Runs the program from the top."""
        self._task = self.loop.create_task(program())
        self._task.add_done_callback(self._program_ended)
        self.go_on()

    def deliver(self, message: messages.Deliver) -> None:
        """A recorded delivery group."""
        if self.replaying:
            self._backlog.append(message)
            return
        self._hand_over(message.completions, message.now, message.number)
        self.go_on()

    def grant(self, message: messages.AttemptGranted) -> None:
        call = self._pending.get(message.key)
        if not isinstance(call, StepCall) or self.replaying:
            self._granted[message.key] = message.attempt
            return
        self._begin(call, message.attempt)

    def stop(self) -> None:
        """Forgets the run. Its coroutine is closed without a word; attempts under way are cancelled."""
        self.stopped = True
        self._attempts.forget(self)
        self._pending.clear()
        self.loop.abandon()
        self._on_end(self)

    def go_on(self) -> None:
        """Lets the program run until it has settled; then replay goes on, or the node is told what has become."""
        if self.stopped:
            return
        try:
            self.loop.settle()
            while not self._task_done() and (self._replay_group() if self.replaying else self._from_backlog()):
                self.loop.settle()
        except SpinningError as error:
            self.send(inputs.RunFailed(self.number, to_error_value(error)))
            self.stop()
            return
        self.look_settled()

    # -- replay -------------------------------------------------------------------------------------------------------

    def _replay_group(self) -> bool:
        """Hands over the next recorded group; when none is left, live operation begins. False: wait for the world."""
        groups = self.cursor.groups
        if not groups:
            return self._go_live()
        group = groups[0]
        for completion in group.completions:
            if completion.key not in self._pending and completion.key not in self._let_go:
                if not self.bridged:
                    self._diverge(divergence_text(completion.key, self._pending))
                return False
        groups.popleft()
        self._hand_over(group.completions, group.at, group.number)
        return True

    def _go_live(self) -> bool:
        if not self.bridged:
            for key in self.cursor.begun():
                if key not in self._pending and key not in self._let_go:
                    self._diverge(divergence_text(key, self._pending, "began"))
                    return False
        self.replaying = False
        self.loop.now_ms = max(self.loop.now_ms, self.start_message.now)
        deferred, self._deferred = self._deferred, []
        for begin in deferred:
            begin()
        cursor = self.cursor
        self._unburdened = not (self.start_message.careful or cursor.results or cursor.attempts)
        return True

    def _from_backlog(self) -> bool:
        """Hands over the next group that came during the replay. False: there is none."""
        if not self._backlog:
            return False
        message = self._backlog.popleft()
        self._hand_over(message.completions, message.now, message.number)
        return True

    def _diverge(self, reason: str) -> None:
        self.send(inputs.RunDiverged(self.number, reason))
        self.stop()

    def _live(self, begin: Callable[[], None]) -> None:
        """Does it now, or when the replay is over: before that nothing may leave the isolate."""
        if self.replaying:
            self._deferred.append(begin)
        else:
            begin()

    # -- completions --------------------------------------------------------------------------------------------------

    def _hand_over(self, completions: list[Completion], at_ms: int, number: int) -> None:
        self.loop.now_ms = at_ms
        if number:
            self._heard = number
        self._settled = False
        for completion in completions:
            call = self._pending.pop(completion.key, None)
            if call is None:
                continue
            if type(call) is StepCall and call.state is StepCallState.ACTIVE:
                self.active -= 1
            if isinstance(call, TimerCall):
                self._timers.pop(call.handle, None)
                self.loop.run_timer(call.handle)
            elif not call.future.done():
                self._resolve(call, completion)

    def _resolve(self, call: StepCall | SleepCall | WaitCall, completion: Completion) -> None:
        if completion.error is not None:
            call.future.set_exception(from_error_value(completion.error))
            return
        value = completion.value
        if type(call) is StepCall:
            data = call.value if value is None else self._bytes(value)
            call.future.set_result(values.decode(data or b"\xc0", mapping=JsDict))
        elif isinstance(call, WaitCall):
            payload = None if value is None else values.decode(self._bytes(value), mapping=JsDict)
            moment = datetime.fromtimestamp(completion.at / 1000)
            call.future.set_result(JsDict(payload=payload, timestamp=moment, type=call.event_type))
        else:
            call.future.set_result(None)

    def _bytes(self, value: entries.Value) -> bytes:
        return value if isinstance(value, bytes) else self._blobs[value.sha256]

    def _task_done(self) -> bool:
        return self._task is not None and self._task.done()

    def _program_ended(self, task: asyncio.Task[Any]) -> None:
        if self.stopped:
            return
        for group in self.cursor.groups:  # of steps that nobody awaited, or the program has taken another path
            for completion in group.completions:
                if completion.key not in self._pending and completion.key not in self._let_go:
                    self._diverge(divergence_text(completion.key, ["nothing: it has ended"]))
                    return
        try:
            report: Any = inputs.RunReturned(self.number, _encode_output(task.result()))
        except BaseException as error:
            value = to_error_value(error)
            if is_non_retryable(error) and not self.start_message.preserve_non_retryable:
                value = entries.ErrorValue(WorkflowFatalError.__name__, UNHANDLED_NON_RETRYABLE, value.stack)
            report = inputs.RunFailed(self.number, value)
        self.send(report)
        self.stop()

    def look_settled(self) -> None:
        """Tells the node, once, when nothing executes and everything waits for a timer or an event."""
        if self.stopped or self.replaying or self.active or self.bridged or self._settled or self._task_done():
            return
        if not self._pending:
            error = entries.ErrorValue("Error", HUNG)
            self.send(inputs.RunFailed(self.number, error))
            self.stop()
            return
        self._settled = True
        self.send(inputs.RunSettled(self.number, self._heard))

    # -- the program asks ---------------------------------------------------------------------------------------------

    def next_key(self, kind: str, name: str) -> tuple[str, int]:
        """The identity of the next step of this kind and name: counts go up in the order of calls."""
        counts = self._counts
        count = counts.get((kind, name), 0) + 1
        counts[kind, name] = count
        return step_key(kind, name, count), count

    def perform(self, step: StepFunction, args: dict[str, Any], wants_context: bool) -> asyncio.Future[Any]:
        """A step: its recorded result, or that of an attempt, which is on disk before the program sees it."""
        if self.stopped:
            raise StoppedError
        name = place = step.name
        loop: Any = _running_loop()
        nested = loop is not self.loop
        if nested:
            place = _place_of_nested(name)
        counts = self._counts
        count = counts.get(place, 0) + 1
        counts[place] = count
        key = f"do:{place}-{count}"
        future: asyncio.Future[Any] = asyncio.Future(loop=loop)
        call = StepCall(self, key, name, count, step.fn, args, step.config, step.delay, future, nested, wants_context)
        if not self._unburdened and self._remember(call):
            return future
        self._started_steps += 1
        if self._started_steps > self._steps_max:
            raise WorkflowFatalError(step_limit_text(self._steps_max))
        self._pending[key] = call
        self._settled = False
        if self._unburdened:
            self.active += 1
            call.state = StepCallState.ACTIVE
            self._attempts.begin(call, 1)
        elif key not in self.cursor.results:
            self._live(lambda: self._first_attempt(call))
        return future

    def _remember(self, call: StepCall) -> bool:
        """What the journal knows of the step goes into the call. True: it is answered."""
        recorded = self.cursor.attempts.get(call.key)
        if recorded is not None:  # what was resolved at the first execution wins over later changes
            call.config = recorded.config or DEFAULT_CONFIG
        result = self.cursor.results.get(call.key)
        if result is None or not (call.nested or not self.replaying):
            return False
        self._resolve(call, result)
        return True

    def _first_attempt(self, call: StepCall) -> None:
        recorded = self.cursor.attempts.get(call.key)
        granted = self._granted.pop(call.key, None)
        if granted is not None:
            self._begin(call, granted)
        elif recorded is not None and recorded.retry_pending:
            return  # the node counts the delay and grants the attempt
        elif self.start_message.careful or recorded is not None:
            self.active += 1
            call.state = StepCallState.ACTIVE
            attempt = 1 if recorded is None else recorded.failures + 1
            self.send(
                inputs.StepRequested(self.number, call.key, call.name, call.count, attempt, call.config, call.nested)
            )
        else:
            self._begin(call, 1)

    def _begin(self, call: StepCall, attempt: int) -> None:
        if call.state is StepCallState.IDLE:
            self.active += 1
            call.state = StepCallState.ACTIVE
        self._settled = False
        self._attempts.begin(call, attempt)

    async def sleep_until_ms(self, name: str, wake_at: int) -> None:
        """A durable sleep. The wake-up time of the first execution counts; a replay's is ignored."""
        self.refuse_in_step("step.sleep")
        key, count = self.next_key("sleep", name)
        future: asyncio.Future[None] = self.loop.create_future()
        self._pending[key] = SleepCall(future)
        self._settled = False
        if key not in self.cursor.started:
            request = inputs.SleepRequested(self.number, key, name, count, wake_at)
            self._live(lambda: self.send(request))
        await future

    def slept_before(self, name: str) -> bool:
        """Whether the next sleep of this name has begun in an earlier life of the run."""
        return step_key("sleep", name, self._counts.get(("sleep", name), 0) + 1) in self.cursor.started

    async def wait_for_event(self, name: str, event_type: str, timeout: object) -> Any:
        self.refuse_in_step("step.wait_for_event")
        timeout_ms = parse_duration_ms(timeout)
        key, count = self.next_key("wait", name)
        future: asyncio.Future[Any] = self.loop.create_future()
        self._pending[key] = WaitCall(future, event_type)
        self._settled = False
        if key not in self.cursor.started:
            request = inputs.WaitRequested(self.number, key, name, count, event_type, timeout_ms)
            self._live(lambda: self.send(request))
        return await future

    # -- timers of asyncio (loop.Timers) ------------------------------------------------------------------------------

    def timer_started(self, handle: asyncio.TimerHandle) -> None:
        if self.stopped:
            return
        key, count = self.next_key("timer", "asyncio")
        self._pending[key] = TimerCall(handle)
        self._timers[handle] = key
        self._settled = False
        if key not in self.cursor.started:
            wake_at = round(min(handle.when(), self.loop.time() + SLEEP_MS_MAX / 1000) * 1000)
            request = inputs.SleepRequested(self.number, key, "asyncio", count, wake_at, True)
            self._live(lambda: None if handle.cancelled() else self.send(request))

    def timer_cancelled(self, handle: asyncio.TimerHandle) -> None:
        key = self._timers.pop(handle, None)
        if key is None or self.stopped:
            return
        if self.replaying:
            self._let_go.add(key)
        self._pending.pop(key, None)
        if key in self.cursor.cancelled:
            return
        if key in self.cursor.started or not self.replaying:
            self._live(lambda: self.send(inputs.SleepReleased(self.number, key)))

    # -- the outside world from workflow code -------------------------------------------------------------------------

    async def bridge(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Awaits something of the isolate's loop from workflow code. It is not recorded: a replay does it again."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self.bridged += 1

        def arrived(task: asyncio.Task[Any]) -> None:
            self.bridged -= 1
            if self.stopped or future.done():
                return
            if task.cancelled():
                future.cancel()
            elif (error := task.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())
            self.go_on()

        self.real_loop.create_task(coroutine).add_done_callback(arrived)
        return await future

    def refuse_in_step(self, what: str) -> None:
        if self.stopped:
            raise StoppedError
        if asyncio.get_running_loop() is not self.loop:
            raise WorkflowFatalError(f"{what} cannot be used inside the callback of a step; use it in run() itself.")


def _encode_output(result: Any) -> bytes:
    """What ``run()`` returned, under the same limit as the result of a step."""
    value = values.encode(result)
    if len(value) > STEP_OUTPUT_BYTES_MAX:
        raise WorkflowInternalError("The output of the instance is too large. Maximum allowed size is 1MiB.")
    return value


__all__ = ["OutsideStepError", "Run", "StoppedError"]
