"""Attempts: executing a step's callback on the isolate's own loop, within its time-out, and reporting how it ended.

A callback that overruns its time-out is not cancelled, as on Cloudflare: the attempt is reported as failed, and its
late result finds that another attempt is current. One sweep looks after all attempts of the process, so that a step
of a few microseconds pays for no timer; it also announces attempts that last, which lets an operator see them.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from workers._js import JsDict

from stellwerk.core.limits import DELAY_FUNCTION_TIMEOUT_MS, STEP_OUTPUT_BYTES_MAX
from stellwerk.core.times import parse_duration_ms
from stellwerk.core.workflow import inputs
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, may_retry
from stellwerk.isolate.bodies import close_unread
from stellwerk.isolate.failures import WorkflowTimeoutError, is_non_retryable, to_error_value
from stellwerk.isolate.logs import current
from stellwerk.isolate.workflow.calls import StepCall
from stellwerk.wire import values

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.run import Run

ANNOUNCE_AFTER_MS = 20
SWEEP_S = 0.02

_Task = asyncio.Task
_time_ns = time.time_ns


def now_ms() -> int:
    return _time_ns() // 1_000_000


class Attempts:
    """All attempts that execute in this isolate."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._executing: dict[StepCall, asyncio.Task[None]] = {}
        self._announced: dict[StepCall, int] = {}  # to the node, because they last; with their time-outs
        self._unwatched: set[asyncio.Task[None]] = set()  # of attempts that are over; asyncio keeps no task alive
        self._ahead: list[tuple[StepCall, inputs.StepDone]] = []  # results that their programs get ahead of the record
        self._sweep: asyncio.TimerHandle | None = None

    def begin(self, call: StepCall, attempt: int) -> None:
        """Starts the attempt as a task of its own."""
        if not call.active:
            call.active = True
            call.run.active += 1
        call.attempt = attempt
        call.started_at = _time_ns() // 1_000_000
        # Not by the loop's create_task, which makes up a name first: this one tells what the task is.
        self._executing[call] = _Task(self._execute(call, attempt), loop=self._loop, name=call.key)
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._look_around)

    async def _execute(self, call: StepCall, attempt: int) -> None:
        current.set(call)  # type: ignore[arg-type]
        try:
            fn, args = call.fn, call.args
            if call.wants_context:
                args = dict(args, ctx=step_context(call, attempt))
            result = fn(**args) if args else fn()
            if type(result) is CoroutineType or inspect.isawaitable(result):
                result = await result
            value = _encode_result(call, result)
        except BaseException as raised:
            if self._is_over(call, attempt):
                await self._failed(call, raised)
            return
        if self._is_over(call, attempt):
            call.value = value
            run = call.run
            goes_ahead = run.waits_only_for(call)
            report = inputs.StepDone(
                run.number, call.key, call.name, call.count, attempt, call.started_at, value,
                None if call.config is DEFAULT_CONFIG else call.config, call.nested,
                max(0, _time_ns() // 1_000_000 - call.started_at) if goes_ahead else -1,
            )  # fmt: skip
            if goes_ahead:
                self._go_ahead(call, report)
            else:
                run.send(report)

    def _go_ahead(self, call: StepCall, report: inputs.StepDone) -> None:
        """At the end of this turn, for from here the program's tasks would run inside of the attempt's."""
        if not self._ahead:
            self._loop.call_soon(self._end_of_turn)
        self._ahead.append((call, report))

    def _end_of_turn(self) -> None:
        ahead, self._ahead = self._ahead, []
        for call, report in ahead:
            call.run.go_ahead(call, report)

    def _is_over(self, call: StepCall, attempt: int) -> bool:
        """Books the end of an attempt. False: it has timed out, or the run has left: nobody wants its result."""
        if call.attempt != attempt or self._executing.pop(call, None) is None:
            return False
        if self._announced:
            self._announced.pop(call, None)
        if call.unread is not None and call.pending is None:
            close_unread(call.unread)
        return not call.run.stopped

    async def _failed(self, call: StepCall, error: BaseException) -> None:
        retryable = not is_non_retryable(error)
        fatal = isinstance(error, NotSerialisableResult)
        value = error.as_value() if isinstance(error, NotSerialisableResult) else to_error_value(error)
        delay_ms: int | None = None
        if call.delay is not None and retryable and not fatal and may_retry(call.config, call.attempt):
            delay_ms, failure = await ask_delay(call, error)
            if failure is not None:
                value, retryable = failure, False
        self._report_failure(call, value, retryable=retryable and not fatal, delay_ms=delay_ms, fatal=fatal)

    def _report_failure(
        self, call: StepCall, error: ErrorValue, *, retryable: bool, delay_ms: int | None, fatal: bool
    ) -> None:
        run = call.run
        if run.stopped:
            return
        if retryable and may_retry(call.config, call.attempt):
            call.active = False
            run.active -= 1
        run.send(
            inputs.StepFailed(
                run.number, call.key, call.name, call.count, call.attempt, call.started_at, error, retryable, delay_ms,
                None if call.config is DEFAULT_CONFIG else call.config, call.nested, fatal,
            )
        )  # fmt: skip
        run.look_settled()

    def forget(self, run: Run) -> None:
        """The run leaves this isolate: its attempts are cancelled and report nothing."""
        if not run.active:  # as nearly always: what executes is active, and the others' attempts need no look
            return
        for call in [call for call in self._executing if call.run is run]:
            self._announced.pop(call, None)
            self._executing.pop(call).cancel()

    def _look_around(self) -> None:
        self._sweep = None
        now = now_ms()
        for call, task in list(self._executing.items()):
            lasted_ms = now - call.started_at
            if lasted_ms < ANNOUNCE_AFTER_MS:
                continue
            run = call.run
            timeout_ms = self._announced.get(call)
            if timeout_ms is None:
                timeout_ms = self._announced[call] = call.config.timeout_ms
                run.send(
                    inputs.StepStarted(
                        run.number, call.key, call.name, call.count, call.attempt, call.started_at,
                        None if call.config is DEFAULT_CONFIG else call.config, call.nested,
                    )
                )  # fmt: skip
            if lasted_ms >= timeout_ms and self._is_over(call, call.attempt):
                self._let_go_on(task)
                text = f"Execution timed out after {timeout_ms}ms"
                if call.delay is None:
                    error = ErrorValue("WorkflowTimeoutError", text)
                    self._report_failure(call, error, retryable=True, delay_ms=None, fatal=False)
                else:
                    self._let_go_on(self._loop.create_task(self._failed(call, WorkflowTimeoutError(text))))
        if self._executing:
            self._sweep = self._loop.call_later(SWEEP_S, self._look_around)

    def _let_go_on(self, task: asyncio.Task[None]) -> None:
        self._unwatched.add(task)
        task.add_done_callback(self._unwatched.discard)


class NotSerialisableResult(Exception):
    """A step returned what cannot be kept. Ends the run at once, as on Cloudflare: no catch, no retry."""

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(
            f'The execution of the Workflow instance was terminated, as the step "{name}" returned a value '
            "which is not serialisable"
        )
        self.cause = cause

    def as_value(self) -> ErrorValue:
        return ErrorValue("WorkflowFatalError", str(self), str(self.cause))


class OutputTooLargeError(Exception):
    """A step's result is larger than 1 MiB."""


OutputTooLargeError.__name__ = "WorkflowInternalError"


def _encode_result(call: StepCall, result: Any) -> bytes:
    try:
        value = values.encode(result)
    except Exception as error:
        raise NotSerialisableResult(call.name, error) from error
    if len(value) > STEP_OUTPUT_BYTES_MAX:
        raise OutputTooLargeError(f"Step {call.name}-{call.count} output is too large. Maximum allowed size is 1MiB.")
    return value


def step_context(call: StepCall, attempt: int) -> Any:
    """The ``ctx`` of a callback: a fresh value each time, so that nothing done to it reaches the engine."""
    return _js({
        "step": {"name": call.name, "count": call.count},
        "attempt": attempt,
        "config": call.config.public(),
    })  # fmt: skip


def _js(value: Any) -> Any:
    return JsDict({key: _js(item) for key, item in value.items()}) if isinstance(value, dict) else value


async def ask_delay(call: StepCall, error: BaseException) -> tuple[int | None, ErrorValue | None]:
    """What the user's delay function answers, or the error that ends the step because it did not answer well."""
    assert call.delay is not None
    label = f'The delay function for step "{call.name}-{call.count}"'
    try:
        answer = _call_delay(call.delay, {"ctx": step_context(call, call.attempt), "error": error})
        if inspect.isawaitable(answer):
            answer = await asyncio.wait_for(answer, DELAY_FUNCTION_TIMEOUT_MS / 1000)
    except TimeoutError:
        text = f"{label} did not return within {DELAY_FUNCTION_TIMEOUT_MS // 1000} seconds"
        return None, ErrorValue("NonRetryableDelayError", text)
    except Exception as raised:
        return None, ErrorValue("NonRetryableDelayError", f"{label} threw an error: {raised}")
    try:
        return parse_duration_ms(answer), None
    except ValueError:
        text = (
            f'{label} returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")'
        )
        return None, ErrorValue("NonRetryableDelayError", text)


def _call_delay(function: Callable[..., Any], argument: dict[str, Any]) -> Any:
    return function(JsDict(argument))
