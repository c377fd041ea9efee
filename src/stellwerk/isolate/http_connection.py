"""One outgoing HTTP/1.1 connection, and the one exchange that is on it at a time.

An ``asyncio.Protocol`` on httptools: bytes are parsed where they arrive and kept until the reader takes them; a reader
that is slow stops the socket (``FETCH_BODY_BUFFER``). A connection ends in one of two ways: the exchange was whole on
both sides and the server keeps the connection, then it may be used again; or it is closed.
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


class Connection(asyncio.Protocol):
    """``exchange`` sends a request and returns when the head of its answer is there; ``next_chunk`` gives the body."""

    def __init__(self, origin: str, stall_s: float) -> None:
        self.origin = origin
        self.closed = False
        self.status = 0
        self.reason = ""
        self.headers: RawHeaders = []
        self.ended = True  # the answer is here to its last byte
        self.untouched = True  # no byte of an answer came in this exchange
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._failure: OSError | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._head_done = True
        self._head_bytes = 0
        self._to_head = False
        self._until_close = False
        self._keep = False
        self._reading_paused = False
        self._writable = True
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._active_at = 0.0
        self.rested: asyncio.TimerHandle | None = None  # ends the rest in the pool

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.ended:  # nothing was asked: whatever this is, it is no answer of ours
            self.close()
            return
        self._active_at = self._loop.time()
        self.untouched = False
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("switched protocols without being asked to")
        except httptools.HttpParserError as error:
            if not self.ended:
                self._fail(f"answered what is no HTTP/1.1 ({error})")
            self.close()
        if not self._head_done and self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
            self._fail(f"answered with a head of more than {RESPONSE_HEAD_BYTES_MAX} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.ended:
            if self._head_done and self._until_close and error is None:
                self._finish()
            elif self._failure is None:
                where = "in the middle of its answer" if self._head_done else "before it answered"
                self._fail(f"closed the connection {where}", error)
        self._stop_watchdog()
        self._wake_reader()
        self._wake_writer()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._active_at = self._loop.time()
        self._wake_writer()

    # -- what httptools calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:  # a second answer to one request: the two sides no longer mean the same thing
            self.close()

    def on_status(self, reason: bytes) -> None:
        self.reason = reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # later ones are trailers, which fetch does not show
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.headers, self.reason = [], ""  # an interim answer; the real one follows
            return
        self.status, self._head_done = status, True
        self._keep = self._parser.should_keep_alive()
        names = {name for name, _ in self.headers}
        self._until_close = b"content-length" not in names and b"transfer-encoding" not in names
        if self._to_head:
            self._finish()  # the parser would wait for a body; what follows on this connection has a new parser
        self._wake_reader()

    def on_body(self, data: bytes) -> None:
        if self._to_head:
            self._keep = False  # a body where none may be: the next answer could not be told from it
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > FETCH_BODY_BUFFER and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def on_message_complete(self) -> None:
        if self._head_done and not self.ended:
            self._finish()

    # -- one exchange -------------------------------------------------------------------------------------------------

    async def exchange(self, head: bytes, body: bytes | AsyncIterator[bytes] | None, *, method: str, size: int) -> None:
        """Sends the request; returns when the answer's head is there (``status``, ``headers``). ``size`` is the length
        that ``head`` promises for a body in pieces, -1 when it is chunked. Raises ``FetchError``."""
        if self.rested is not None:
            self.rested.cancel()
        self.status, self.reason, self.headers = 0, "", []
        self.ended, self.untouched, self._head_done, self._head_bytes = False, True, False, 0
        self._to_head, self._until_close, self._keep = method == "HEAD", False, False
        self._parser = httptools.HttpResponseParser(self)
        self._active_at = self._loop.time()
        if self.closed:
            self._fail("closed the connection before it answered")
            assert self._failure is not None
            raise self._failure
        self._watchdog = self._loop.call_later(self._stall_s, self._look)
        if body is None or isinstance(body, bytes):
            self._write(head + body if body else head)
        else:
            self._write(head)
            self._sender = asyncio.create_task(self._send(body, size))
        while not self._head_done and not self.ended:
            await self._wait_to_read()
        if self._failure is not None and not self._head_done:
            raise self._failure

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

    async def next_chunk(self) -> bytes | None:
        """The next piece of the body; None at its end. Raises ``FetchError`` when it broke off."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return None
            await self._wait_to_read()
        if len(self._chunks) == 1:
            data = self._chunks.popleft()
        else:  # many small pieces arrived: one hand-over for all
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._buffered = 0
        if self._reading_paused and not self.closed and self._transport is not None:
            self._reading_paused = False
            self._active_at = self._loop.time()
            self._transport.resume_reading()
        return data

    @property
    def whole_body(self) -> bytes | None:
        """The body, if it is here already and small; it is then taken."""
        if not self.ended or self._failure is not None or self._buffered > BODY_CHUNK_BYTES:
            return None
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        return data

    @property
    def loop_closed(self) -> bool:
        return self._loop.is_closed()

    @property
    def has_body(self) -> bool:
        return not self._to_head and self.status not in _NO_BODY

    @property
    def reusable(self) -> bool:
        sent = self._sender is None or self._sender.done()
        return self._keep and self.ended and sent and not self.closed and not self._until_close and not self._chunks

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The answer is whole."""
        if self._until_close and self.has_body:
            self._keep = False
        self._until_close = False
        self.ended = True
        self._stop_watchdog()
        self._wake_reader()

    def _fail(self, what: str, cause: Exception | None = None) -> None:
        if self._failure is None:
            self._failure = FetchError(f"{self.origin} {what}.")
            self._failure.__cause__ = cause
        self.ended = True
        self.close()
        self._wake_reader()

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
        if self._reading_paused or idle < self._stall_s:
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

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
