"""The control plane as a service of the node: uvicorn on a port of its own, inside the node's loop.

uvicorn would take over SIGINT and SIGTERM; signals belong to the node, which stops its services in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stellwerk.core import limits
from stellwerk.core.errors import ConfigError
from stellwerk.node.api.app import build_app
from stellwerk.node.api.ports import Ports


class _Transport(asyncio.Transport):
    """Joins what is written in one turn of the loop: uvicorn writes the head of an answer and its body apart, and
    uvloop sends each at once, so a client would wake up for a head alone."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn itself
        super().connection_made(_Transport(transport, self.loop))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class ControlServer:
    """Listens from ``start`` to ``stop``. Port 0 takes a free one; ``port`` then says which."""

    def __init__(self, ports: Ports, *, host: str = "127.0.0.1", port: int = 8788) -> None:
        self._ports = ports
        self.host = host
        self.port = port
        self.started = asyncio.Event()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Binds and serves. Raises ``ConfigError`` when the address cannot be had."""
        listener = self._bind()
        config = uvicorn.Config(
            build_app(self._ports),
            loop="none",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing asks who calls, and everybody on this machine could name another
            limit_concurrency=limits.CONTROL_CONNECTIONS_MAX,
            timeout_keep_alive=limits.KEEPALIVE_TIMEOUT_MS // 1000,
            timeout_graceful_shutdown=limits.CONTROL_STOP_MS // 1000,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]), name="control-plane")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            self._task.result()
        self.started.set()

    async def stop(self) -> None:
        """Lets calls in flight end, at most ``CONTROL_STOP_MS``. Stopping twice, or before starting, is harmless."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is None or task is None:
            return
        server.should_exit = True
        await task
        self.started.clear()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if _is_ipv6(self.host) else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"The control plane cannot listen on {self.host}:{self.port}: {error.strerror}.",
                key="--control-port",
                cure="Stop the program that has the port, or name another port (0 takes a free one).",
            ) from error
        self.port = listener.getsockname()[1]
        return listener


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
