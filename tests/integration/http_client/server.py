"""A real server for the tests of the client: each connection runs a script that the test gives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from workers._host import RawRequest, RawResponse

from stellwerk.isolate.http_client import DirectConnect, HttpClient


@dataclass
class Asked:
    """One request as the server read it."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    port: int = 0
    connections: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Script = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One connection, seen from the server."""

    server: Server
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Asked:
        """The next request, whole."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        body = b""
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        asked = Asked(line, headers, body)
        self.server.asked.append(asked)
        return asked

    async def answer(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server whose connections run ``script``; each ends when it returns. What it raises fails the test."""
    server = Server()
    failures: list[BaseException] = []
    running: set[asyncio.Task[Any]] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        running.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await script(Visit(server, server.connections, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has closed, or the test has ended
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()

    listener = await asyncio.start_server(visit, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await listener.wait_closed()
    assert not failures, failures


async def always(visit: Visit, data: bytes) -> None:
    """Answers every request of a connection with ``data``."""
    while True:
        await visit.request()
        await visit.answer(data)


@asynccontextmanager
async def a_client(**options: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient(options.pop("connect", DirectConnect()), **options)
    try:
        yield client
    finally:
        await client.close()


def ask(url: str, method: str = "GET", *, body: Any = None, redirect: str = "follow", **headers: str) -> RawRequest:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return RawRequest(method, url, pairs, body, redirect)


async def read(response: RawResponse) -> bytes:
    body = response.body
    if body is None or isinstance(body, bytes):
        return body or b""
    return b"".join([chunk async for chunk in body])


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))
