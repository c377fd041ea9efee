"""A real server and raw clients for the tests of the ingress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.server import IngressServer
from stellwerk.node.ingress.strict import IngressLimits

T = TypeVar("T")
DEADLINE_S = 10.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a test on the loop that the node uses, with a deadline."""

    async def bounded() -> T:
        return await asyncio.wait_for(main, DEADLINE_S)

    return uvloop.run(bounded())


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self.headers if key == name]
        assert len(found) == 1, (name, self.headers)
        return found[0]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.headers)


class Client:
    """A client that sends and receives bytes as it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_bytewise(self, data: bytes) -> None:
        """One byte per turn of the loop; stops when the server has closed."""
        for index in range(len(data)):
            if self.reader.at_eof() or self.writer.is_closing():
                return
            self.writer.write(data[index : index + 1])
            await asyncio.sleep(0)

    async def head(self) -> Answer:
        """The next status line and headers, without the body."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text[:-4].split("\r\n")
        _, status, reason = first.split(" ", 2)
        headers = [(line.split(": ", 1)[0], line.split(": ", 1)[1]) for line in lines]
        return Answer(int(status), reason, headers, b"")

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer, whole."""
        found = await self.head()
        if to_head or found.status in (100, 204, 304):
            return found
        if "transfer-encoding" in found:
            found.body = b"".join([chunk async for chunk in self.chunks()])
        elif "content-length" in found:
            found.body = await self.reader.readexactly(int(found["content-length"]))
        else:
            found.body = await self.reader.read()
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            if not size:
                return
            yield data[:-2]

    async def closed(self) -> bytes:
        """Waits until the server has closed, and returns what it said before; a reset counts as closed."""
        try:
            return await self.reader.read()
        except OSError:
            return b""

    def abort(self) -> None:
        self.writer.transport.abort()


@dataclass
class Served:
    server: IngressServer
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.server.port, limit=4 * 1024 * 1024))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        client = await self.connect()
        await client.send(data)
        return await client.answer()


@asynccontextmanager
async def serving(handle: Callable[[Exchange], None], **limits: int) -> AsyncIterator[Served]:
    """A server on a free port, with shorter limits where given; stopped at the end, and its clients closed."""
    server = IngressServer(handle, host="127.0.0.1", port=0, limits=IngressLimits(**limits))
    await server.start()
    served = Served(server)
    try:
        yield served
    finally:
        await server.stop()
        for client in served.clients:
            client.writer.close()
            with suppress(OSError):
                await client.writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    """Gives the loop turns until the condition holds; the test's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for: the condition is about the kernel's buffers
        await asyncio.sleep(0)


def hello(exchange: Exchange) -> None:
    """Answers at once."""
    exchange.respond(200, [(b"content-type", b"text/plain")], b"Hello world!")


def echo(exchange: Exchange) -> None:
    """Answers with the request's body, once it is whole."""
    if not exchange.streaming:
        exchange.respond(200, [], exchange.body)
        return
    chunks: list[bytes] = []

    def on_chunk(chunk: bytes) -> None:
        chunks.append(chunk)
        exchange.consumed(len(chunk))

    def on_end(error: str) -> None:
        if not error:
            exchange.respond(200, [], b"".join(chunks))

    exchange.on_chunk, exchange.on_end = on_chunk, on_end
