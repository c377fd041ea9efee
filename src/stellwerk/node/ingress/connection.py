"""One client's connection: reads requests, hands them to the handler one after the other, keeps order and bounds.

Answers leave in the order of their requests because the next exchange is begun only when the one before is over.
What is read ahead is bounded twice: ``PIPELINE_MAX`` requests that wait, and ``STREAM_CREDIT_BYTES`` of a body that
the handler has not consumed; beyond either the socket is not read.

A client that sends no more (end of file) is taken as gone, because nobody can tell a half-closed connection from a
closed browser; asyncio then closes the transport by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from stellwerk.core.limits import BODY_PROGRESS_BYTES
from stellwerk.node.ingress import pages
from stellwerk.node.ingress.answer import render_head
from stellwerk.node.ingress.deadlines import Awaited, Deadline
from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.outlet import Outlet
from stellwerk.node.ingress.reader import RequestReader
from stellwerk.node.ingress.strict import IngressLimits, Refusal


class Host(Protocol):
    """What a connection needs of the server that accepted it."""

    take: Callable[[Exchange], None]  # into the handler's hands, soon
    end_of_turn: Callable[[Callable[[], None]], None]
    limits: IngressLimits
    scheme: str
    stamp: bytes
    requests: int
    refused: int

    def admit(self, connection: Connection) -> bool: ...

    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """The server's end of one TCP connection."""

    outlet: Outlet

    def __init__(self, server: Host) -> None:
        self.server = server
        self.limits, self.scheme = server.limits, server.scheme
        self.client = ""
        self.draining = False  # answers from now on carry ``connection: close``
        self._reader = RequestReader(self, server.limits)
        self._waiting = self._reader.ready
        self._current: Exchange | None = None
        self._unfed: bytes | memoryview = b""  # received, but not to be parsed yet
        self._feeding = self._pumping = False
        self._deadline = Deadline()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=self.limits.write_buffer_bytes)
        self.outlet = Outlet(stream, self.server.end_of_turn)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self.server.admit(self):
            self._refuse(Refusal(503, "capacity.connections", "This node has too many connections open."))

    def connection_lost(self, exc: Exception | None) -> None:
        self.outlet.lost()
        self._waiting.clear()
        self._reader.close()
        exchange, self._current = self._current, None
        self.server.forget(self)
        if exchange is not None:
            exchange._abandon("The client closed the connection.")

    def data_received(self, data: bytes) -> None:
        if self.outlet.ended:
            return
        if self._unfed:
            self._unfed = bytes(self._unfed) + data
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        self.outlet.write_paused = True

    def resume_writing(self) -> None:
        self.outlet.write_paused = False
        exchange = self._current
        if exchange is not None and exchange.answered and exchange.on_writable is not None:
            exchange._call(exchange.on_writable)
        self._go_on()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes | memoryview) -> None:
        """Parses what was received, in pieces, until it must wait for the handler or the client."""
        reader = self._reader
        self._feeding = True
        try:
            while len(data) > (size := reader.piece_bytes()):  # hardly ever
                data = memoryview(data)
                reader.feed(data[:size])
                data = data[size:]
                self._pump()
                if self.outlet.ended:
                    return
                if reader.must_wait():
                    self._unfed = data
                    return
            reader.feed(data)
            self._pump()
        finally:
            self._feeding = False
            self._regulate()

    def _pump(self) -> None:
        """Begins the exchanges whose turn it is, and hands over what came of the current one's body."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                exchange = self._current
                if exchange is None:
                    if not self._waiting or self.outlet.write_paused or self.outlet.ended:
                        break
                    exchange = self._begin()
                if exchange.streaming and not exchange._over:
                    exchange._deliver()
                if self._current is exchange:
                    break
        finally:
            self._pumping = False
        if self._reader.refusal is not None and not self.outlet.ended:
            self._settle(self._reader.refusal)

    def _begin(self) -> Exchange:
        self._current = exchange = self._waiting.popleft()
        self.server.requests += 1
        self.server.take(exchange)
        if exchange.streaming:
            exchange._say_continue()
        return exchange

    def _settle(self, refusal: Refusal) -> None:
        """A fault in what was read: in the body of the current exchange, or behind all exchanges before it."""
        exchange = self._current
        if exchange is not None and exchange is self._reader.open:
            exchange._break_body(refusal.message)  # the handler may answer now; if it does, `over` closes
            if exchange._over:
                return
            if exchange.answered:
                self.broken(exchange)
                exchange._abandon("")
            else:
                self._current = None
                exchange._abandon("")
                self._refuse(refusal)
        elif exchange is None and not self._waiting:
            self._refuse(refusal)

    def _regulate(self) -> None:
        """Stops reading or reads on, whichever is due."""
        self.outlet.pause_reading(not self.outlet.ended and (bool(self._unfed) or self._reader.must_wait()))

    def _go_on(self) -> None:
        """Something that was waited for has happened: begin, parse and read what may be."""
        if self._feeding or self._pumping:
            return
        self._pump()
        if self._unfed and not self._reader.must_wait():
            data, self._unfed = self._unfed, b""
            self._feed(data)
        else:
            self._regulate()

    # -- for the exchange ---------------------------------------------------------------------------------------------

    def consumption(self, exchange: Exchange) -> None:
        """The handler has consumed something of this exchange's body, or is ready to."""
        if exchange is self._current:
            exchange._say_continue()
            self._go_on()

    def over(self, exchange: Exchange) -> None:
        """The answer is complete. The next exchange follows, or the end of the connection."""
        exchange._over = True
        if exchange is not self._current:
            return
        self._current = None
        self.outlet.flush()
        if exchange._ended != "":
            self._end(linger=True)  # the request's body is still coming, or broke off
        elif exchange._close or self.draining:
            self._end(linger=bool(self._unfed))
        elif not self._pumping:
            self._go_on()

    def broken(self, exchange: Exchange) -> None:
        """The answer ends in the middle. Only a reset tells that to a client that reads until the end."""
        exchange._over = True
        if exchange is self._current:
            self._current = None
            self._waiting.clear()
            if exchange._chunked or exchange._left:
                self.outlet.close()
            else:
                self.outlet.abort()

    # -- the end ------------------------------------------------------------------------------------------------------

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
        self.outlet.send(b"".join((head, self.server.stamp, size, page)))
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        self._waiting.clear()
        self._unfed = b""
        if linger:
            self.outlet.linger()
        else:
            self.outlet.close()

    def drain(self) -> None:
        """Ends as soon as nothing is under way; what is, is finished first."""
        self.draining = True
        reader = self._reader
        if self._current is None and not self._waiting and reader.open is None and not reader.head_bytes:
            self._end(linger=False)

    def sweep(self, now_ms: int) -> None:
        """Ends the connection when what it waits for has not moved within its limit."""
        awaited, progress = self._awaits()
        if not self._deadline.passed(awaited, progress, now_ms, self.limits):
            return
        match awaited:
            case Awaited.HEAD:
                self._refuse(Refusal(408, "request.timeout", "The request head took too long to arrive."))
            case Awaited.BODY:
                refusal = Refusal(408, "request.timeout", "The request body stopped arriving.")
                self._reader.refusal = refusal
                self._settle(refusal)
            case Awaited.NEXT | Awaited.END:  # not reset: the kernel may still have some of the answer to deliver
                self._end(linger=False)
            case _:
                self.outlet.abort()

    def _awaits(self) -> tuple[Awaited, int]:
        """What must move next, and a number that changes when it does."""
        reader, unsent = self._reader, self.outlet.unsent_bytes
        if unsent is not None:
            return Awaited.READER, unsent
        if self.outlet.lingering:
            return Awaited.END, 0
        if reader.open is not None and not reader.must_wait() and not self._unfed:
            return Awaited.BODY, reader.body_bytes // BODY_PROGRESS_BYTES
        if self._current is not None or self._waiting:
            return Awaited.HANDLER, 0
        return (Awaited.HEAD if reader.head_bytes else Awaited.NEXT), reader.requests
