"""Calls that this isolate has started: over service and workflow bindings, answered by the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from workers._host import RawRequest, RawResponse

from stellwerk.core.limits import INLINE_BODY_BYTES_MAX
from stellwerk.isolate.bodies import BodyReader, BodyWriter
from stellwerk.isolate.failures import from_error_value
from stellwerk.isolate.invocation import Invocation, book
from stellwerk.isolate.stubs import Stubs
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import Channel


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


class OutgoingCalls:
    """The isolate's own calls, by odd number."""

    def __init__(self, channel: Channel, stubs: Stubs) -> None:
        self._channel, self._stubs = channel, stubs
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, OutgoingCall] = {}
        self._next_call = 1
        self._tasks: set[asyncio.Task[Any]] = set()

    async def call(self, make: Callable[[int], messages.Message]) -> Any:
        """Sends what ``make(number)`` makes and returns the answer. Raises the callee's exception."""
        call, outgoing = self._open()
        self._channel.send(make(call))
        try:
            return await outgoing.answer
        except asyncio.CancelledError:
            answer = outgoing.answer
            if answer.cancelled() or not answer.done():
                self._channel.send(messages.CallCancelled(call))
            elif answer.exception() is None:
                self._stubs.unwanted(getattr(answer.result(), "stubs", None))
            raise
        finally:
            self._calls.pop(call, None)

    async def fetch(self, binding: str, request: RawRequest, invocation: Invocation) -> RawResponse:
        """A request over a service binding."""
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
        answer = await self._head(call, outgoing, invocation)
        return RawResponse(answer.status, answer.headers, outgoing.reader or answer.body, answer.reason, request.url)

    async def open_stream(self, stub: int, invocation: Invocation) -> BodyReader:
        """The chunks of a stream that this isolate holds. Raises ``OSError`` when it cannot be had."""
        call, outgoing = self._open()
        self._channel.send(messages.StreamOpen(call, stub))
        try:
            await self._head(call, outgoing, invocation)
        except Exception as error:
            raise OSError(f"The body broke off: {error}") from error
        if outgoing.reader is None:
            raise OSError("The body broke off: there is none.")
        return outgoing.reader

    async def _head(self, call: int, outgoing: OutgoingCall, invocation: Invocation) -> messages.HttpResponse:
        """The answer, whose body, if it comes in pieces, ends with ``invocation``."""
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
            book(invocation, outgoing.reader)
        return answer

    def _open(self) -> tuple[int, OutgoingCall]:
        call, self._next_call = self._next_call, self._next_call + 2
        outgoing = self._calls[call] = OutgoingCall(self._loop.create_future())
        return call, outgoing

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())

    # -- the node answers ---------------------------------------------------------------------------------------------

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None:
        outgoing = self._calls.get(message.call)
        if outgoing is None or outgoing.answer.done():
            if isinstance(message, messages.RpcResult):
                self._stubs.unwanted(message.stubs)
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

    def cancelled(self, message: messages.CallCancelled) -> None:
        outgoing = self._calls.get(message.call)
        if outgoing is not None:
            outgoing.end()


def _split(body: bytes | AsyncIterator[bytes] | None) -> tuple[bytes | None, AsyncIterator[bytes] | None]:
    """What rides in the head, and what follows in pieces."""
    if body is None:
        return None, None
    if isinstance(body, bytes):
        return (body, None) if len(body) <= INLINE_BODY_BYTES_MAX else (None, _once(body))
    return None, body


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
