"""Bindings: what a Worker reaches through ``env``, other Workers and workflows.

Which version of another Worker that is, is decided by the run manifest of the run on whose behalf the call is made, or
else by what is deployed now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from stellwerk.core.deployment.manifest import ServiceBinding
from stellwerk.core.errors import (
    CapacityError,
    Fault,
    InvalidRequestError,
    StellwerkError,
    WorkerLoopError,
    WorkerNotFoundError,
)
from stellwerk.core.limits import CHAINED_INVOCATIONS_MAX, STUB_CALL_LOAD_MAX
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.relay import Calls, NodeCall, Relay
from stellwerk.node.isolate.stubs import Stubs
from stellwerk.node.workflow.engine import Engine
from stellwerk.node.workflow.live import LiveRun
from stellwerk.node.workflow.operations import WorkflowOperations
from stellwerk.wire import isolate as messages

Call = messages.HttpRequest | messages.RpcCall | messages.StubCall | messages.StreamOpen


class Bindings:
    """Answers the calls that isolates make. ``open_call`` books a call of the node to an isolate."""

    def __init__(
        self,
        pool: Pool,
        deployments: Deployments,
        engine: Engine,
        stubs: Stubs,
        open_call: Callable[[Isolate, NodeCall], int],
    ) -> None:
        self._pool, self._deployments, self._stubs, self._open = pool, deployments, stubs, open_call
        self._tasks: set[asyncio.Task[None]] = set()
        self._table = engine.runs.table
        self._operations = WorkflowOperations(engine)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- service bindings ---------------------------------------------------------------------------------------------

    def service_call(self, isolate: Isolate, calls: Calls, message: messages.HttpRequest | messages.RpcCall) -> None:
        number = message.call
        relay = calls.relays[number] = Relay(isolate, number, calls.relays, self._stubs)
        try:
            if isinstance(message, messages.RpcCall) and message.stubs:
                relay.taken = self._stubs.taken(isolate, message.stubs)
            _check_depth(message.depth)
            binding = _service(isolate.version, message.target)
            version = self._version(isolate, binding.service, message.scope)
        except StellwerkError as error:
            relay.refuse(error)
            return
        forwarded = msgspec.structs.replace(message, target=binding.entrypoint, props=binding.props)
        callee = self._pool.ready(version) if isinstance(version, LoadedVersion) else None
        if callee is not None:
            self._forward(relay, callee, forwarded)
        else:
            self._spawn(self._forward_later(relay, version, forwarded))

    def stub_call(self, isolate: Isolate, calls: Calls, message: messages.StubCall | messages.StreamOpen) -> None:
        """To where the function or stream is, and nowhere else."""
        number = message.call
        relay = calls.relays[number] = Relay(isolate, number, calls.relays, self._stubs)
        try:
            if isinstance(message, messages.StubCall):
                relay.taken = self._stubs.taken(isolate, message.stubs)
                _check_depth(message.depth)
            given = self._stubs.target(isolate, message.stub)
            if given.owner.load >= STUB_CALL_LOAD_MAX:
                raise CapacityError(
                    f"The isolate that has this function or stream works on {STUB_CALL_LOAD_MAX} calls.",
                    cure="Try again in a moment.",
                )
        except StellwerkError as error:
            relay.refuse(error)
            return
        self._forward(relay, given.owner, msgspec.structs.replace(message, stub=given.number))

    def stubs_dropped(self, isolate: Isolate, calls: Calls, message: messages.StubsDropped) -> None:
        self._stubs.dropped(isolate, message.stubs)

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
        live = self._table.by_number.get(scope)
        if live is None or isolate.version.version_id not in live.created.manifest.values():
            return None
        return live

    def _forward(self, relay: Relay, callee: Isolate, message: Call) -> None:
        if relay.taken:
            taken, relay.taken = relay.taken, None
            try:
                stubs = self._stubs.granted(callee, taken)
            except CapacityError as error:
                relay.refuse(error)
                return
            message = msgspec.structs.replace(message, stubs=stubs)
        call = self._open(callee, relay)
        callee.channel.send(msgspec.structs.replace(message, call=call))
        relay.connect(callee, call)

    async def _forward_later(
        self, relay: Relay, version: LoadedVersion | str, message: messages.HttpRequest | messages.RpcCall
    ) -> None:
        try:
            loaded = await self._deployments.load(version) if isinstance(version, str) else version
            callee = await self._pool.acquire(loaded)
        except StellwerkError as error:
            relay.refuse(error)
            return
        if relay.gone:
            relay.let_go()
        else:
            self._forward(relay, callee, message)

    # -- workflow bindings --------------------------------------------------------------------------------------------

    def workflow_call(self, isolate: Isolate, calls: Calls, message: messages.WorkflowCall) -> None:
        self._spawn(self._operate(isolate, message))

    async def _operate(self, isolate: Isolate, message: messages.WorkflowCall) -> None:
        try:
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


def _check_depth(depth: int) -> None:
    if depth > CHAINED_INVOCATIONS_MAX:
        raise WorkerLoopError(f"The request passed through {CHAINED_INVOCATIONS_MAX} Workers.")


def _service(version: LoadedVersion, binding: str) -> ServiceBinding:
    for service in version.manifest.services:
        if service.binding == binding:
            return service
    raise InvalidRequestError(f'The Worker "{version.worker}" has no service binding "{binding}".')


def _workflow(version: LoadedVersion, binding: str) -> str:
    for workflow in version.manifest.workflows:
        if workflow.binding == binding:
            return workflow.name
    raise InvalidRequestError(f'The Worker "{version.worker}" has no workflow binding "{binding}".')
