"""The HTTP/1.1 client behind ``fetch``: pooled connections, redirects, streaming both ways, gzip and deflate.

Our own code and not httpx, because what the isolate imports is what the user's Worker gets when it imports the same
name: a Worker that brings its own httpx, h11 or anyio must find that one, not ours. httptools and the standard library
are all this needs.

Every connection is made by the one ``connect`` that the client is given; nothing else here opens a socket.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from workers._host import RawRequest, RawResponse

from stellwerk.core.limits import (
    BODY_CHUNK_BYTES,
    FETCH_CONNECT_TIMEOUT_MS,
    FETCH_CONNECTIONS_PER_ORIGIN_MAX,
    FETCH_IDLE_CONNECTION_MS,
    FETCH_REDIRECTS_MAX,
    FETCH_STALL_TIMEOUT_MS,
)
from stellwerk.isolate.http_connection import Answer, Connection, FetchError, RawHeaders

# Makes a connection to host and port (with TLS if the last is true) that is driven by what the factory returns.
Connect = Callable[[Callable[[], Connection], str, int, bool], Awaitable[Connection]]

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_BODILESS: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "DELETE"))
_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
# Ours to say, on each hop anew (RFC 9110, 7.6.1). ``host`` follows from the URL, as in the Fetch standard.
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
_OURS: Final = _HOP_BY_HOP | {b"host", b"content-length"}
_SECRETS: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization"))  # never follow to another origin
_TARGET: Final = re.compile(r"[!-~]+\Z")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class Origin(NamedTuple):
    """What a connection can be shared for."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        default = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == default else f":{self.port}")


@dataclass(slots=True)
class _Pool:
    """The connections to one origin: those at rest, how many there are, and who waits for one."""

    idle: list[Connection] = field(default_factory=list)
    open: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def wake_one(self) -> None:
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class DirectConnect:
    """The plain ``connect``: name lookup, TCP, TLS with the system's certificates (or ``context``)."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    async def __call__(self, factory: Callable[[], Connection], host: str, port: int, tls: bool) -> Connection:
        context = None
        if tls:
            if self._context is None:  # reading the certificates takes milliseconds: once, and only if needed
                self._context = ssl.create_default_context()
            context = self._context
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(factory, host, port, ssl=context)
        return connection


class HttpClient:
    """Sends ``RawRequest``, answers ``RawResponse``. Raises ``OSError`` that names the origin when no answer can be
    had, and ``ValueError`` for a request that cannot be written down."""

    def __init__(
        self,
        connect: Connect,
        *,
        connect_timeout_ms: int = FETCH_CONNECT_TIMEOUT_MS,
        stall_timeout_ms: int = FETCH_STALL_TIMEOUT_MS,
        idle_ms: int = FETCH_IDLE_CONNECTION_MS,
        connections_max: int = FETCH_CONNECTIONS_PER_ORIGIN_MAX,
    ) -> None:
        self._connect = connect
        self._connect_timeout_ms = connect_timeout_ms
        self._stall_s = stall_timeout_ms / 1000
        self._idle_s = idle_ms / 1000
        self._connections_max = connections_max
        self._pools: dict[Origin, _Pool] = {}
        self._live: set[Connection] = set()
        self._closed = False

    async def fetch(self, request: RawRequest) -> RawResponse:
        """Follows redirects as ``request.redirect`` says: follow (at most 20), manual, error."""
        method, url, body = request.method, request.url, request.body
        headers = [(name.lower(), value) for name, value in request.headers]
        for redirects in range(FETCH_REDIRECTS_MAX + 1):
            response = await self._send(method, url, headers, body)
            location = _header(response.headers, b"location")
            if response.status not in _REDIRECTS or not location or request.redirect == "manual":
                response.url, response.redirected = url, redirects > 0
                return response
            await _discard(response.body)
            if request.redirect == "error":
                raise FetchError(f"{url} answered with a redirect, and this fetch has redirect='error'.")
            target = urljoin(url, quote(location.encode("latin-1"), safe="%/:?#[]@!$&'()*+,;=~"))
            if _changes_method(response.status, method):
                method, body = "GET", None
                headers = [pair for pair in headers if not pair[0].startswith(b"content-")]
            elif body is not None and not isinstance(body, bytes):
                raise FetchError(f"{url} answered {response.status}, and a body that is a stream cannot be sent again.")
            if _origin(target) != _origin(url):
                headers = [pair for pair in headers if pair[0] not in _SECRETS]
            url = target
        raise FetchError(f"{request.url} led through more than {FETCH_REDIRECTS_MAX} redirects.")

    async def close(self) -> None:
        """Closes every connection, at rest or not."""
        self._closed = True
        for connection in list(self._live):
            connection.close()
        self._live.clear()
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            while pool.waiting:
                pool.wake_one()

    # -- one request --------------------------------------------------------------------------------------------------

    async def _send(
        self, method: str, url: str, headers: RawHeaders, body: bytes | AsyncIterator[bytes] | None
    ) -> RawResponse:
        origin = _origin(url)
        head, size = _request_head(method, url, origin, headers, body)
        replayable = (body is None or isinstance(body, bytes)) and (
            method in _IDEMPOTENT or any(name == b"idempotency-key" for name, _ in headers)
        )
        while True:
            connection, fresh = await self._acquire(origin)
            try:
                answer = await connection.exchange(head, body, method=method, size=size)
            except OSError:
                # A connection that rested may have been closed by the server while the request was on its way. Nothing
                # came back, so it may be sent again if doing it twice is harmless.
                again = replayable and not fresh and (connection.answer is None or connection.answer.untouched)
                self._release(origin, connection)
                if not again:
                    raise
                continue
            except BaseException:
                connection.close()
                self._release(origin, connection)
                raise
            return self._response(origin, connection, answer)

    def _response(self, origin: Origin, connection: Connection, answer: Answer) -> RawResponse:
        status, reason = answer.status, answer.reason
        # What belongs to this connection goes no further: a Worker may hand the answer on as its own.
        headers = [pair for pair in answer.headers if pair[0] not in _HOP_BY_HOP]
        if not answer.has_body:
            self._release(origin, connection)
            return RawResponse(status, headers, None, reason)
        decoder = _decoder(_header(headers, b"content-encoding").lower())
        if decoder is not None:
            headers = [pair for pair in headers if pair[0] not in (b"content-encoding", b"content-length")]
        whole = connection.whole_body(answer) if decoder is None else None
        if whole is not None:
            self._release(origin, connection)
            return RawResponse(status, headers, whole, reason)
        body = _Body(connection, answer, lambda: self._release(origin, connection))
        return RawResponse(status, headers, body if decoder is None else decoder(body, str(origin)), reason)

    # -- the pool -----------------------------------------------------------------------------------------------------

    async def _acquire(self, origin: Origin) -> tuple[Connection, bool]:
        """A connection, and whether it is a fresh one."""
        pool = self._pools.setdefault(origin, _Pool())
        while True:
            if self._closed:
                raise FetchError(f"{origin} was not asked: the isolate is ending.")
            while pool.idle:
                connection = pool.idle.pop()  # the one used last is the likeliest to be still open
                if not connection.closed:
                    return connection, False
                self._forget(origin, connection)
            if pool.open < self._connections_max:
                return await self._open(origin, pool), True
            waiter = asyncio.get_running_loop().create_future()
            pool.waiting.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    pool.wake_one()  # the turn was ours already: pass it on
                raise

    async def _open(self, origin: Origin, pool: _Pool) -> Connection:
        pool.open += 1
        try:
            async with asyncio.timeout(self._connect_timeout_ms / 1000):
                connection = await self._connect(
                    lambda: Connection(str(origin), self._stall_s), origin.host, origin.port, origin.scheme == "https"
                )
        except BaseException as error:
            self._gone(origin, pool)
            if isinstance(error, TimeoutError):
                raise FetchError(f"{origin} took no connection within {self._connect_timeout_ms} ms.") from error
            if isinstance(error, OSError) and not isinstance(error, FetchError):
                raise FetchError(f"{origin} cannot be reached: {error}.") from error
            raise
        self._live.add(connection)
        return connection

    def _release(self, origin: Origin, connection: Connection) -> None:
        """Called once when an exchange has ended, well or badly."""
        pool = self._pools.get(origin)
        if pool is None or connection not in self._live:
            connection.close()
            return
        if not connection.reusable:
            connection.close()
            self._forget(origin, connection)
            return
        pool.idle.append(connection)
        loop = asyncio.get_running_loop()
        connection.rested = loop.call_later(self._idle_s, self._expire, origin, connection)
        pool.wake_one()

    def _expire(self, origin: Origin, connection: Connection) -> None:
        pool = self._pools.get(origin)
        if pool is not None and connection in pool.idle:
            pool.idle.remove(connection)
            connection.close()
            self._forget(origin, connection)

    def _forget(self, origin: Origin, connection: Connection) -> None:
        self._live.discard(connection)
        pool = self._pools.get(origin)
        if pool is not None:
            self._gone(origin, pool)

    def _gone(self, origin: Origin, pool: _Pool) -> None:
        """There is room for one more connection."""
        pool.open -= 1
        pool.wake_one()
        if pool.open == 0 and not pool.waiting:
            self._pools.pop(origin, None)


class _Body:
    """The body of an answer, as it comes. Whoever stops reading early closes it; whoever drops it does so too."""

    def __init__(self, connection: Connection, answer: Answer, release: Callable[[], None]) -> None:
        self._connection: Connection | None = connection
        self._answer, self._release = answer, release

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration
        try:
            chunk = await connection.next_chunk(self._answer)
        except BaseException:
            await self.aclose()
            raise
        if chunk is None:
            self._connection = None
            self._release()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._release()

    def __del__(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.loop_closed:
            connection.close()
            self._release()


async def _discard(body: bytes | AsyncIterator[bytes] | None) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


def _header(headers: RawHeaders, name: bytes) -> str:
    return next((value.decode("latin-1").strip() for key, value in headers if key == name), "")


def _changes_method(status: int, method: str) -> bool:
    """The Fetch standard: 303 makes a GET of everything but GET and HEAD, 301 and 302 only of POST."""
    return (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST")


def _origin(url: str) -> Origin:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchError(f"{url} is no URL: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url} cannot be fetched: only http and https URLs can.")
    if parts.username is not None:
        raise FetchError("A URL with a user name in it cannot be fetched. Send an authorization header instead.")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def _request_head(
    method: str, url: str, origin: Origin, headers: RawHeaders, body: bytes | AsyncIterator[bytes] | None
) -> tuple[bytes, int]:
    """The request's head, and the length that it promises for a body in pieces (-1: chunked)."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.match(target) or not _TOKEN.match(method.encode()):
        raise ValueError(f"{method} {target!r} cannot be written as the first line of a request.")
    host = str(origin).partition("://")[2]
    lines = [f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n".encode()]
    declared, names = "", set()
    for name, value in headers:
        names.add(name)
        if name == b"content-length":
            declared = value.decode("latin-1").strip()
        if name in _OURS:
            continue
        if not _TOKEN.match(name) or b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError(f"The header {name!r} with the value {value!r} cannot be sent.")
        lines.append(b"%b: %b\r\n" % (name, value))
    if b"accept-encoding" not in names:
        lines.append(b"accept-encoding: gzip, deflate\r\n")
    size = -1
    if isinstance(body, bytes):
        size = len(body)
        lines.append(b"content-length: %d\r\n" % size)
    elif body is None:
        if method not in _BODILESS:
            lines.append(b"content-length: 0\r\n")
    elif declared.isascii() and declared.isdigit():
        size = int(declared)
        lines.append(b"content-length: %d\r\n" % size)
    else:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines), size


# -- content codings --------------------------------------------------------------------------------------------------

_Decoder = Callable[[_Body, str], AsyncIterator[bytes]]


def _decoder(coding: str) -> _Decoder | None:
    if coding in ("gzip", "x-gzip"):
        return _gunzipped
    return _inflated if coding == "deflate" else None


async def _gunzipped(body: _Body, origin: str) -> AsyncIterator[bytes]:
    async for chunk in _decompressed(body, origin, lambda _: zlib.decompressobj(16 + zlib.MAX_WBITS)):
        yield chunk


async def _inflated(body: _Body, origin: str) -> AsyncIterator[bytes]:
    async for chunk in _decompressed(body, origin, _deflate_object):
        yield chunk


def _deflate_object(first: bytes) -> zlib._Decompress:
    """``deflate`` means zlib's format; servers that send it bare exist, and every client forgives them."""
    is_zlib = first[0] & 0x0F == 8 and (len(first) < 2 or (first[0] * 256 + first[1]) % 31 == 0)
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


async def _decompressed(body: _Body, origin: str, make: Callable[[bytes], zlib._Decompress]) -> AsyncIterator[bytes]:
    """Pieces of at most ``BODY_CHUNK_BYTES``, however well the server has packed them."""
    machine: zlib._Decompress | None = None
    try:
        async for chunk in body:
            rest = chunk
            while rest:
                if machine is None or machine.eof:  # gzip allows several members in a row
                    machine = make(rest)
                plain = machine.decompress(rest, BODY_CHUNK_BYTES)
                if plain:
                    yield plain
                rest = machine.unused_data if machine.eof else machine.unconsumed_tail
        if machine is not None and not machine.eof:
            raise FetchError(f"{origin} answered with a compressed body that breaks off.")
    except zlib.error as error:
        raise FetchError(f"{origin} answered with a compressed body that is damaged: {error}.") from error
    finally:
        await body.aclose()
