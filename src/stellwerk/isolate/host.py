"""The host: what the SDK asks of the isolate, answered over the channel or by the isolate's own HTTP client.

Every way out of user code goes through here, and every connection through one ``connect``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from workers._host import RawRequest, RawResponse, ServiceRef, WorkflowRef
from workers._js import JsDict

from stellwerk.core.limits import CHAINED_INVOCATIONS_MAX, RPC_VALUE_BYTES_MAX
from stellwerk.isolate.failures import StepError
from stellwerk.isolate.http_client import DirectConnect, HttpClient
from stellwerk.isolate.invocation import NOBODY, Invocation, is_workflow_code
from stellwerk.isolate.logs import current
from stellwerk.isolate.outgoing import OutgoingCalls
from stellwerk.isolate.streams import ReceivedStream
from stellwerk.isolate.stubs import HeldStub, Packing, Stubs, received
from stellwerk.isolate.workflow.bridge import BridgedBody, bridge
from stellwerk.wire import isolate as messages
from stellwerk.wire import values


class IsolateHost:
    """Implements ``workers._host.Host``."""

    def __init__(
        self,
        outgoing: OutgoingCalls,
        stubs: Stubs,
        boot: messages.Boot,
        flags: frozenset[str],
        emit: Callable[[str, str, str], None],
    ) -> None:
        makers: dict[str, Callable[[str], Any]] = {"service": ServiceRef, "workflow": WorkflowRef}
        self._outgoing, self._stubs, self._flags, self._emit = outgoing, stubs, flags, emit
        self._loop = asyncio.get_running_loop()
        self._env = {b.name: makers[b.kind](b.name) if b.kind in makers else b.value for b in boot.bindings}
        self._http: HttpClient | None = None

    # -- Host ---------------------------------------------------------------------------------------------------------

    def env(self) -> Mapping[str, Any]:
        return self._env

    def compat_flag(self, name: str) -> bool:
        return name in self._flags

    def log(self, level: str, text: str, stack: str = "") -> None:
        self._emit(level, text, stack)

    async def fetch(self, request: RawRequest) -> RawResponse:
        invocation = self._invocation()
        if invocation.traceparent and all(name.lower() != b"traceparent" for name, _ in request.headers):
            request.headers.append((b"traceparent", invocation.traceparent.encode()))
        if self._http is None:
            self._http = HttpClient(DirectConnect())
        response: RawResponse = await self._on_real_loop(self._http.fetch(request))
        return response

    async def service_fetch(self, binding: str, request: RawRequest) -> RawResponse:
        invocation = self._invocation()
        self._check_depth(invocation)
        fetching = self._outgoing.fetch(binding, request, invocation)
        response: RawResponse = await self._on_real_loop(fetching)
        return response

    async def service_rpc(self, binding: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        invocation = self._invocation()
        self._check_depth(invocation)
        packing = Packing(self._stubs, invocation)
        data = packing.encode([args, kwargs])
        packing.lend()
        depth, request_id = invocation.depth + 1, invocation.invocation
        calling = self._called(
            lambda call: messages.RpcCall(
                call, binding, method, data, invocation.traceparent, depth, invocation.scope,
                request_id=request_id, stubs=packing.numbers,
            ),
            invocation,
        )  # fmt: skip
        return await self._on_real_loop(calling)

    def received_stub(self, place: int) -> HeldStub:
        return received(place)[0]

    def received_stream(self, place: int) -> AsyncIterator[bytes]:
        held, invocation = received(place)
        return ReceivedStream(held, self._outgoing, invocation)

    async def stub_rpc(self, stub: Any, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        held: HeldStub = stub
        held.check()
        invocation = self._invocation()
        self._check_depth(invocation)
        packing = Packing(self._stubs, invocation)
        data = packing.encode([args, kwargs])
        packing.lend()
        depth, request_id = invocation.depth + 1, invocation.invocation
        calling = self._called(
            lambda call: messages.StubCall(
                call, held.number, method, data, invocation.traceparent, depth, invocation.scope, request_id,
                packing.numbers,
            ),
            invocation,
        )  # fmt: skip
        return await self._on_real_loop(calling)

    async def _called(self, make: Callable[[int], messages.Message], invocation: Invocation) -> Any:
        """Calls, and decodes what comes back."""
        result: messages.RpcResult = await self._outgoing.call(make)
        if result.stubs:
            return self._stubs.arrived(result.stubs, invocation).decode(result.value)
        return values.decode(result.value, mapping=JsDict)

    async def workflow(self, binding: str, operation: str, args: dict[str, Any]) -> Any:
        invocation = self._invocation()
        data = values.encode(args, size_max=RPC_VALUE_BYTES_MAX)
        result = await self._on_real_loop(
            self._outgoing.call(
                lambda call: messages.WorkflowCall(
                    call, binding, operation, data, invocation.scope, invocation.traceparent
                )
            )
        )
        return values.decode(result.value, mapping=JsDict)

    def wait_until(self, awaitable: Awaitable[Any]) -> None:
        async def wait() -> Any:
            return await awaitable

        def begin() -> None:
            task = self._loop.create_task(wait())
            if invocation.pending is None:
                invocation.pending = set()
            invocation.pending.add(task)
            task.add_done_callback(lambda task: self._waited(invocation, task))

        invocation = self._invocation()
        if invocation.live is not None and is_workflow_code(invocation):
            invocation.live.ahead.when_recorded(begin, lambda: _close(awaitable))
        else:
            begin()

    def _waited(self, invocation: Invocation, task: asyncio.Task[Any]) -> None:
        if invocation.pending is not None:
            invocation.pending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit("error", f"waitUntil: {type(error).__name__}: {error}", "")

    # -- calls --------------------------------------------------------------------------------------------------------

    def _invocation(self) -> Invocation:
        found: Any = current.get(NOBODY)  # an Invocation, or a StepCall, which has the same names
        invocation: Invocation = found
        return invocation

    async def _on_real_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Workflow code runs on a loop of its own; what it calls outside of a step is carried over to ours."""
        live = self._invocation().live
        if live is None or asyncio.get_running_loop() is self._loop:
            return await coroutine
        result = await bridge(live, coroutine)
        if isinstance(result, RawResponse) and result.body is not None and not isinstance(result.body, bytes):
            result.body = BridgedBody(live, result.body)
        return result

    def _check_depth(self, invocation: Invocation) -> None:
        if invocation.depth >= CHAINED_INVOCATIONS_MAX:
            raise StepError(
                f"The request passed through {CHAINED_INVOCATIONS_MAX} Workers and may go no further (error 1019): "
                "do service bindings lead in a circle?",
                "WorkerLoopError",
            )


def _close(awaitable: Awaitable[Any]) -> None:
    """Nobody will await it, and Python would complain of a coroutine."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
