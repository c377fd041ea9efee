"""Requests and RPC calls: each runs as a task on the isolate's loop, with an entrypoint instance of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from workers._js import JsDict
from workers._relaxed import relaxed_call
from workers.entrypoints import ExecutionContext
from workers.request import Request
from workers.response import raw_parts

from stellwerk.core.errors import WorkerError, WorkerLoopError
from stellwerk.core.limits import INLINE_BODY_BYTES_MAX, WAIT_UNTIL_MS
from stellwerk.isolate.bodies import BodyReader, BodyWriter, close_unread
from stellwerk.isolate.failures import to_error_value
from stellwerk.isolate.invocation import Invocation
from stellwerk.isolate.loader import LoadedWorker
from stellwerk.isolate.logs import LogCapture, current
from stellwerk.isolate.streams import GivenStream
from stellwerk.isolate.stubs import Packing, Stubs, methods_of
from stellwerk.wire import isolate as messages
from stellwerk.wire import values
from stellwerk.wire.channel import Channel


class IncomingCall:
    """A request or RPC call that this isolate works on."""

    __slots__ = ("gone", "pump", "reader", "task", "writer")

    def __init__(self) -> None:
        self.gone = False  # nobody waits for the answer any more
        self.task: asyncio.Task[None] | None = None
        self.pump: asyncio.Task[None] | None = None  # sends a streamed answer
        self.reader: BodyReader | None = None
        self.writer: BodyWriter | None = None


class Requests:
    """The calls that this isolate works on. ``on_idle`` is called when the last one has ended."""

    def __init__(
        self,
        channel: Channel,
        worker: LoadedWorker,
        env: Any,
        logs: LogCapture,
        stubs: Stubs,
        on_idle: Callable[[], None],
    ) -> None:
        self._channel, self._worker, self._env, self._logs, self._on_idle = channel, worker, env, logs, on_idle
        self._stubs = stubs
        self._loop = asyncio.get_running_loop()
        self.calls: dict[int, IncomingCall] = {}

    def http_request(self, message: messages.HttpRequest) -> None:
        call = self.calls[message.call] = IncomingCall()
        if message.streaming:
            call.reader = BodyReader(self._channel, message.call)
        call.task = self._loop.create_task(self._serve_http(message, call))

    def rpc_call(self, message: messages.RpcCall) -> None:
        call = self.calls[message.call] = IncomingCall()
        call.task = self._loop.create_task(self._serve_rpc(message, lambda: self._method(message)))

    def stub_call(self, message: messages.StubCall) -> None:
        call = self.calls[message.call] = IncomingCall()
        given = self._stubs.given.get(message.stub)  # looked up here: that nobody holds it may be the next message

        def method() -> Callable[..., Any]:
            if given is None:
                raise TypeError("The function behind this stub is gone.")
            return given.method(message.method)

        call.task = self._loop.create_task(self._serve_rpc(message, method))

    async def _serve_http(self, message: messages.HttpRequest, call: IncomingCall) -> None:
        invocation = Invocation(
            message.request_id, traceparent=message.traceparent, depth=message.depth, scope=message.scope
        )
        current.set(invocation)
        try:
            request = Request._from_raw(
                message.method, message.url, message.headers, call.reader or message.body, message.cf
            )
            response = await self._fetch(message, request, invocation)
            status, headers, body, reason = raw_parts(response)
        except BaseException as error:
            await self._failed(message.call, error, invocation)
            return
        if body is None or (type(body) is bytes and len(body) <= INLINE_BODY_BYTES_MAX):
            self._channel.send(
                messages.HttpResponse(
                    message.call, status, headers, body, False, reason, invocation.pending is not None
                )
            )
        else:
            await self._stream(message.call, call, status, headers, body, reason, invocation)
        await self._finish(message.call, invocation)

    async def _fetch(self, message: messages.HttpRequest, request: Request, invocation: Invocation) -> Any:
        cls, kind = self._worker.find(message.target)
        if kind == "handlers":
            result = relaxed_call(cls, request, self._env, ExecutionContext(message.props))
        else:
            instance = cls(ExecutionContext(message.props), self._env)
            handler = getattr(instance, "fetch", None)
            if handler is None:
                raise TypeError("Handler does not export a fetch() function.")
            result = relaxed_call(handler, request, self._env, instance.ctx if hasattr(instance, "ctx") else None)
        return await result if inspect.isawaitable(result) else result

    async def _stream(
        self,
        number: int,
        call: IncomingCall,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes],
        reason: str,
        invocation: Invocation,
    ) -> None:
        if call.gone:
            self._channel.send(
                messages.HttpResponse(number, status, headers, None, False, reason, invocation.pending is not None)
            )
            await _close(body)
            return
        self._channel.send(messages.HttpResponse(number, status, headers, None, True, reason, True))
        call.writer = BodyWriter(self._channel, number)
        try:
            call.pump = self._loop.create_task(call.writer.pump(_chunks(body)))
            await call.pump
        except asyncio.CancelledError:
            if not call.gone:
                raise
        except Exception as error:
            self._logs.emit("error", f"The response body broke off: {error}", to_error_value(error).stack)
        await _close(body)
        invocation.pending = invocation.pending or set()

    def _method(self, message: messages.RpcCall) -> Callable[..., Any]:
        """The method of an entrypoint that is made for this call."""
        cls, _ = self._worker.find(message.target)
        if message.method not in methods_of(cls):
            raise TypeError(f"Method {message.method} does not exist")
        method: Callable[..., Any] = getattr(cls(ExecutionContext(message.props), self._env), message.method)
        return method

    async def _serve_rpc(
        self, message: messages.RpcCall | messages.StubCall, method: Callable[[], Callable[..., Any]]
    ) -> None:
        invocation = Invocation(
            message.request_id, traceparent=message.traceparent, depth=message.depth, scope=message.scope
        )
        current.set(invocation)
        try:
            if message.stubs:
                args, kwargs = self._stubs.arrived(message.stubs, invocation).decode(message.args)
            else:
                args, kwargs = values.decode(message.args, mapping=JsDict)
            result = method()(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            packing = Packing(self._stubs, invocation)
            data = packing.encode(result)
        except BaseException as error:
            await self._failed(message.call, error, invocation)
            return
        lease = self._stubs.lease(packing.numbers)
        del args, kwargs, result  # what only they hold is let go before the lease is over
        self._channel.send(messages.RpcResult(message.call, data, invocation.pending is not None, packing.numbers))
        await self._finish(message.call, invocation, lease)

    def stream_open(self, message: messages.StreamOpen) -> None:
        call = self.calls[message.call] = IncomingCall()
        given = self._stubs.given.get(message.stub)
        call.task = self._loop.create_task(self._serve_stream(message.call, call, given and given.target))

    async def _serve_stream(self, number: int, call: IncomingCall, stream: Any) -> None:
        """Sends a stream that was given away, on behalf of the invocation that makes it."""
        try:
            if not isinstance(stream, GivenStream):
                raise TypeError("There is no stream behind this stub.")
            chunks = stream.open()
        except TypeError as error:
            await self._failed(number, error, Invocation(""))
            return
        current.set(stream.invocation)
        self._channel.send(messages.HttpResponse(number, 200, [], None, True, "", True))
        if not call.gone:
            call.writer = BodyWriter(self._channel, number)
            pump = call.pump = self._loop.create_task(call.writer.pump(chunks))
            stream.pumped_by(pump)
            await asyncio.wait((pump,))
            if pump.cancelled():
                call.gone = True
            elif (broken := pump.exception()) is not None:
                self._logs.emit("error", f"A stream broke off: {broken}", to_error_value(broken).stack)
        if call.gone:
            await stream.cancel()
        self._channel.send(messages.CallEnded(number))
        self.calls.pop(number, None)
        if not self.calls:
            self._on_idle()

    async def _failed(self, number: int, error: BaseException, invocation: Invocation) -> None:
        value = to_error_value(error)
        self._logs.emit("error", f"Uncaught {value.name}: {value.message}", value.stack)
        code = WorkerLoopError.code if value.name == WorkerLoopError.__name__ else WorkerError.code
        self._channel.send(messages.CallFailed(number, value, code, invocation.pending is not None))
        await self._finish(number, invocation)

    async def _finish(self, number: int, invocation: Invocation, lease: asyncio.Future[None] | None = None) -> None:
        """Keeps the invocation alive for its waitUntil work, at most 30 s in all, and while others hold what it has
        returned; then lets go of it. To the node the call is over before that: to be held is no work."""
        if invocation.pending is not None:
            await self._wait_for_pending(invocation)
            self._channel.send(messages.CallEnded(number))
        if lease is not None:
            await lease
            await self._wait_for_pending(invocation)  # what its streams have begun meanwhile
        invocation.over = True
        close_unread(invocation.unread)
        self.calls.pop(number, None)
        if not self.calls:
            self._on_idle()

    async def _wait_for_pending(self, invocation: Invocation) -> None:
        deadline = self._loop.time() + WAIT_UNTIL_MS / 1000
        while invocation.pending:
            left = deadline - self._loop.time()
            if left <= 0:
                self._give_up_waiting(invocation)
                break
            await asyncio.wait(invocation.pending, timeout=left)
            await asyncio.sleep(0)  # lets done callbacks take finished ones out, and new ones in

    def _give_up_waiting(self, invocation: Invocation) -> None:
        for task in list(invocation.pending or ()):
            task.cancel()
        self._logs.emit("warn", f"waitUntil() work was cancelled: it took more than {WAIT_UNTIL_MS // 1000} s", "")

    # -- bodies and the end of calls ----------------------------------------------------------------------------------

    def body(self, number: int, chunk: bytes) -> None:
        call = self.calls.get(number)
        if call is not None and call.reader is not None:
            call.reader.feed(chunk)
        else:
            self._channel.send(messages.Credit(number, len(chunk)))

    def body_ended(self, message: messages.BodyEnd) -> None:
        if (call := self.calls.get(message.call)) is not None and call.reader is not None:
            call.reader.finish(message.error)

    def credit(self, message: messages.Credit) -> None:
        if (call := self.calls.get(message.call)) is not None and call.writer is not None:
            call.writer.grant(message.size)

    def cancelled(self, message: messages.CallCancelled) -> None:
        """The caller has gone. As on Cloudflare the handler may go on for its waitUntil work; its body is not sent, and
        a generator that makes it is ended wherever it waits."""
        call = self.calls.get(message.call)
        if call is None:
            return
        call.gone = True
        if message.abort and call.task is not None:
            call.task.cancel()
        if call.writer is not None:
            call.writer.cancel()
        if call.pump is not None:
            call.pump.cancel()
        if call.reader is not None:
            call.reader.finish("the client has gone")


async def _chunks(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    async for chunk in body:
        yield chunk


async def _close(body: bytes | AsyncIterator[bytes]) -> None:
    """Lets go of a body that is not read to its end; after its end this does nothing."""
    close = getattr(body, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):  # it is the user's generator, and nobody is left to tell
            await close()
