"""One outgoing HTTP/1.1 connection, and the one exchange that is on it at a time.

``Answer`` is the pure half: bytes in, status, headers and body out, on httptools. ``Connection`` is an
``asyncio.Protocol`` around it: bytes are parsed where they arrive and kept until the reader takes them; a reader that
is slow stops the socket (``FETCH_BODY_BUFFER``). A connection ends in one of two ways: the exchange was whole on both
sides and the server keeps the connection, then it may be used again; or it is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import httptools

from stellwerk.core.limits import BODY_CHUNK_BYTES, RESPONSE_HEAD_BYTES_MAX, STREAM_CREDIT_BYTES

FETCH_BODY_BUFFER: Final = STREAM_CREDIT_BYTES  # what may wait for a slow reader, as on the channel
_NO_BODY: Final = frozenset((204, 304))

RawHeaders = list[tuple[bytes, bytes]]


class FetchError(OSError):
    """No answer could be had, or its body broke off. The text names the origin."""


class Answer:
    """What a server says to one request, as far as it has come."""

    def __init__(self, method: str) -> None:
        self.status = 0
        self.reason = ""
        self.headers: RawHeaders = []
        self.head_done = False
        self.ended = False  # it is here to its last byte
        self.keep = False  # the server will take another request on this connection
        self.untouched = True  # not a byte of it has come
        self.buffered = 0
        self._chunks: deque[bytes] = deque()
        self._head_bytes = 0
        self._to_head = method == "HEAD"
        self._until_close = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises ``ValueError`` with what the server did, where that makes no answer."""
        self.untouched = False
        if not self.head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise ValueError("switched protocols without being asked to") from None
        except httptools.HttpParserError as error:
            self.keep = False
            if not self.ended:
                raise ValueError(f"answered what is no HTTP/1.1 ({error})") from None
        if not self.head_done and self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
            raise ValueError(f"answered with a head of more than {RESPONSE_HEAD_BYTES_MAX} bytes")

    def end_of_connection(self) -> bool:
        """Whether that is how this answer may end."""
        if self.head_done and self._until_close:
            self.ended = True
        return self.ended

    def take(self) -> bytes:
        """The part of the body that waits: many small pieces in one."""
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered = 0
        return data

    @property
    def has_body(self) -> bool:
        return not self._to_head and self.status not in _NO_BODY

    # -- what httptools calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:  # a second answer to one request: the two sides no longer mean the same thing
            self.keep = False

    def on_status(self, reason: bytes) -> None:
        if not self.ended:
            self.reason = reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # later ones are trailers, which fetch does not show
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers, self.reason = [], ""  # an interim answer; the real one follows
            return
        self.status, self.head_done = status, True
        self.keep = self._parser.should_keep_alive()
        names = {name for name, _ in self.headers}
        self._until_close = self.has_body and not names & {b"content-length", b"transfer-encoding"}
        if self._to_head:
            self.ended = True  # the parser would wait for a body; the next answer has a parser of its own

    def on_body(self, data: bytes) -> None:
        if self.ended:
            self.keep = False  # a body where none may be: the next answer could not be told from it
            return
        self._chunks.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.ended = True


class Connection(asyncio.Protocol):
    """``exchange`` sends a request and returns when the head of its answer is there; ``next_chunk`` gives the body."""

    def __init__(self, origin: str, stall_s: float) -> None:
        self.origin = origin
        self.closed = False
        self.answer: Answer | None = None  # of the exchange that is under way, or was the last
        self.rested: asyncio.TimerHandle | None = None  # ends the rest in the pool
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._failure: OSError | None = None
        self._paused = False
        self._writable = True
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._active_at = 0.0

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None or answer.ended:  # nothing was asked: whatever this is, it is no answer of ours
            self.close()
            return
        self._active_at = self._loop.time()
        try:
            answer.feed(data)
        except ValueError as error:
            self._fail(str(error))
            return
        if answer.ended:
            self._stop_watchdog()
        elif answer.buffered > FETCH_BODY_BUFFER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if answer.head_done:
            _wake(self._reader)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        answer = self.answer
        under_way = answer is not None and not answer.ended and self._failure is None
        if answer is not None and under_way and (error is not None or not answer.end_of_connection()):
            where = "in the middle of its answer" if answer.head_done else "before it answered"
            self._fail(f"closed the connection {where}", error)
        self._stop_watchdog()
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._active_at = self._loop.time()
        _wake(self._writer)

    # -- one exchange -------------------------------------------------------------------------------------------------

    async def exchange(
        self, head: bytes, body: bytes | AsyncIterator[bytes] | None, *, method: str, size: int
    ) -> Answer:
        """Sends the request; returns when the answer's head is there. Raises ``FetchError``.

        ``size`` is the length that ``head`` promises for a body in pieces, -1 when it is chunked."""
        if self.rested is not None:
            self.rested.cancel()
        answer = self.answer = Answer(method)
        if self.closed:
            self._fail("closed the connection before it answered")
        else:
            self._active_at = self._loop.time()
            self._watchdog = self._loop.call_later(self._stall_s, self._look)
            if body is None or isinstance(body, bytes):
                self._write(head + body if body else head)
            else:
                self._write(head)
                self._sender = asyncio.create_task(self._send(body, size))
        while not answer.head_done and self._failure is None:
            await self._wait_to_read()
        if self._failure is not None and not answer.head_done:
            raise self._failure
        return answer

    def _write(self, data: bytes) -> None:
        if not self.closed and self._transport is not None:
            self._transport.write(data)

    async def _send(self, body: AsyncIterator[bytes], size: int) -> None:
        """The request's body, at the speed at which the server takes it."""
        sent = 0
        try:
            async for chunk in body:
                sent += len(chunk)
                if size >= 0 and sent > size:
                    raise ValueError(f"the body is longer than its content-length of {size}")
                if not chunk:
                    continue
                self._write(chunk if size >= 0 else b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self._active_at = self._loop.time()
                while not self._writable and not self.closed:
                    self._writer = self._loop.create_future()
                    await self._writer
                if self.closed:
                    return
            if size >= 0 and sent < size:
                raise ValueError(f"the body has {sent} bytes, its content-length says {size}")
            if size < 0:
                self._write(b"0\r\n\r\n")
        except Exception as error:  # the program's own generator failed: the request cannot be completed
            self._fail(f"was sent a body that broke off ({error})", error)
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def next_chunk(self, answer: Answer) -> bytes | None:
        """The next piece of the body; None at its end. Raises ``FetchError`` when it broke off."""
        while not answer.buffered:
            if answer.ended:
                return None
            if self._failure is not None:
                raise self._failure
            await self._wait_to_read()
        data = answer.take()
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._active_at = self._loop.time()
            self._transport.resume_reading()
        return data

    def whole_body(self, answer: Answer) -> bytes | None:
        """The body, if it is here already and small; it is then taken."""
        return answer.take() if answer.ended and answer.buffered <= BODY_CHUNK_BYTES else None

    @property
    def reusable(self) -> bool:
        answer = self.answer
        sent = self._sender is None or self._sender.done()
        return answer is not None and answer.ended and answer.keep and sent and not answer.buffered and not self.closed

    @property
    def loop_closed(self) -> bool:
        return self._loop.is_closed()

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _fail(self, what: str, cause: Exception | None = None) -> None:
        if self._failure is None:
            self._failure = FetchError(f"{self.origin} {what}.")
            self._failure.__cause__ = cause
        self.close()
        _wake(self._reader)

    def close(self) -> None:
        """At once, whatever is under way. Closing twice is harmless."""
        self.closed = True
        self._stop_watchdog()
        if self.rested is not None:
            self.rested.cancel()
        if self._sender is not None and not self._sender.done() and self._sender is not _current_task():
            self._sender.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        """The watchdog: has anything moved lately? A reader that does not read is no fault of the server."""
        idle = self._loop.time() - self._active_at
        if self._paused or idle < self._stall_s:
            self._watchdog = self._loop.call_later(max(self._stall_s - idle, 0.01), self._look)
        else:
            self._fail(f"moved no byte for {self._stall_s:g} s", TimeoutError())

    def _stop_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    async def _wait_to_read(self) -> None:
        self._reader = self._loop.create_future()
        await self._reader


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
