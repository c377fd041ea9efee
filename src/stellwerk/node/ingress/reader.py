"""Bytes in, requests out: the parser, the strict rules and the size limits, with no I/O.

Two traps of the parser shape this file. It reports nothing while a header is incomplete, so sizes are counted in bytes
*fed*, and while a head is awaited it is fed in small pieces. And it stops at an upgrade as if the body belonged to
another protocol, so an upgrade that nobody takes goes on with a new parser.
"""

from __future__ import annotations

from collections import deque

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from stellwerk.node.ingress import strict
from stellwerk.node.ingress.exchange import Carrier, Exchange
from stellwerk.node.ingress.strict import HeaderList, Refusal

HEAD_PIECE_BYTES = 4_096  # so a head over its limit is noticed, and few requests are parsed past PIPELINE_MAX
CHUNKED_PIECE_BYTES = 16_384  # behind a chunked body the next heads may follow in the same piece
_SLACK = HEAD_PIECE_BYTES  # how far `head_bytes` may be from a head's true size
_START_BYTES_MAX = 1_024  # before anything of a request line was seen: empty lines, or a method that does not end
_CHUNK_FRAME_BYTES = 12  # of a chunk's frame are not counted as overhead: size, two line breaks


class RequestReader:
    """Reads the requests of one connection.

    ``ready`` receives exchanges in order: whole ones, and those whose body follows (``streaming``) as soon as their
    head is in. ``refusal`` is set at the first fault; from then on nothing may be fed. ``finished`` is set after a
    request that ends the connection; what follows it is to be ignored.
    """

    __slots__ = (
        "_accepts",
        "_bodies",
        "_chunks",
        "_connection",
        "_framed",
        "_headers",
        "_host",
        "_host_known",
        "_left",
        "_limits",
        "_overhead",
        "_parser",
        "_received",
        "_target",
        "_watched",
        "body_bytes",
        "finished",
        "head_bytes",
        "open",
        "ready",
        "refusal",
        "requests",
    )

    def __init__(self, connection: Carrier, limits: strict.IngressLimits) -> None:
        self._connection, self._limits = connection, limits
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self.ready: deque[Exchange] = deque()
        self.open: Exchange | None = None  # whose body is being read
        self.refusal: Refusal | None = None
        self.finished = False
        self.requests = 0
        self.head_bytes = 0  # fed since the last request without completing a head
        self.body_bytes = 0  # of all bodies so far: progress for the stall deadline
        # Most requests of a connection name the same host. The first value is one that no header can have.
        self._host_known: tuple[bytes | None, str] = (b"\0", "")
        self._left = self._received = self._overhead = self._chunks = 0
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._host: bytes | None = None
        self._headers: HeaderList = []
        self._watched: dict[bytes, bytes] | None = None
        self._framed = False  # a header about framing or the connection was among them

    def close(self) -> None:
        """Lets go of the parser, which holds this reader in a cycle."""
        self._parser = None

    def piece_bytes(self) -> int:
        """How much may be fed at once: never beyond the end of a body of known length."""
        if self.open is None:
            return HEAD_PIECE_BYTES
        return self._left or CHUNKED_PIECE_BYTES

    def must_wait(self) -> bool:
        """Whether no more may be read: too many requests wait, or too much of a body that nobody consumed."""
        if len(self.ready) >= self._limits.pipeline_max:
            return True
        exchange = self.open
        return exchange is not None and exchange.streaming and exchange._unconsumed >= self._limits.body_window_bytes

    def accept(self) -> bytes:
        """The Accept header of the request that is being read, for the page that refuses it."""
        return b",".join(value for name, value in self._headers if name == b"accept")

    def feed(self, data: bytes | memoryview) -> None:
        """Reads one piece of at most ``piece_bytes()``."""
        if self.refusal is not None or self.finished or self._parser is None:
            return
        count, was_open, bodies, chunks = self.requests, self.open, self.body_bytes, self._chunks
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._parser = HttpRequestParser(self)
            self.feed(memoryview(data)[upgrade.args[0] :])
            return
        except HttpParserError as error:
            if not self.finished:
                self.refusal = _translate(error)
            return
        if self.open is None:
            if self.requests == count:
                self._count_head(len(data))
        elif was_open is not None and self.open is was_open and not self._left:
            self._overhead += len(data) - (self.body_bytes - bodies) - _CHUNK_FRAME_BYTES * (self._chunks - chunks)
            if self._overhead > self._limits.chunk_overhead_bytes_max:
                self.refusal = strict.ambiguous("The chunks of the body have too many extensions or trailers.")
        exchange = self.open
        if exchange is not None and not exchange.streaming and (not self._left or self._must_stream(exchange)):
            self._begin_streaming(exchange)

    def _must_stream(self, exchange: Exchange) -> bool:
        if exchange._framing.expects:
            return True
        return exchange._framing.length > self._limits.inline_body_bytes_max

    def _begin_streaming(self, exchange: Exchange) -> None:
        exchange.streaming = True
        self.ready.append(exchange)

    def _count_head(self, size: int) -> None:
        self.head_bytes += size
        if not self._target and self.head_bytes > _START_BYTES_MAX:
            self.refusal = strict.ambiguous("There is no request line.")
        elif self.head_bytes > self._limits.head_bytes_max + _SLACK:
            self.refusal = strict.head_too_large(self._limits)

    # -- callbacks of the parser; what they raise arrives in `_translate` ---------------------------------------------

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > self._limits.url_bytes_max:
            raise strict.url_too_long(self._limits)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.open is not None:
            return  # a trailer: dropped, as allowed; one called Host would otherwise pass for a header
        name = name.lower()
        if name == b"host":
            if self._host is not None:
                raise strict.ambiguous("The Host header came twice.")
            self._host = value
        elif name in strict.WATCHED:
            self._watch(name, value)
            if name in strict.HOP_BY_HOP:
                return
        elif b"_" in name and strict.looks_like_watched(name):
            raise strict.ambiguous(f"The header {name.decode('latin-1')} looks like one about framing.")
        self._headers.append((name, value))

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"connection" and value.lower() == b"keep-alive":
            return  # what HTTP/1.1 does anyway, and what most clients say: not worth a closer look
        if self._watched is None:
            self._watched = {}
        if name in self._watched:
            value = strict.join_watched(name, self._watched[name], value)
        self._watched[name] = value
        if name not in strict.ONCE:
            self._framed = True

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        method = strict.METHODS.get(parser.get_method())
        version = parser.get_http_version()
        if method is None or (version != "1.1" and version != "1.0"):
            raise _wrong_request_line(method)
        target = strict.check_target(self._target)
        host = self._host_known[1]
        if self._host != self._host_known[0]:
            host = strict.check_host(self._host)
            self._host_known = (self._host, host)
        if len(self._headers) > self._limits.headers_max or self.head_bytes > self._limits.head_bytes_max - _SLACK:
            self._check_sizes()
        self.head_bytes = 0
        framing = strict.PLAIN
        if self._framed or version == "1.0":
            framing = strict.framing(version, self._watched or {}, self._limits)
            if framing.dropped:
                self._headers = [header for header in self._headers if header[0] not in framing.dropped]
        self.open = exchange = Exchange(self._connection, method, target, host, self._headers, framing)
        if framing.length or framing.chunked:
            exchange._ended = None
            exchange._held = []
            exchange._unconsumed = 0
            self._left, self._received, self._overhead = framing.length, 0, 0

    def _check_sizes(self) -> None:
        size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        if len(self._headers) > self._limits.headers_max or size > self._limits.head_bytes_max:
            raise strict.head_too_large(self._limits)

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, chunk: bytes) -> None:
        exchange = self.open
        assert exchange is not None
        size = len(chunk)
        exchange._held.append(chunk)
        exchange._unconsumed += size
        self.body_bytes += size
        if self._left:
            self._left -= size
            return
        self._received += size
        if self._received > self._limits.body_bytes_max:
            raise strict.body_too_large(self._limits)

    def on_message_complete(self) -> None:
        exchange = self.open
        assert exchange is not None
        self.open = None
        self.requests += 1
        if exchange._ended is None:
            exchange._ended = ""
            if not exchange.streaming:
                held = exchange._held
                exchange.body = (held[0] if len(held) == 1 else b"".join(held)) or None
        if not exchange.streaming:
            self.ready.append(exchange)
        if exchange._framing.close:
            self.finished = True
        self._reset()


def _wrong_request_line(method: str | None) -> Refusal:
    if method is None:
        return Refusal(501, "request.method", "This method is not supported.")
    return Refusal(505, "request.version", "The only versions understood are HTTP/1.1 and HTTP/1.0.")


def _translate(error: HttpParserError) -> Refusal:
    """The parser's complaint, or what one of our callbacks raised inside it, as a refusal."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    return strict.ambiguous(f"The request cannot be parsed: {error}.")
