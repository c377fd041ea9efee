"""Just enough HTTP/1.1 for a stand-in of the outside world: JSON in, JSON out, keep-alive, and a way to hang up.

Standard library only, and no framework: what misbehaves here (slow answers, lost answers) must misbehave on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

BODY_BYTES_MAX = 64 * 1024  # an order is about 400 bytes
REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 402: "Payment Required", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request, read to its end."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class HangUp(Exception):
    """Raised by a handler to close the connection without an answer."""


Handler = Callable[[Call], Awaitable[tuple[int, dict[str, Any]]]]


async def serve(handler: Handler, port: int) -> asyncio.Server:
    """Answers on the loopback address; ``port`` 0 lets the system choose."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A caller that goes away in the middle of anything is normal here: the demo kills it on purpose.
        try:
            while (call := await _read_call(reader)) is not None:
                status, answer = await handler(call)
                writer.write(_encode(status, answer))
                await writer.drain()
                if call.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, HangUp):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return await asyncio.start_server(connection, "127.0.0.1", port)


async def _read_call(reader: asyncio.StreamReader) -> Call | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None  # the caller is done with this connection
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = await _read_chunks(reader)
    else:
        size = int(headers.get("content-length", "0"))
        if size > BODY_BYTES_MAX:
            raise HangUp
        raw = await reader.readexactly(size)
    return Call(method, path, headers, json.loads(raw) if raw else {})


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        if len(body) + size > BODY_BYTES_MAX:
            raise HangUp
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return body


def _encode(status: int, answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    reason = REASONS.get(status, "Service Unavailable")
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def post(url: str, body: dict[str, Any], *, token: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """One POST on a connection of its own. Raises ``OSError`` or ``TimeoutError`` when there is no whole answer."""
    parts = urlsplit(url)
    raw = json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(head.encode() + raw)
            await writer.drain()
            answer = await reader.read()  # to the end: we asked the server to close
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    status_line, _, rest = answer.partition(b"\r\n")
    if not status_line.startswith(b"HTTP/1.1 "):
        raise ConnectionResetError("the answer broke off")
    return int(status_line.split()[1]), _json_body(rest)


def _json_body(rest: bytes) -> dict[str, Any]:
    try:
        value = json.loads(rest.partition(b"\r\n\r\n")[2])
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
