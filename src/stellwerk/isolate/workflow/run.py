"""One run in the isolate: the program, what it waits for, its replay, and what is reported to the node.

Life of a run. ``start`` executes ``run(event, step)`` on a loop of its own until it settles, hands over the recorded
delivery groups one by one, and then lets begin what the journal does not know yet. From there on the node speaks:
``recorded`` says that a run which was started while it was being written is on disk, ``deliver`` brings a group of
completions that are, ``grant`` allows an attempt. A program that waits for one step only goes on before its result is
on disk (``ahead.py``). When nothing executes and the program waits for timers or events only, the node is told
(``RunSettled``) and may take the run out of memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from stellwerk.core.limits import STEP_OUTPUT_BYTES_MAX
from stellwerk.core.workflow import entries, inputs
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.replay import Group
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, step_limit_text
from stellwerk.isolate.failures import (
    WorkflowFatalError,
    WorkflowInternalError,
    is_non_retryable,
    to_error_value,
)
from stellwerk.isolate.logs import NOBODY, current
from stellwerk.isolate.workflow.ahead import CREATION, Ahead
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.calls import StepCall
from stellwerk.isolate.workflow.loop import SpinningError, StoppedError, WorkflowLoop
from stellwerk.isolate.workflow.replay import DivergenceError, Replay
from stellwerk.isolate.workflow.timers import DurableTimers
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

_Future = asyncio.Future


def _place_of_nested(name: str) -> str:
    """Where a step inside of a step is counted: within the attempt that calls it. Were it counted with all others of
    its name, a replay would count differently, because it does not execute the outer steps that have ended."""
    outer = current.get(NOBODY)
    return f"{outer.key[3:]}#{outer.attempt}\t{name}" if isinstance(outer, StepCall) else name


class Run:
    """A live run of one instance."""

    def __init__(
        self,
        start: messages.RunStart,
        *,
        attempts: Attempts,
        send: Callable[[Any], None],
        keep_together: Callable[[], None],
        on_end: Callable[[Run], None],
        report_unhandled: Callable[[dict[str, Any]], None],
        steps_max: int,
    ) -> None:
        self.start_message = start
        self.number = start.run
        self.send = send
        self.replay = replay = Replay(start.journal)
        self.timers = DurableTimers(start.run, replay, send)
        self.loop = WorkflowLoop(asyncio.get_running_loop(), self.timers, report_unhandled)  # type: ignore[abstract]
        self.loop.now_ms = start.now if replay.first_life else start.created_at
        self.stopped = False
        self.active = 0  # step calls that execute, or wait for an answer of the node that must come soon
        self.bridged = 0  # calls of workflow code to the outside that are under way
        self._attempts, self._on_end, self._keep_together = attempts, on_end, keep_together
        self._steps_max = steps_max
        self._started_steps = 0
        self._granted: dict[str, int] = {}
        self._heard = 0  # the last delivery group that the program has seen
        self.ahead = Ahead(CREATION if start.unrecorded else "")
        self._unburdened = False  # live, and the journal holds nothing that a step would have to be looked up in
        self._task: asyncio.Task[Any] | None = None
        self.declared: dict[str, StepFunction] = {}  # by name, for those that depend on them

    # -- the node speaks ----------------------------------------------------------------------------------------------

    def start(self, program: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Runs the program from the top."""
        self._task = self.loop.create_task(program())
        self._task.add_done_callback(self._program_ended)
        self.go_on()

    def recorded(self) -> None:
        """The run itself is on disk; it was not when it was started."""
        self.ahead.recorded(self._attempts.begin)
        if not self.stopped and (not self.active or self.loop.ready):
            self.go_on()

    def deliver(self, message: messages.Deliver) -> None:
        """A recorded delivery group."""
        completions = message.completions
        if not self.replay.over:
            self.replay.hold_back(Group(message.number, message.now, completions))
            return
        if self.ahead.key and completions[0].key == self.ahead.key:
            self._heard = message.number
            self.ahead.recorded(self._attempts.begin)
            completions = completions[1:]
            if self.stopped or (self.active and not completions and not self.loop.ready):
                return  # as nearly always: the next attempt has begun
        if completions:
            self._hand_over(completions, message.now, message.number)
        self.go_on()

    def grant(self, message: messages.AttemptGranted) -> None:
        call = self.replay.asked.get(message.key)
        if isinstance(call, StepCall) and self.replay.over:
            self._begin(call, message.attempt)
        else:
            self._granted[message.key] = message.attempt

    def stop(self) -> None:
        """Forgets the run. Its coroutine is closed without a word; attempts under way are cancelled.

        Whatever leads back to the run is cut, so that its memory is free at once: the collector of cycles would have
        to search all runs for it, and the next run would take fresh pages.
        """
        self.stopped = True
        self._attempts.forget(self)
        self.replay.forget()
        self.timers.forget()
        self.declared.clear()
        self.ahead.forget()
        self.loop.abandon()
        self._task = None
        self._on_end(self)

    def go_on(self) -> None:
        """Lets the program run until it has settled; then replay goes on, or the node is told what has become."""
        try:
            self.loop.settle()
            while self.replay.behind and not self.stopped and self._catch_up():
                self.loop.settle()
        except SpinningError as error:
            self._end(inputs.RunFailed(self.number, to_error_value(error)))
        except DivergenceError as error:
            self._end(inputs.RunDiverged(self.number, str(error)))
        else:
            if not self.active:
                self.look_settled()

    def look_settled(self) -> None:
        """Tells the node when nothing executes and everything waits for a timer or an event."""
        if self.active or self.stopped or self.bridged or self.ahead.key or not self.replay.over:
            return
        if not self.replay.asked:
            self._end(inputs.RunFailed(self.number, entries.ErrorValue("Error", HUNG)))
            return
        self.send(inputs.RunSettled(self.number, self._heard))

    def _catch_up(self) -> bool:
        """Hands over the next group that the program has not seen, or begins live operation after the recorded ones.
        False: the program has to hear from the outside world first."""
        replay, patient = self.replay, bool(self.bridged)
        group = replay.next_group(patient=patient)
        if group is not None:
            self._hand_over(group.completions, group.at, group.number)
            return True
        if not replay.end(patient=patient):
            return False
        self.loop.now_ms = max(self.loop.now_ms, self.start_message.now)
        cursor = replay.cursor
        self._unburdened = not (self.start_message.careful or cursor.results or cursor.attempts)
        return True

    def _end(self, report: Any) -> None:
        """The last word about this run."""
        self.send(report)
        self.stop()

    # -- ahead of the record ------------------------------------------------------------------------------------------

    def waits_only_for(self, call: StepCall) -> bool:
        """Whether nothing else can reach the program before this step's result does. Never after an unclean end: what
        the program does with the result may have caused it, and would cause it again before the result has left."""
        replay = self.replay
        return not (
            len(replay.asked) != 1 or call.key not in replay.asked or call.nested or self.ahead.key or self.bridged
            or replay.behind or self.start_message.careful or self.stopped
        )  # fmt: skip

    def go_ahead(self, call: StepCall, report: inputs.StepDone) -> None:
        """The program gets the result of this step ahead of the record (``ahead.py``)."""
        if self.stopped:
            return
        self._keep_together()
        self.send(report)
        self.ahead.key = call.key
        del self.replay.asked[call.key]
        self.loop.now_ms = report.started_at + report.ahead_ms
        call.succeed(self)
        self.go_on()

    def _begin(self, call: StepCall, attempt: int) -> None:
        if not call.active:
            call.active = True
            self.active += 1
        self.ahead.when_recorded(partial(self._attempts.begin, call, attempt))

    # -- completions --------------------------------------------------------------------------------------------------

    def _hand_over(self, completions: list[Completion], at_ms: int, number: int) -> None:
        self.loop.now_ms = at_ms
        if number:
            self._heard = number
        asked = self.replay.asked
        for completion in completions:
            call = asked.pop(completion.key, None)
            if call is not None:
                call.complete(self, completion)

    def bytes_of(self, value: entries.Value) -> bytes:
        return value if isinstance(value, bytes) else self.start_message.blobs[value.sha256]

    def _program_ended(self, task: asyncio.Task[Any]) -> None:
        if self.stopped:
            return
        report: Any
        try:
            self.replay.check_ended()
            failure = task.exception()  # raised by result(), it would lead to this frame, and so back to the task
            if failure is None:
                report = inputs.RunReturned(self.number, _encode_output(task.result()))
            else:
                report = self._failed(failure)
        except DivergenceError as error:
            report = inputs.RunDiverged(self.number, str(error))
        except BaseException as error:
            report = self._failed(error)
        if self.ahead.holds:  # waitUntil, say: it would be lost if the run left before it begins
            self.ahead.when_recorded(partial(self._end, report))
        else:
            self._end(report)

    def _failed(self, error: BaseException) -> inputs.RunFailed:
        value = to_error_value(error)
        if is_non_retryable(error) and not self.start_message.preserve_non_retryable:
            value = entries.ErrorValue(WorkflowFatalError.__name__, UNHANDLED_NON_RETRYABLE, value.stack)
        return inputs.RunFailed(self.number, value)

    # -- steps --------------------------------------------------------------------------------------------------------

    def perform(self, step: StepFunction, args: dict[str, Any], wants_context: bool) -> asyncio.Future[Any]:
        """A step: its recorded result, or that of an attempt, which is on disk before the program sees it."""
        if self.stopped:
            raise StoppedError
        name = place = step.name
        loop: Any = self.loop
        nested = not loop.settling
        if nested:
            loop, place = asyncio.get_running_loop(), _place_of_nested(name)
        replay = self.replay
        count = replay.counts[place] = replay.counts.get(place, 0) + 1
        key = f"do:{place}-{count}"
        future: asyncio.Future[Any] = _Future(loop=loop)
        call = StepCall(self, key, name, count, step.fn, args, step.config, step.delay, future, nested, wants_context)
        unburdened = self._unburdened
        if not unburdened and self._remember(call):
            return future
        self._started_steps += 1
        if self._started_steps > self._steps_max:
            raise WorkflowFatalError(step_limit_text(self._steps_max))
        replay.asked[key] = call
        if unburdened:
            if self.ahead.key:
                call.active = True
                self.active += 1
                self.ahead.calls.append(call)
            else:
                self._attempts.begin(call, 1)
        elif key not in replay.cursor.results:
            replay.when_live(lambda: self._first_attempt(call))
        return future

    def _remember(self, call: StepCall) -> bool:
        """What the journal knows of the step goes into the call. True: it is answered."""
        recorded = self.replay.cursor.attempts.get(call.key)
        if recorded is not None:  # what was resolved at the first execution wins over later changes
            call.config = recorded.config or DEFAULT_CONFIG
        result = self.replay.cursor.results.get(call.key)
        if result is None or not (call.nested or self.replay.over):
            return False
        call.complete(self, result)
        return True

    def _first_attempt(self, call: StepCall) -> None:
        recorded = self.replay.cursor.attempts.get(call.key)
        granted = self._granted.pop(call.key, None)
        if granted is not None:
            self._begin(call, granted)
        elif recorded is not None and recorded.retry_pending:
            return  # the node counts the delay and grants the attempt
        elif self.start_message.careful or recorded is not None:
            call.active = True
            self.active += 1
            attempt = 1 if recorded is None else recorded.failures + 1
            self.send(
                inputs.StepRequested(self.number, call.key, call.name, call.count, attempt, call.config, call.nested)
            )
        else:
            self._begin(call, 1)


def _encode_output(result: Any) -> bytes:
    """What ``run()`` returned, under the same limit as the result of a step."""
    value = values.encode(result)
    if len(value) > STEP_OUTPUT_BYTES_MAX:
        raise WorkflowInternalError("The output of the instance is too large. Maximum allowed size is 1MiB.")
    return value
