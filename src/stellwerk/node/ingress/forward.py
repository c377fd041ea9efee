"""From the ingress to an isolate: routes a request to its Worker and its answer back to the client."""

from __future__ import annotations

import asyncio
import re

from stellwerk.core.errors import (
    CapacityError,
    IsolateLostError,
    IsolateStartError,
    StellwerkError,
    WorkerError,
    WorkerLimitError,
    WorkerLoopError,
)
from stellwerk.core.limits import WALL_GRACE_MS
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.traffic import Traffic
from stellwerk.node.telemetry.metrics import Counters
from stellwerk.wire import isolate as messages

_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE = re.compile(rb"00-(0{32}-|[0-9a-f]{32}-0{16}-)")


class Forwarder:
    """``handle`` is what the ingress calls for each request."""

    def __init__(
        self, *, deployments: Deployments, pool: Pool, traffic: Traffic, clock: Clock, counters: Counters
    ) -> None:
        self._deployments, self._pool, self._traffic = deployments, pool, traffic
        self._clock, self._counters = clock, counters
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        path = exchange.target.partition("?")[0]
        worker = self._deployments.route(exchange.host, path)
        version = None if worker is None else self._deployments.serving(worker)
        if version is None:
            self._counters.requests[4] += 1
            exchange.refuse(
                404,
                "route.not_found",
                f"No Worker answers {exchange.host}{path}: no route matches, and there is no default Worker.",
            )
            return
        isolate = self._pool.ready(version)
        if isolate is not None:
            self._send(exchange, isolate)
        else:
            task = asyncio.create_task(self._send_later(exchange, version))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_later(self, exchange: Exchange, version: LoadedVersion) -> None:
        gone = False

        def on_gone() -> None:
            nonlocal gone
            gone = True

        exchange.on_gone = on_gone
        try:
            isolate = await self._pool.acquire(version)
        except StellwerkError as error:
            self._refuse(exchange, error)
            return
        if not gone:
            self._send(exchange, isolate)

    def _refuse(self, exchange: Exchange, error: StellwerkError) -> None:
        status = 503 if isinstance(error, CapacityError) else error.http_status
        self._counters.requests[status // 100] += 1
        # What went wrong in the user's module stands in the log; a stranger learns only that something did.
        text = "The Worker could not be started." if isinstance(error, IsolateStartError) else error.message
        exchange.refuse(status, error.code, text, cloudflare_code=error.cloudflare_code, retryable=error.retryable)

    def _send(self, exchange: Exchange, isolate: Isolate) -> None:
        clock = self._clock
        trace_id, request_id, told = "", clock.new_span_id(), False
        headers = exchange.headers
        for name, value in headers:
            if name == b"traceparent":
                told = True
                if _TRACEPARENT.fullmatch(value) and not _NO_TRACE.match(value):
                    trace_id = value[3:35].decode()
            elif name == b"cf-connecting-ip":  # only the node may say who the client is
                headers = [header for header in headers if header[0] != b"cf-connecting-ip"]
        traceparent = f"00-{trace_id or clock.new_trace_id()}-{request_id}-01"
        if told:  # a Worker that passes the request on passes on where it is now, not where it came from, or rubbish
            headers = [header for header in headers if header[0] != b"traceparent"]
            headers.append((b"traceparent", traceparent.encode()))
        call = ExchangeCall(exchange, isolate, request_id, self._counters)
        number = call.number = self._traffic.open(isolate, call)
        headers.append((b"cf-connecting-ip", exchange.client.encode()))
        isolate.channel.send(
            messages.HttpRequest(
                number, "Default", exchange.method, f"{exchange.scheme}://{exchange.host}{exchange.target}", headers,
                exchange.body, exchange.streaming, traceparent, 0, 0, request_id,
            )
        )  # fmt: skip
        exchange.on_gone = call.client_gone
        wall_ms = isolate.version.manifest.settings.wall_ms
        if wall_ms is not None:
            asyncio.get_running_loop().call_later(wall_ms / 1000, self._wall_reached, call, isolate, wall_ms)
        if exchange.streaming:
            exchange.on_chunk, exchange.on_end = call.client_chunk, call.client_end

    def _wall_reached(self, call: ExchangeCall, isolate: Isolate, wall_ms: int) -> None:
        """The time that its Worker allows a request is over: the client hears so, and the work is cancelled."""
        if call.over:
            return
        call.refuse_wall(wall_ms)
        grace = asyncio.get_running_loop().call_later
        grace(WALL_GRACE_MS / 1000, self._wall_ignored, call, isolate, wall_ms)

    def _wall_ignored(self, call: ExchangeCall, isolate: Isolate, wall_ms: int) -> None:
        if self._traffic.is_open(isolate, call.number):
            self._pool.kill(isolate, f"a request did not end at its wall limit of {wall_ms} ms")

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class ExchangeCall:
    """A client's request as a call to an isolate (``traffic.NodeCall``)."""

    __slots__ = ("_counters", "_exchange", "_isolate", "_owed", "_request_id", "_started", "number")

    def __init__(self, exchange: Exchange, isolate: Isolate, request_id: str, counters: Counters) -> None:
        self._exchange, self._isolate, self._request_id, self._counters = exchange, isolate, request_id, counters
        self._started = False
        self._owed = 0
        self.number = 0

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None:
        assert isinstance(message, messages.HttpResponse)
        status = message.status
        self._counters.requests[status // 100 if 100 <= status < 600 else 5] += 1
        if message.streaming:
            self._started = True
            self._exchange.on_writable = self._writable
            self._exchange.start(status, message.headers, message.reason)
        else:
            self._exchange.respond(status, message.headers, message.body, message.reason)

    @property
    def over(self) -> bool:
        return self._exchange.answered and not self._started

    def refuse_wall(self, wall_ms: int) -> None:
        self._isolate.channel.send(messages.CallCancelled(self.number, abort=True))
        if self._started:
            self._exchange.break_off()
            return
        self._counters.requests[5] += 1
        limit = WorkerLimitError
        self._exchange.refuse(
            limit.http_status,
            limit.code,
            f"The Worker took longer than the {wall_ms} ms that it allows itself.",
            cloudflare_code=limit.cloudflare_code,
            request_id=self._request_id,
        )

    def failed(self, message: messages.CallFailed) -> None:
        if self._exchange.answered:
            return
        self._counters.requests[5] += 1
        loop = message.code == WorkerLoopError.code
        text = "The request went in a circle of Workers." if loop else "The Worker threw an exception."
        number = WorkerLoopError.cloudflare_code if loop else WorkerError.cloudflare_code
        self._exchange.refuse(500, message.code, text, cloudflare_code=number, request_id=self._request_id)

    def body(self, chunk: bytes) -> None:
        if self._exchange.write(chunk):
            self._isolate.channel.send(messages.Credit(self.number, len(chunk)))
        else:
            self._owed += len(chunk)

    def _writable(self) -> None:
        if self._owed:
            owed, self._owed = self._owed, 0
            self._isolate.channel.send(messages.Credit(self.number, owed))

    def body_ended(self, error: str) -> None:
        if error:
            self._exchange.break_off()
        else:
            self._exchange.finish()

    def credit(self, size: int) -> None:
        self._exchange.consumed(size)

    def lost(self, cause: str) -> None:
        if self._started:
            self._exchange.break_off()
            return
        self._counters.requests[5] += 1
        lost = IsolateLostError
        self._exchange.refuse(
            lost.http_status,
            lost.code,
            "The Worker ended while it worked on this request.",
            cloudflare_code=lost.cloudflare_code,
            retryable=lost.retryable,
            request_id=self._request_id,
        )

    # -- the client ---------------------------------------------------------------------------------------------------

    def client_gone(self) -> None:
        self._isolate.channel.send(messages.CallCancelled(self.number))
        if not self._started:
            self._counters.requests[0] += 1

    def client_chunk(self, chunk: bytes) -> None:
        self._isolate.channel.send_body(self.number, chunk)

    def client_end(self, error: str) -> None:
        self._isolate.channel.send(messages.BodyEnd(self.number, error))
