"""Traffic: who gets what an isolate says, and how one Worker reaches another.

Calls that the node starts have even numbers, those of an isolate odd ones. A service binding is a relay: a call of
isolate A becomes a call of the node to isolate B, answers and bodies are passed on as they come, credit and all, so a
stream between two Workers is never held here. Which version B is, is decided by the run manifest of the run on whose
behalf A calls, or else by what is deployed now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from stellwerk.core.errors import (
    CapacityError,
    Fault,
    InvalidRequestError,
    StellwerkError,
    WorkerLoopError,
    WorkerNotFoundError,
)
from stellwerk.core.limits import CHAINED_INVOCATIONS_MAX
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.core.workflow.inputs import RunInput
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.engine import Engine
from stellwerk.node.workflow.live import LiveRun
from stellwerk.node.workflow.operations import WorkflowOperations
from stellwerk.wire import isolate as messages


class NodeCall(Protocol):
    """The caller's side of a call that the node has made to an isolate."""

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None: ...

    def failed(self, message: messages.CallFailed) -> None: ...

    def body(self, chunk: bytes) -> None: ...

    def body_ended(self, error: str) -> None: ...

    def credit(self, size: int) -> None: ...

    def lost(self, cause: str) -> None:
        """The isolate has ended."""


class Calls:
    """Calls under way between the node and one isolate."""

    __slots__ = ("next_number", "outgoing", "relays")

    def __init__(self) -> None:
        self.next_number = 2
        self.outgoing: dict[int, NodeCall] = {}  # the node's, by even number
        self.relays: dict[int, Relay] = {}  # the isolate's, by odd number


class Relay:
    """A call of one isolate that another one answers."""

    __slots__ = ("_callee_call", "_caller", "_caller_call", "_early", "_relays", "callee", "gone")

    def __init__(self, caller: Isolate, caller_call: int, relays: dict[int, Relay]) -> None:
        self._caller, self._caller_call, self._relays = caller, caller_call, relays
        self.callee: Isolate | None = None
        self.gone = False  # the caller does not wait any more
        self._callee_call = 0
        self._early: list[bytes | messages.BodyEnd] = []  # pieces that came before the callee was up (bounded: credit)

    def connect(self, callee: Isolate, call: int) -> None:
        self.callee, self._callee_call = callee, call
        for piece in self._early:
            if isinstance(piece, bytes):
                callee.channel.send_body(call, piece)
            else:
                callee.channel.send(messages.BodyEnd(call, piece.error))
        self._early.clear()

    def end(self) -> None:
        self._relays.pop(self._caller_call, None)

    # -- from the callee (NodeCall) -----------------------------------------------------------------------------------

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None:
        self._caller.channel.send(msgspec.structs.replace(message, call=self._caller_call, pending=False))
        if not (isinstance(message, messages.HttpResponse) and message.streaming):
            self.end()

    def failed(self, message: messages.CallFailed) -> None:
        self._caller.channel.send(msgspec.structs.replace(message, call=self._caller_call, pending=False))
        self.end()

    def body(self, chunk: bytes) -> None:
        self._caller.channel.send_body(self._caller_call, chunk)

    def body_ended(self, error: str) -> None:
        self._caller.channel.send(messages.BodyEnd(self._caller_call, error))
        self.end()

    def credit(self, size: int) -> None:
        self._caller.channel.send(messages.Credit(self._caller_call, size))

    def lost(self, cause: str) -> None:
        error = ErrorValue("IsolateLostError", f"The Worker that was called ended: {cause}")
        self._caller.channel.send(messages.CallFailed(self._caller_call, error, "isolate.lost"))
        self._caller.channel.send(messages.BodyEnd(self._caller_call, cause))
        self.end()

    # -- from the caller ----------------------------------------------------------------------------------------------

    def caller_body(self, piece: bytes | messages.BodyEnd) -> None:
        if self.callee is None:
            self._early.append(piece)
        elif isinstance(piece, bytes):
            self.callee.channel.send_body(self._callee_call, piece)
        else:
            self.callee.channel.send(messages.BodyEnd(self._callee_call, piece.error))

    def caller_credit(self, size: int) -> None:
        if self.callee is not None:
            self.callee.channel.send(messages.Credit(self._callee_call, size))

    def caller_gone(self) -> None:
        self.gone = True
        self.end()
        if self.callee is not None:
            self.callee.channel.send(messages.CallCancelled(self._callee_call))


class Traffic:
    """Hands every message of every isolate to the one that it is for."""

    def __init__(self, pool: Pool, deployments: Deployments) -> None:
        self._pool, self._deployments = pool, deployments
        self._calls: dict[Isolate, Calls] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine: Engine | None = None
        self._operations: WorkflowOperations | None = None
        self._handlers: dict[type, Callable[[Isolate, Calls, Any], None]] = {
            messages.HttpResponse: self._answered,
            messages.RpcResult: self._answered,
            messages.CallFailed: self._failed,
            messages.CallEnded: self._ended,
            messages.CallCancelled: self._cancelled,
            messages.BodyEnd: self._body_ended,
            messages.Credit: self._credited,
            messages.HttpRequest: self._service_call,
            messages.RpcCall: self._service_call,
            messages.WorkflowCall: self._workflow_call,
        }

    def connect(self, engine: Engine) -> None:
        """The engine needs the pool, the pool this, and this the engine: it comes last."""
        self._engine = engine
        self._operations = WorkflowOperations(engine)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what isolates say --------------------------------------------------------------------------------------------

    def on_messages(self, isolate: Isolate, batch: list[Any]) -> None:
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
        if reports and self._engine is not None:
            self._engine.runs.reports(isolate, reports)

    def on_lost(self, isolate: Isolate, cause: str, crashed: bool) -> None:
        calls = self._calls.pop(isolate, None)
        if calls is not None:
            for relay in list(calls.relays.values()):
                relay.caller_gone()
            for call in list(calls.outgoing.values()):
                call.lost(cause)
                isolate.end()
        if self._engine is not None:
            self._engine.runs.isolate_lost(isolate, cause, crashed=crashed)

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

    # -- service bindings ---------------------------------------------------------------------------------------------

    def _service_call(self, isolate: Isolate, calls: Calls, message: messages.HttpRequest | messages.RpcCall) -> None:
        number = message.call
        relay = calls.relays[number] = Relay(isolate, number, calls.relays)
        try:
            if message.depth > CHAINED_INVOCATIONS_MAX:
                raise WorkerLoopError(f"The request passed through {CHAINED_INVOCATIONS_MAX} Workers.")
            binding = _service(isolate.version, message.target)
            version = self._version(isolate, binding.service, message.scope)
        except StellwerkError as error:
            self._refuse(isolate, number, error)
            relay.end()
            return
        forwarded = msgspec.structs.replace(message, target=binding.entrypoint, props=binding.props)
        callee = self._pool.ready(version) if isinstance(version, LoadedVersion) else None
        if callee is not None:
            self._forward(relay, callee, forwarded)
        else:
            self._spawn(self._forward_later(relay, isolate, version, forwarded))

    def _version(self, isolate: Isolate, worker: str, scope: int) -> LoadedVersion | str:
        """The version that this caller reaches: the one its run has frozen, or the one that serves now."""
        live = self.run_of(isolate, scope)
        if live is not None and worker in live.created.manifest:
            version_id = live.created.manifest[worker]
            return self._deployments.loaded(version_id) or version_id
        version = self._deployments.serving(worker)
        if version is None:
            raise WorkerNotFoundError(
                f'The Worker "{isolate.version.worker}" has a service binding to "{worker}", and no such Worker is '
                "deployed.",
                cure=f'Deploy "{worker}", or correct the name in the binding.',
            )
        return version

    def run_of(self, isolate: Isolate, scope: int) -> LiveRun | None:
        """The run on whose behalf an isolate says it calls, if its version is one that the run reaches at all."""
        if not scope or self._engine is None:
            return None
        live = self._engine.runs.by_number.get(scope)
        if live is None or isolate.version.version_id not in live.created.manifest.values():
            return None
        return live

    def _forward(self, relay: Relay, callee: Isolate, message: messages.HttpRequest | messages.RpcCall) -> None:
        call = self.open(callee, relay)
        callee.channel.send(msgspec.structs.replace(message, call=call))
        relay.connect(callee, call)

    async def _forward_later(
        self,
        relay: Relay,
        caller: Isolate,
        version: LoadedVersion | str,
        message: messages.HttpRequest | messages.RpcCall,
    ) -> None:
        try:
            loaded = await self._deployments.load(version) if isinstance(version, str) else version
            callee = await self._pool.acquire(loaded)
        except StellwerkError as error:
            self._refuse(caller, message.call, error)
            relay.end()
            return
        if not relay.gone:
            self._forward(relay, callee, message)

    def _refuse(self, isolate: Isolate, call: int, error: StellwerkError) -> None:
        name = "WorkerLoopError" if isinstance(error, WorkerLoopError) else "Error"
        isolate.channel.send(messages.CallFailed(call, ErrorValue(name, str(error)), error.code))

    # -- workflow bindings --------------------------------------------------------------------------------------------

    def _workflow_call(self, isolate: Isolate, calls: Calls, message: messages.WorkflowCall) -> None:
        self._spawn(self._operate(isolate, message))

    async def _operate(self, isolate: Isolate, message: messages.WorkflowCall) -> None:
        try:
            if self._operations is None:
                raise CapacityError("The node is starting.", cure="Try again in a moment.")
            workflow = _workflow(isolate.version, message.binding)
            parent = self.run_of(isolate, message.scope)
            value = await self._operations.perform(
                workflow, message.operation, message.args, parent=parent, traceparent=message.traceparent
            )
        except StellwerkError as error:
            name = "Error" if error.fault is Fault.PLATFORM else type(error).__name__
            isolate.channel.send(messages.CallFailed(message.call, ErrorValue(name, str(error)), error.code))
            return
        isolate.channel.send(messages.RpcResult(message.call, value))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _service(version: LoadedVersion, binding: str) -> Any:
    for service in version.manifest.services:
        if service.binding == binding:
            return service
    raise InvalidRequestError(f'The Worker "{version.worker}" has no service binding "{binding}".')


def _workflow(version: LoadedVersion, binding: str) -> str:
    for workflow in version.manifest.workflows:
        if workflow.binding == binding:
            return workflow.name
    raise InvalidRequestError(f'The Worker "{version.worker}" has no workflow binding "{binding}".')
