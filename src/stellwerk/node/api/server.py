"""The control plane as a service of the node: uvicorn on a port of its own, inside the node's loop.

uvicorn would take over SIGINT and SIGTERM; signals belong to the node, which stops its services in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator

import uvicorn

from stellwerk.core import limits
from stellwerk.core.errors import ConfigError
from stellwerk.node.api.app import build_app
from stellwerk.node.api.ports import Ports


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
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
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
