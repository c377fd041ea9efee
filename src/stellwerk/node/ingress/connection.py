"""One client's connection: reads requests, hands them to the handler one after the other, writes the answers.

Answers leave in the order of their requests because the next exchange is begun only when the one before is over.
What is read ahead is bounded twice: ``PIPELINE_MAX`` requests that wait, and ``STREAM_CREDIT_BYTES`` of a body that
the handler has not consumed; beyond either the socket is not read. A connection keeps no timer of its own: the
server's sweeper asks each second what it waits for (``sweep``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from stellwerk.core.limits import BODY_PROGRESS_BYTES
from stellwerk.node.ingress import pages
from stellwerk.node.ingress.answer import render_head
from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.reader import RequestReader
from stellwerk.node.ingress.strict import IngressLimits, Refusal

if TYPE_CHECKING:
    from stellwerk.node.ingress.server import IngressServer

log = logging.getLogger("stellwerk.ingress")

_HOLD_BYTES_MAX = 16_384  # of a streamed answer's beginning that wait for the end of the turn


class Connection(asyncio.Protocol):
    """The server's end of one TCP connection."""

    def __init__(self, server: IngressServer) -> None:
        self.server = server
        self.limits: IngressLimits = server.limits
        self.scheme = server.scheme
        self.client = ""
        self.draining = False  # answers from now on carry ``connection: close``
        self.write_paused = False
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(self, server.limits)
        self._waiting = self._reader.ready
        self._current: Exchange | None = None
        self._unfed: bytes | memoryview = b""  # received but not to be parsed yet
        self._feeding = self._pumping = self._read_paused = False
        self._lingering = False
        self._held: list[bytes] = []  # output that waits for the end of the turn
        self._mark: tuple[str, int] = ("", 0)  # what the sweeper saw last, and since when
        self._mark_at_ms = 0

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.write_buffer_bytes)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self.server.admit(self):
            self._refuse(Refusal(503, "capacity.connections", "This node has too many connections open."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._held.clear()
        self._waiting.clear()
        exchange, self._current = self._current, None
        self._reader.close()
        self.server.forget(self)
        if exchange is not None:
            self._abandon(exchange, "the client closed the connection")

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._unfed:
            self._unfed = bytes(self._unfed) + data
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """The client sends no more: taken as gone, as nobody can tell a half-close from a closed browser."""

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        exchange = self._current
        if exchange is not None and exchange.answered and exchange.on_writable is not None:
            self._guard(exchange, exchange.on_writable)
        self._go_on()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes | memoryview) -> None:
        """Parses what was received, in pieces, until it must wait for the handler or the client."""
        reader = self._reader
        self._feeding = True
        try:
            if len(data) <= reader.piece_bytes():  # nearly always
                reader.feed(data)
                self._pump()
                return
            view = memoryview(data)
            while view and not self._lingering:
                if self._must_wait():
                    self._unfed = view
                    return
                size = reader.piece_bytes()
                reader.feed(view[:size])
                view = view[size:]
                self._pump()
        finally:
            self._feeding = False
            self._regulate()

    def _pump(self) -> None:
        """Begins the exchanges whose turn it is, and delivers what came of the current one's body."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._current is None and self._waiting and not self.write_paused and not self._lingering:
                self._begin(self._waiting.popleft())
        finally:
            self._pumping = False
        exchange, reader = self._current, self._reader
        if exchange is not None and exchange.streaming:
            self._guard(exchange, exchange._deliver)
        if reader.refusal is not None:
            self._settle_refusal(reader.refusal)

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self.server.requests += 1
        try:
            self.server.handle(exchange)
        except Exception:
            self._failed(exchange)
        if exchange.streaming and not exchange._over:
            exchange._say_continue()

    def _settle_refusal(self, refusal: Refusal) -> None:
        """A fault in what was read: in the body of the current exchange, or behind all exchanges before it."""
        exchange = self._current
        if exchange is not None and exchange is self._reader.open:
            self._guard(exchange, exchange._break_body, refusal.message)
            if not exchange._over:
                if not exchange.answered:
                    self._abandon(exchange, "")
                    self._refuse(refusal)
                else:
                    self.broken(exchange)
                    self._guard(exchange, exchange._tell_gone)
        elif exchange is None and (not self._waiting or self._waiting[0] is self._reader.open):
            self._refuse(refusal)

    def _must_wait(self) -> bool:
        if len(self._waiting) >= self.limits.pipeline_max:
            return True
        exchange = self._reader.open
        return exchange is not None and exchange.streaming and exchange._unconsumed >= self.limits.body_window_bytes

    def _regulate(self) -> None:
        """Reads on or stops reading, whichever is due. Nothing is parsed here."""
        wait = not self._lingering and (bool(self._unfed) or self._must_wait())
        if wait != self._read_paused and self._transport is not None and not self._transport.is_closing():
            self._read_paused = wait
            if wait:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _go_on(self) -> None:
        """Something that was waited for has happened: begin, parse and read what may be."""
        if self._feeding or self._pumping or self._transport is None:
            return
        self._pump()
        if self._unfed and not self._must_wait():
            data, self._unfed = self._unfed, b""
            self._feed(data)
        elif self._read_paused:
            self._regulate()

    # -- for the exchange ---------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Writes, behind what is held for the end of the turn."""
        if self._held:
            self._held.append(data)
            if len(self._held) > 8 or len(data) > _HOLD_BYTES_MAX:
                self._flush()
        elif self._transport is not None:
            self._transport.write(data)

    def hold(self, data: bytes) -> None:
        """Writes at the end of the turn, so that the head of an answer leaves together with its first piece."""
        if self._transport is not None:
            self._held.append(data)
            self.server.end_of_turn(self._flush)

    def _flush(self) -> None:
        if self._held and self._transport is not None:
            data = b"".join(self._held)
            self._held.clear()
            self._transport.write(data)

    def consumption(self, exchange: Exchange) -> None:
        """The handler has consumed something of this exchange's body, or is ready to."""
        if exchange is not self._current:
            return
        exchange._say_continue()
        if exchange._held and not self._feeding:
            self._guard(exchange, exchange._deliver)
        if self._read_paused and exchange._unconsumed <= self.limits.body_window_bytes // 2:
            self._go_on()

    def over(self, exchange: Exchange) -> None:
        """The answer is complete. The next exchange follows, or the end of the connection."""
        exchange._over = True
        if exchange is not self._current:
            return
        self._current = None
        if self._held:
            self._flush()
        if exchange._ended is None:
            self._linger()  # the request's body is still coming and nobody wants it
        elif exchange._close or self.draining:
            self._close_soon()
        elif not self._pumping:
            self._go_on()

    def broken(self, exchange: Exchange) -> None:
        """The answer ends in the middle. Only a reset tells that to a client that reads until the end."""
        exchange._over = True
        if exchange is self._current:
            self._current = None
            self._flush()
            self._waiting.clear()
            if self._transport is not None:
                if exchange._chunked or exchange._left:
                    self._transport.close()
                else:
                    self._transport.abort()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _guard(self, exchange: Exchange, callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            self._failed(exchange)

    def _failed(self, exchange: Exchange) -> None:
        log.exception("%s %s: the handler failed", exchange.method, exchange.target)
        exchange.refuse(500, "platform.internal", "Something went wrong inside the platform.")

    def _abandon(self, exchange: Exchange, reason: str) -> None:
        """Nobody waits for this answer any more. A failing handler is only logged."""
        exchange.answered = exchange._over = True
        if exchange is self._current:
            self._current = None
        try:
            if reason:
                exchange._over = False  # so that the end of the body is told as well
                exchange._break_body(reason)
                exchange._over = True
            exchange._tell_gone()
        except Exception:
            log.exception("%s %s: the handler failed as the client went away", exchange.method, exchange.target)

    def _refuse(self, refusal: Refusal) -> None:
        """Answers with an error page, then ends the connection."""
        self.server.refused += 1
        accept = self._reader.accept()
        kind, page = pages.render(
            refusal.status, refusal.code, refusal.message, accept=accept, retryable=refusal.status == 503
        )
        headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
        head, _ = render_head(refusal.status, "", headers, self.limits.response_head_bytes_max)
        size = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(page)
        self.send(b"".join((head, self.server.stamp, size, page)))
        self._linger()

    def _linger(self) -> None:
        """Closes our side, then reads and discards: closing with unread input would reset the answer away."""
        transport = self._transport
        self._waiting.clear()
        self._unfed = b""
        if transport is None or self._lingering or transport.is_closing():
            return
        self._lingering = True
        self._flush()
        if transport.can_write_eof():
            transport.write_eof()
            self._regulate()
        else:
            transport.close()

    def _close_soon(self) -> None:
        """Closes when everything is written."""
        self._waiting.clear()
        if self._unfed or self._read_paused:
            self._linger()
        elif self._transport is not None:
            self._transport.close()

    def drain(self) -> None:
        """Ends as soon as nothing is under way; what is, is finished first."""
        self.draining = True
        if self._current is None and not self._waiting and self._reader.open is None and not self._reader.head_bytes:
            self._close_soon()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def sweep(self, now_ms: int) -> None:
        """Ends the connection when what it waits for has not moved within its limit."""
        mark = self._waits_for()
        if mark != self._mark:
            self._mark, self._mark_at_ms = mark, now_ms
            return
        waited_ms, limit = now_ms - self._mark_at_ms, self.limits
        what = mark[0]
        if what == "head" and waited_ms >= limit.head_timeout_ms:
            self._refuse(Refusal(408, "request.timeout", "The request head took too long to arrive."))
        elif what == "idle" and waited_ms >= limit.keepalive_timeout_ms:
            self._close_soon()
        elif what == "body" and waited_ms >= limit.body_stall_timeout_ms:
            self._reader.refusal = Refusal(408, "request.timeout", "The request body stopped arriving.")
            self._settle_refusal(self._reader.refusal)
        elif (what == "write" and waited_ms >= limit.body_stall_timeout_ms) or (
            what == "linger" and waited_ms >= limit.linger_ms
        ):
            self.abort()

    def _waits_for(self) -> tuple[str, int]:
        """What must move next, and a number that changes when it does."""
        reader = self._reader
        if self._lingering:
            return "linger", 0
        if self.write_paused and self._transport is not None:
            return "write", self._transport.get_write_buffer_size()
        if reader.open is not None and not self._read_paused:
            return "body", reader.body_bytes // BODY_PROGRESS_BYTES
        if self._current is not None or self._waiting:
            return "busy", 0
        return ("head" if reader.head_bytes else "idle"), reader.requests
