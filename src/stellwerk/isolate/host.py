"""The host: what the SDK asks of the isolate, answered over the channel or by the isolate's own HTTP client.

Every way out of user code goes through here, and every connection through one ``connect``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from workers._host import RawRequest, RawResponse, ServiceRef, WorkflowRef
from workers._js import JsDict

from stellwerk.core.limits import CHAINED_INVOCATIONS_MAX, INLINE_BODY_BYTES_MAX, RPC_VALUE_BYTES_MAX
from stellwerk.isolate.bodies import BodyReader, BodyWriter
from stellwerk.isolate.failures import StepError, from_error_value
from stellwerk.isolate.http_client import DirectConnect, HttpClient
from stellwerk.isolate.invocation import Invocation
from stellwerk.isolate.logs import current
from stellwerk.isolate.workflow.run import Run
from stellwerk.wire import isolate as messages
from stellwerk.wire import values
from stellwerk.wire.channel import Channel

NOBODY = Invocation("")


class OutgoingCall:
    """A call that this isolate has started."""

    __slots__ = ("answer", "pump", "reader", "writer")

    def __init__(self, answer: asyncio.Future[Any]) -> None:
        self.answer = answer
        self.reader: BodyReader | None = None
        self.writer: BodyWriter | None = None
        self.pump: asyncio.Task[None] | None = None  # sends the request's body

    def end(self) -> None:
        """The answer is here, or will not come: nobody wants the rest of the request's body."""
        if self.writer is not None and self.pump is not None:
            self.writer.cancel()
            self.pump.cancel()


class IsolateHost:
    """Implements ``workers._host.Host``."""

    def __init__(self, channel: Channel, emit: Callable[[str, str, str], None]) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._emit = emit
        self._calls: dict[int, OutgoingCall] = {}
        self._next_call = 1
        self._env: dict[str, Any] = {}
        self._flags: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._http: HttpClient | None = None

    def configure(self, boot: messages.Boot, flags: frozenset[str]) -> None:
        makers: dict[str, Callable[[str], Any]] = {"service": ServiceRef, "workflow": WorkflowRef}
        self._flags = flags
        self._env = {b.name: makers[b.kind](b.name) if b.kind in makers else b.value for b in boot.bindings}

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
        fetching = self._service_fetch(binding, request, self._invocation())
        response: RawResponse = await self._on_real_loop(fetching)
        return response

    async def service_rpc(self, binding: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        invocation = self._invocation()
        data = values.encode([args, kwargs], size_max=RPC_VALUE_BYTES_MAX)
        self._check_depth(invocation)
        result = await self._on_real_loop(
            self._call(
                lambda call: messages.RpcCall(
                    call, binding, method, data, invocation.traceparent, invocation.depth + 1, invocation.scope
                )
            )
        )
        return values.decode(result.value, mapping=JsDict)

    async def workflow(self, binding: str, operation: str, args: dict[str, Any]) -> Any:
        invocation = self._invocation()
        data = values.encode(args, size_max=RPC_VALUE_BYTES_MAX)
        result = await self._on_real_loop(
            self._call(
                lambda call: messages.WorkflowCall(
                    call, binding, operation, data, invocation.scope, invocation.traceparent
                )
            )
        )
        return values.decode(result.value, mapping=JsDict)

    def wait_until(self, awaitable: Awaitable[Any]) -> None:
        async def wait() -> Any:
            return await awaitable

        task = self._loop.create_task(wait())
        invocation = self._invocation()
        if invocation.pending is None:
            invocation.pending = set()
        invocation.pending.add(task)
        task.add_done_callback(lambda task: self._waited(invocation, task))

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
        result = await live.bridge(coroutine)
        if isinstance(result, RawResponse) and result.body is not None and not isinstance(result.body, bytes):
            result.body = _BridgedBody(live, result.body)
        return result

    def _check_depth(self, invocation: Invocation) -> None:
        if invocation.depth >= CHAINED_INVOCATIONS_MAX:
            raise StepError(
                f"The request passed through {CHAINED_INVOCATIONS_MAX} Workers and may go no further (error 1019): "
                "do service bindings lead in a circle?",
                "WorkerLoopError",
            )

    async def _call(self, make: Callable[[int], messages.Message]) -> Any:
        call, outgoing = self._open()
        self._channel.send(make(call))
        try:
            return await outgoing.answer
        except asyncio.CancelledError:
            self._channel.send(messages.CallCancelled(call))
            raise
        finally:
            self._calls.pop(call, None)

    def _open(self) -> tuple[int, OutgoingCall]:
        call, self._next_call = self._next_call, self._next_call + 2
        outgoing = self._calls[call] = OutgoingCall(self._loop.create_future())
        return call, outgoing

    async def _service_fetch(self, binding: str, request: RawRequest, invocation: Invocation) -> RawResponse:
        self._check_depth(invocation)
        call, outgoing = self._open()
        body, stream = _split(request.body)
        self._channel.send(
            messages.HttpRequest(
                call, binding, request.method, request.url, request.headers, body, stream is not None,
                invocation.traceparent, invocation.depth + 1, invocation.scope, invocation.invocation,
            )
        )  # fmt: skip
        if stream is not None:
            outgoing.writer = BodyWriter(self._channel, call)
            outgoing.pump = self._loop.create_task(outgoing.writer.pump(stream))
            self._keep(outgoing.pump)
        try:
            answer: messages.HttpResponse = await outgoing.answer
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._channel.send(messages.CallCancelled(call))
            outgoing.end()
            self._calls.pop(call, None)
            raise
        if outgoing.reader is None:
            outgoing.end()
            self._calls.pop(call, None)
        else:
            _book(invocation, outgoing.reader)
        return RawResponse(answer.status, answer.headers, outgoing.reader or answer.body, answer.reason, request.url)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())

    # -- the node answers ---------------------------------------------------------------------------------------------

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None:
        outgoing = self._calls.get(message.call)
        if outgoing is None or outgoing.answer.done():
            return
        if isinstance(message, messages.HttpResponse) and message.streaming:
            outgoing.reader = BodyReader(self._channel, message.call)
        outgoing.answer.set_result(message)

    def failed(self, message: messages.CallFailed) -> None:
        outgoing = self._calls.get(message.call)
        if outgoing is not None and not outgoing.answer.done():
            outgoing.answer.set_exception(from_error_value(message.error))

    def body(self, call: int, chunk: bytes) -> None:
        outgoing = self._calls.get(call)
        if outgoing is not None and outgoing.reader is not None:
            outgoing.reader.feed(chunk)

    def body_ended(self, message: messages.BodyEnd) -> None:
        outgoing = self._calls.pop(message.call, None)
        if outgoing is not None and outgoing.reader is not None:
            outgoing.reader.finish(message.error)
            outgoing.end()

    def credit(self, message: messages.Credit) -> None:
        outgoing = self._calls.get(message.call)
        if outgoing is not None and outgoing.writer is not None:
            outgoing.writer.grant(message.size)

    def cancelled(self, call: int) -> None:
        outgoing = self._calls.get(call)
        if outgoing is not None:
            outgoing.end()


class _BridgedBody:
    """A body that comes in pieces, read by workflow code: each piece is carried over from the isolate's loop."""

    def __init__(self, live: Run, body: AsyncIterator[bytes]) -> None:
        self._live, self._body = live, body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        async def piece() -> bytes | None:
            return await anext(self._body, None)

        found: bytes | None = await self._live.bridge(piece())
        if found is None:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        close = getattr(self._body, "aclose", None)
        if close is not None:
            await self._live.bridge(close())


def _book(invocation: Invocation, reader: BodyReader) -> None:
    """The body ends with the request or step that asked for it, read or not: its sender would wait for ever.

    What belongs to nobody, or to workflow code outside of steps, has no such end."""
    if invocation is NOBODY or (invocation.live is not None and not invocation.step):
        return
    invocation.unread = [other for other in invocation.unread or () if not other.ended]
    invocation.unread.append(reader)


def _split(body: bytes | AsyncIterator[bytes] | None) -> tuple[bytes | None, AsyncIterator[bytes] | None]:
    """What rides in the head, and what follows in pieces."""
    if body is None:
        return None, None
    if isinstance(body, bytes):
        return (body, None) if len(body) <= INLINE_BODY_BYTES_MAX else (None, _once(body))
    return None, body


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
