"""One request and its answer on a connection: what a handler gets, and all that it may do with it.

Callbacks instead of coroutines, because this is the hottest path: no task, future or event per request. Everything
that comes too late (after the end of the answer, after the client went away) is dropped without a word, so a handler
needs no check before each call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from stellwerk.node.ingress import pages
from stellwerk.node.ingress.answer import CONTINUE, LAST_CHUNK, BadAnswer, chunk_parts, render_head
from stellwerk.node.ingress.outlet import Outlet
from stellwerk.node.ingress.strict import Framing, HeaderList, IngressLimits

log = logging.getLogger("stellwerk.ingress")

_BODYLESS = frozenset((204, 205, 304))
_JOIN_BYTES_MAX = 16_384  # up to here copying into one buffer is cheaper than handing over several


class Server(Protocol):
    """What an exchange needs of the server: the date, and the end of the loop's turn."""

    stamp: bytes
    end_of_turn: Callable[[Callable[[], None]], None]


class Carrier(Protocol):
    """What an exchange needs of the connection that it came on."""

    limits: IngressLimits
    scheme: str
    client: str
    draining: bool
    outlet: Outlet

    @property
    def server(self) -> Server: ...

    def consumption(self, exchange: Exchange) -> None: ...

    def over(self, exchange: Exchange) -> None: ...

    def broken(self, exchange: Exchange) -> None: ...


class Exchange:
    """A request (read-only) and the methods that answer it.

    Exactly one of ``respond``, ``start`` (then ``write``... ``finish`` or ``break_off``) and ``refuse`` answers. When
    ``streaming``, the handler sets ``on_chunk`` and ``on_end`` and reports with ``consumed`` what it has taken; at
    most ``STREAM_CREDIT_BYTES`` are read ahead of it. It may set them later than in ``handle``: what came in is kept,
    and a client that sent ``Expect: 100-continue`` gets its 100 when ``on_chunk`` is set.
    """

    __slots__ = (
        "_chunked",
        "_close",
        "_connection",
        "_ended",
        "_framing",
        "_held",
        "_left",
        "_mute",
        "_on_chunk",
        "_over",
        "_unconsumed",
        "answered",
        "body",
        "client",
        "head_only",
        "headers",
        "host",
        "method",
        "on_end",
        "on_gone",
        "on_writable",
        "scheme",
        "streaming",
        "target",
    )
    # Filled by `reader.py` when there is a body, and by `start` when the answer is streamed; most have neither.
    _held: list[bytes]
    _unconsumed: int
    _mute: bool
    _chunked: bool
    _left: int | None

    def __init__(
        self, connection: Carrier, method: str, target: str, host: str, headers: HeaderList, framing: Framing
    ) -> None:
        self._connection = connection
        self.method, self.target, self.host, self.headers = method, target, host, headers
        self.scheme, self.client = connection.scheme, connection.client
        self.head_only = method == "HEAD"
        self.body: bytes | None = None
        self.streaming = False
        self.answered = False
        self._on_chunk: Callable[[bytes], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._framing = framing
        self._close = framing.close
        self._over = False
        self._ended: str | None = ""  # None while a body is still coming in

    @property
    def on_chunk(self) -> Callable[[bytes], None] | None:
        """Takes the pieces of a streamed body. What came in before it is set is kept for it."""
        return self._on_chunk

    @on_chunk.setter
    def on_chunk(self, callback: Callable[[bytes], None] | None) -> None:
        self._on_chunk = callback
        if self.streaming and not self._over:
            # A handler that was not ready at once gets what has come, and its client the 100 it waits for; not here,
            # but when it has had its turn to set `on_end` as well.
            self._connection.server.end_of_turn(partial(self._connection.consumption, self))

    # -- the request's body -------------------------------------------------------------------------------------------

    def consumed(self, size: int) -> None:
        """The handler has taken ``size`` bytes of the body: as many more may be read."""
        if self.streaming and not self._over:
            self._unconsumed = max(0, self._unconsumed - size)
            self._connection.consumption(self)

    def _deliver(self) -> None:
        """Hands over what has come in, in one piece, and then the end."""
        if self._on_chunk is not None and self._held:
            chunk = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            self._call(self._on_chunk, chunk)
        if self._ended == "" and not self._held and not self._over:
            self._tell_end("")

    def _tell_end(self, reason: str) -> None:
        if self.on_end is not None:
            callback, self.on_end = self.on_end, None
            self._call(callback, reason)

    def _say_continue(self) -> None:
        """Asks for the body, once, when the client waits for that and the handler is ready for it."""
        if self._framing.expects and self._on_chunk is not None and not self.answered:
            self._framing = Framing(close=self._framing.close, old=self._framing.old)
            if self._ended is None and not self._held:
                self._connection.outlet.send(CONTINUE)

    # -- the answer ---------------------------------------------------------------------------------------------------

    def respond(self, status: int, headers: HeaderList, body: bytes | None, reason: str = "") -> None:
        """The whole answer, in one write. ``content-length`` is added; for HEAD the body is measured and not sent."""
        if self.answered:
            return
        connection = self._connection
        try:
            head, length = render_head(status, reason, headers, connection.limits.response_head_bytes_max)
        except BadAnswer as error:
            self._answer_badly(error)
            return
        self.answered = True
        size = b""
        if status in _BODYLESS:
            body = None
            if status == 304 and length is not None:
                size = b"content-length: %d\r\n" % length
            elif status == 205:
                size = b"content-length: 0\r\n"
        elif self.head_only:
            if body:
                length = len(body)
            if length is not None:
                size = b"content-length: %d\r\n" % length
            body = None
        else:
            size = b"content-length: %d\r\n" % len(body) if body else b"content-length: 0\r\n"
        if self._ended != "":
            self._close = True  # the rest of the request's body is not worth reading, or will not come
        ending = self._ending()
        if body and len(body) > _JOIN_BYTES_MAX:
            connection.outlet.send(b"".join((head, connection.server.stamp, size, ending)))
            connection.outlet.send(body)
        else:
            connection.outlet.send(b"".join((head, connection.server.stamp, size, ending, body or b"")))
        connection.over(self)

    def start(self, status: int, headers: HeaderList, reason: str = "") -> None:
        """Begins a streamed answer. A ``content-length`` among the headers is kept to; otherwise it is chunked."""
        if self.answered:
            return
        connection = self._connection
        try:
            head, length = render_head(status, reason, headers, connection.limits.response_head_bytes_max)
        except BadAnswer as error:
            self._answer_badly(error)
            self._tell_gone()  # so that nobody goes on writing
            return
        self.answered = True
        self._mute = self.head_only or status in _BODYLESS
        self._left = None
        self._chunked = False
        size = b""
        if length is not None and status not in (204, 205):
            size = b"content-length: %d\r\n" % length
            if not self._mute:
                self._left = length
        elif status == 205:
            size = b"content-length: 0\r\n"
        elif not self._mute and not self._framing.old:  # HTTP/1.0 knows no chunks and ends with the connection
            size, self._chunked = b"transfer-encoding: chunked\r\n", True
        connection.outlet.hold(b"".join((head, connection.server.stamp, size, self._ending())))
        if (
            self._mute
        ):  # nothing of the body will be sent, so nobody need make it, and the client need not wait for that
            self.finish()
            self._tell_gone()

    def _ending(self) -> bytes:
        if self._close or self._connection.draining:
            self._close = True
            return b"connection: close\r\n\r\n"
        return b"\r\n"

    def write(self, chunk: bytes) -> bool:
        """Sends a piece of a streamed answer. False: the client is slow, go on when ``on_writable`` is called."""
        if self._over or not chunk:
            return True
        if not self.answered:
            raise RuntimeError("write() before start()")
        connection = self._connection
        if self._mute:
            return True
        if self._chunked:
            parts = chunk_parts(chunk)
            if len(chunk) > _JOIN_BYTES_MAX:
                for part in parts:
                    connection.outlet.send(part)
            else:
                connection.outlet.send(b"".join(parts))
        elif self._left is None:
            connection.outlet.send(chunk)
        else:
            self._write_measured(chunk, self._left)
        return not connection.outlet.write_paused

    def _write_measured(self, chunk: bytes, left: int) -> None:
        self._connection.outlet.send(chunk if len(chunk) <= left else chunk[:left])
        self._left = max(0, left - len(chunk))
        if len(chunk) > left:
            log.warning(
                "%s %s: the answer is longer than its content-length; the rest is dropped", self.method, self.target
            )
            self._close = True
            self.finish()
            self._tell_gone()

    def finish(self) -> None:
        """Ends a streamed answer."""
        if self._over:
            return
        if not self.answered:
            raise RuntimeError("finish() before start()")
        if self._left:
            log.warning(
                "%s %s: the answer is %d bytes short of its content-length", self.method, self.target, self._left
            )
            self.break_off()
            return
        if self._chunked:
            self._connection.outlet.send(LAST_CHUNK)
        self._connection.over(self)

    def break_off(self) -> None:
        """The answer broke in the middle: the connection ends without its proper end, which the client sees."""
        if self._over:
            return
        if not self.answered:
            self.refuse(500, "platform.internal", "The answer broke off before it began.")
            return
        self._connection.broken(self)

    def refuse(
        self,
        status: int,
        code: str,
        message: str,
        *,
        cloudflare_code: int | None = None,
        retryable: bool = False,
        request_id: str = "",
    ) -> None:
        """Answers with an error page: HTML when the client prefers it, else JSON. After ``start`` it breaks off."""
        if self.answered:
            self.break_off()
            return
        accept = b",".join(value for name, value in self.headers if name == b"accept")
        kind, page = pages.render(
            status,
            code,
            message,
            accept=accept,
            cloudflare_code=cloudflare_code,
            retryable=retryable,
            request_id=request_id,
        )
        self.respond(status, [(b"content-type", kind), (b"cache-control", b"no-store")], page)

    def _answer_badly(self, error: BadAnswer) -> None:
        log.error("%s %s: the answer cannot be sent: %s", self.method, self.target, error)
        self.refuse(500, "worker.bad_answer", f"The answer cannot be sent: {error}.", cloudflare_code=1101)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Calls into the handler; its failure becomes an error page, or a broken answer, and a line in the log."""
        try:
            callback(*arguments)
        except Exception:
            log.exception("%s %s: the handler failed", self.method, self.target)
            self.refuse(500, "platform.internal", "Something went wrong inside the platform.")

    def _break_body(self, reason: str) -> None:
        """The request's body will not come to its end; the handler hears why."""
        if self._ended is None:
            self._ended = reason
            if self.streaming:
                self._held.clear()
                self._tell_end(reason)

    def _abandon(self, reason: str) -> None:
        """Nobody waits for this answer any more."""
        self.answered = self._over = True
        if reason:
            self._break_body(reason)
        self._tell_gone()

    def _tell_gone(self) -> None:
        if self.on_gone is not None:
            callback, self.on_gone = self.on_gone, None
            self._call(callback)
