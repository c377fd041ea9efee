"""Traffic: who gets what an isolate says.

Reports about runs go to their owner, everything else to the call that it belongs to: one that the node has made (a
request from outside, or a relayed one), or one that the isolate has made through a binding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from stellwerk.core import limits
from stellwerk.core.workflow.inputs import RunInput
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.isolate.bindings import Bindings
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.relay import Calls, NodeCall
from stellwerk.node.isolate.stubs import Stubs
from stellwerk.node.portions import Portions
from stellwerk.node.workflow.engine import Engine
from stellwerk.wire import isolate as messages

_PATIENT = frozenset({
    tuple, messages.HttpResponse, messages.RpcResult, messages.CallFailed, messages.CallEnded, messages.CallCancelled,
    messages.BodyEnd, messages.Credit, messages.StubsDropped,
})  # fmt: skip
"""Answers, and what belongs to calls and bodies that are known: many clients wait for many of them. The rest are
reports of runs, and calls, which must be looked up before the run that makes them may end."""


class Traffic:
    """Hands every message of every isolate to the one that it is for."""

    def __init__(self, pool: Pool, deployments: Deployments, engine: Engine) -> None:
        self._calls: dict[Isolate, Calls] = {}
        self._portions: dict[Isolate, Portions[list[Any]]] = {}  # of those that once said much at a time
        self._runs = engine.runs
        self._hurried = engine.runs.table.at_work
        self._stubs = stubs = Stubs()
        self._bindings = bindings = Bindings(pool, deployments, engine, stubs, self.open)
        self._handlers: dict[type, Callable[[Isolate, Calls, Any], None]] = {
            messages.HttpResponse: self._answered,
            messages.RpcResult: self._answered,
            messages.CallFailed: self._failed,
            messages.CallEnded: self._ended,
            messages.CallCancelled: self._cancelled,
            messages.BodyEnd: self._body_ended,
            messages.Credit: self._credited,
            messages.HttpRequest: bindings.service_call,
            messages.RpcCall: bindings.service_call,
            messages.StubCall: bindings.stub_call,
            messages.StreamOpen: bindings.stub_call,
            messages.StubsDropped: bindings.stubs_dropped,
            messages.WorkflowCall: bindings.workflow_call,
        }

    async def stop(self) -> None:
        await self._bindings.stop()

    # -- what isolates say --------------------------------------------------------------------------------------------

    def on_messages(self, isolate: Isolate, batch: list[Any]) -> None:
        """Reports and calls come first, and all of them now; answers and bodies in portions, if there are many."""
        portions = self._portions.get(isolate)
        size = limits.TURN_MESSAGES_MAX
        if not portions and (len(batch) <= size or not self._hurried()):
            self._heard(isolate, batch)
            return
        answers = [message for message in batch if type(message) in _PATIENT]
        if len(answers) < len(batch):
            self._heard(isolate, [message for message in batch if type(message) not in _PATIENT])
        if portions is None:
            portions = self._portions[isolate] = Portions(
                partial(self._portion_heard, isolate), per_turn=1, hurried=self._hurried
            )
        for start in range(0, len(answers), size):
            portions.add(answers[start : start + size])
        if len(portions) * size >= limits.MESSAGES_WAITING_MAX:
            isolate.channel.pause_reading()

    def _portion_heard(self, isolate: Isolate, answers: list[Any]) -> None:
        self._heard(isolate, answers)
        if not self._portions[isolate]:
            isolate.channel.resume_reading()

    def _heard(self, isolate: Isolate, batch: Sequence[Any]) -> None:
        reports: list[Any] = []
        handlers = self._handlers
        for message in batch:
            if isinstance(message, RunInput):
                reports.append(message)
                continue
            calls = self._calls.get(isolate) or self._calls.setdefault(isolate, Calls())
            if type(message) is tuple:
                self._body(isolate, calls, *message)
                continue
            handler = handlers.get(type(message))
            if handler is not None:
                handler(isolate, calls, message)
        if reports:
            self._runs.reports(isolate, reports)

    def on_lost(self, isolate: Isolate, cause: str, crashed: bool) -> None:
        if isolate in self._portions:
            self._portions[isolate].flush()
            del self._portions[isolate]
        calls = self._calls.pop(isolate, None)
        if calls is not None:
            for relay in list(calls.relays.values()):
                relay.caller_gone()
            for call in list(calls.outgoing.values()):
                call.lost(cause)
                isolate.end()
        self._stubs.lost(isolate, cause)
        self._runs.isolate_lost(isolate, cause, crashed=crashed)

    # -- calls of the node --------------------------------------------------------------------------------------------

    def open(self, isolate: Isolate, call: NodeCall) -> int:
        """Books a call to ``isolate`` and returns its number; the message is the caller's to send."""
        calls = self._calls.get(isolate)
        if calls is None:
            calls = self._calls[isolate] = Calls()
        number = calls.next_number
        calls.next_number = number + 2
        calls.outgoing[number] = call
        isolate.begin()
        return number

    def is_open(self, isolate: Isolate, number: int) -> bool:
        """Whether the isolate still works on this call."""
        calls = self._calls.get(isolate)
        return calls is not None and number in calls.outgoing

    def _close(self, isolate: Isolate, calls: Calls, number: int) -> None:
        if calls.outgoing.pop(number, None) is not None:
            isolate.end()

    def _answered(self, isolate: Isolate, calls: Calls, message: messages.HttpResponse | messages.RpcResult) -> None:
        call = calls.outgoing.get(message.call)
        if call is None:
            if isinstance(message, messages.RpcResult):
                self._stubs.refused(isolate, message.stubs)
            return
        if not message.pending:
            del calls.outgoing[message.call]
            isolate.end()
        call.answered(message)

    def _failed(self, isolate: Isolate, calls: Calls, message: messages.CallFailed) -> None:
        call = calls.outgoing.get(message.call)
        if call is None:
            return
        if not message.pending:
            self._close(isolate, calls, message.call)
        call.failed(message)

    def _ended(self, isolate: Isolate, calls: Calls, message: messages.CallEnded) -> None:
        self._close(isolate, calls, message.call)

    def _body(self, isolate: Isolate, calls: Calls, number: int, chunk: bytes) -> None:
        if number & 1:
            relay = calls.relays.get(number)
            if relay is not None:
                relay.caller_body(chunk)
        elif (call := calls.outgoing.get(number)) is not None:
            call.body(chunk)

    def _body_ended(self, isolate: Isolate, calls: Calls, message: messages.BodyEnd) -> None:
        if message.call & 1:
            relay = calls.relays.get(message.call)
            if relay is not None:
                relay.caller_body(message)
        elif (call := calls.outgoing.get(message.call)) is not None:
            call.body_ended(message.error)

    def _credited(self, isolate: Isolate, calls: Calls, message: messages.Credit) -> None:
        if message.call & 1:
            relay = calls.relays.get(message.call)
            if relay is not None:
                relay.caller_credit(message.size)
        elif (call := calls.outgoing.get(message.call)) is not None:
            call.credit(message.size)

    def _cancelled(self, isolate: Isolate, calls: Calls, message: messages.CallCancelled) -> None:
        relay = calls.relays.get(message.call)
        if relay is not None:
            relay.caller_gone()
