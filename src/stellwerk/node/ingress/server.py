"""The public HTTP/1.1 server: listens, counts, sweeps and drains. What a request means is its handler's matter."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from email.utils import formatdate

from stellwerk.core.errors import Fault, StellwerkError
from stellwerk.core.limits import TURN_REQUESTS_MAX
from stellwerk.node.clock import Clock, SystemClock
from stellwerk.node.ingress.connection import Connection
from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.strict import IngressLimits
from stellwerk.node.portions import Portions

BACKLOG = 2_048  # connections that the kernel keeps for us while a turn of the loop lasts
REFUSED_OPEN_MAX = 256  # beyond CONNECTIONS_MAX: still told 503 instead of being reset


class ListenError(StellwerkError):
    """The address cannot be listened on: taken, not ours, or not allowed."""

    code = "ingress.cannot_listen"
    fault = Fault.CALLER
    http_status = 500


class IngressServer:
    """Serves HTTP/1.1 on one address and calls ``handle(exchange)`` for each request that is let in.

    ``handle`` runs in the loop and must not block; what it raises is logged and answered with 500. ``end_of_turn``
    schedules a callback for the end of the current turn of the loop (the node passes its own); while ``hurried`` says
    that other work has to get through, requests are handed over in portions. ``requests`` counts
    those handed to ``handle``, ``refused`` those turned away here, ``accepted`` connections so far.
    """

    def __init__(
        self,
        handle: Callable[[Exchange], None],
        *,
        host: str,
        port: int,
        end_of_turn: Callable[[Callable[[], None]], None] | None = None,
        hurried: Callable[[], bool] = lambda: False,
        clock: Clock | None = None,
        limits: IngressLimits | None = None,
        scheme: str = "http",
    ) -> None:
        self.handle, self._hurried = handle, hurried
        self.host, self.port = host, port
        self.scheme = scheme
        self.limits = limits or IngressLimits()
        self.end_of_turn = end_of_turn or _at_the_loops_next_turn
        self.started = asyncio.Event()
        self.stamp = b""  # date and server headers of each answer
        self.accepted = self.requests = self.refused = 0
        self.take: Callable[[Exchange], None]
        self._clock = clock or SystemClock()
        self._open: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._draining = False
        self._emptied = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    async def start(self) -> None:
        """Binds and listens; ``port`` then says which port it is. Raises ``ListenError``."""
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(lambda: Connection(self), self.host, self.port, backlog=BACKLOG)
        except OSError as error:
            raise _listen_error(self.host, self.port, error) from error
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self._draining = False
        self.take = Portions(self._hand_over, per_turn=TURN_REQUESTS_MAX, hurried=self._hurried).add
        self._sweep()
        self.started.set()

    async def stop(self) -> None:
        """Stops at once: open connections are reset. Harmless when it does not run."""
        await self.drain(0)

    async def drain(self, timeout_ms: int) -> None:
        """Accepts no more, lets exchanges under way finish for at most ``timeout_ms``, then resets what is left.

        Answers given while draining carry ``connection: close``. Requests that wait behind another one on the same
        connection are not begun; their clients repeat them elsewhere.
        """
        self._draining = True
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            connection.drain()
        if self._open and timeout_ms > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), timeout_ms / 1000)
        while self._open:
            self._emptied.clear()
            for connection in list(self._open):
                connection.outlet.abort()
            await self._emptied.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # -- for connections ----------------------------------------------------------------------------------------------

    def _hand_over(self, exchange: Exchange) -> None:
        """Unless its client has gone while it waited for its turn."""
        if not exchange._over:
            exchange._call(self.handle, exchange)

    def admit(self, connection: Connection) -> bool:
        """Takes a connection in; false when there are too many."""
        self.accepted += 1
        self._open.add(connection)
        self._emptied.clear()
        connection.draining = self._draining
        excess = len(self._open) - self.limits.connections_max
        if excess > REFUSED_OPEN_MAX:
            connection.outlet.abort()
        return excess <= 0

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    def _sweep(self) -> None:
        """Once a second: the date of the answers, and the deadlines of all connections."""
        date = formatdate(self._clock.now_ms() / 1000, usegmt=True)
        self.stamp = b"\r\ndate: %b\r\nserver: stellwerk\r\n" % date.encode("ascii")
        now_ms = self._clock.monotonic_ms()
        for connection in list(self._open):
            connection.sweep(now_ms)
        self._sweeper = asyncio.get_running_loop().call_later(self.limits.sweep_ms / 1000, self._sweep)


def _at_the_loops_next_turn(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(callback)


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"Port {port} is taken: another program listens on {where}.",
            cure="Stop that program, or choose another port with --port (0 takes any free one).",
        )
    if error.errno == errno.EACCES:
        return ListenError(f"This user may not listen on {where}.", cure="Choose a port of 1024 or above with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(
            f"{host} is not an address of this machine.", cure="Choose one with --ip, for example 127.0.0.1."
        )
    return ListenError(f"Cannot listen on {where}: {error.strerror or error}.", cure="Check --ip and --port.")
