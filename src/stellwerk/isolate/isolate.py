"""The isolate: takes messages from the node and hands each to the part that it is for.

Requests and RPC calls are in ``requests.py``, runs in ``workflow/runs.py``, what user code asks of the outside in
``host.py``. Calls that the node has started have even numbers, those of this isolate odd ones.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import workers._host
from workers.rpc import wrap_env

from stellwerk.core.deployment.flags import enabled_flags
from stellwerk.core.limits import COLLECT_THRESHOLDS
from stellwerk.isolate.failures import to_error_value
from stellwerk.isolate.host import IsolateHost
from stellwerk.isolate.loader import LoadedWorker, load
from stellwerk.isolate.logs import LogCapture
from stellwerk.isolate.outgoing import OutgoingCalls
from stellwerk.isolate.requests import Requests
from stellwerk.isolate.stubs import Stubs
from stellwerk.isolate.workflow.runs import IsolateRuns
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import Channel


class Isolate:
    """One version of one Worker, in this process."""

    def __init__(self) -> None:
        self.channel = Channel(self._on_messages, self._on_lost)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._logs = LogCapture(self.channel.send, writable=self.channel.writable.is_set)
        self._stubs = Stubs(self.channel, self._look_drained)
        self._outgoing = OutgoingCalls(self.channel, self._stubs)
        self._requests: Requests | None = None
        self._runs: IsolateRuns | None = None
        self._draining = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            messages.Boot: self._on_boot,
            messages.Drain: self._on_drain,
            messages.Ping: lambda _: self.channel.send(messages.Pong()),
        }

    # -- life ---------------------------------------------------------------------------------------------------------

    def _on_boot(self, boot: messages.Boot) -> None:
        flags = enabled_flags(boot.compatibility_date, boot.compatibility_flags)
        host = IsolateHost(self._outgoing, self._stubs, boot, flags, self._logs.emit)
        workers._host.install(host)
        env = wrap_env(host.env())
        self._logs.install()
        try:
            worker = load(boot)
        except BaseException as error:
            self.channel.send(messages.BootFailed(to_error_value(error)))
            self.channel.close()
            return
        self._employ(worker, env, flags)
        gc.collect()
        gc.set_threshold(*COLLECT_THRESHOLDS)
        gc.freeze()  # the Worker's module lives as long as the isolate: no collection has to look at it
        self.channel.send(messages.Ready(messages.PROTOCOL, worker.exports, worker.import_ms))

    def _employ(self, worker: LoadedWorker, env: Any, flags: frozenset[str]) -> None:
        """From here on there is somebody to work on what the node sends."""
        requests = self._requests = Requests(self.channel, worker, env, self._logs, self._stubs, self._look_drained)
        runs = self._runs = IsolateRuns(self.channel, worker, env, self._logs, flags, self._look_drained)
        outgoing = self._outgoing
        self._handlers |= {
            messages.HttpRequest: requests.http_request,
            messages.RpcCall: requests.rpc_call,
            messages.StubCall: requests.stub_call,
            messages.StreamOpen: requests.stream_open,
            messages.StubsDropped: self._stubs.dropped,
            messages.RunPast: runs.past,
            messages.RunStart: runs.start,
            messages.RunRecorded: runs.recorded,
            messages.Deliver: runs.deliver,
            messages.AttemptGranted: runs.grant,
            messages.RunStop: runs.stop,
            messages.HttpResponse: outgoing.answered,
            messages.RpcResult: outgoing.answered,
            messages.CallFailed: outgoing.failed,
            messages.BodyEnd: _by_number(outgoing.body_ended, requests.body_ended),
            messages.Credit: _by_number(outgoing.credit, requests.credit),
            messages.CallCancelled: _by_number(outgoing.cancelled, requests.cancelled),
        }

    def _on_drain(self, message: messages.Drain) -> None:
        self._draining = True
        self._look_drained()

    def _look_drained(self) -> None:
        working = (self._requests and self._requests.calls) or (self._runs and self._runs.live) or self._stubs.given
        if self._draining and not working:
            self._logs.flush()
            self.channel.close()

    # -- channel ------------------------------------------------------------------------------------------------------

    def _on_messages(self, channel: Channel, batch: list[Any]) -> None:
        for message in batch:
            if type(message) is tuple:
                self._on_body(*message)
            else:
                self._handlers[type(message)](message)

    def _on_body(self, number: int, chunk: bytes) -> None:
        if number & 1:
            self._outgoing.body(number, chunk)
        elif self._requests is not None:
            self._requests.body(number, chunk)

    def _on_lost(self, channel: Channel, error: Exception | None) -> None:
        """The node has gone or has closed: there is nothing left to live for."""
        if not self.ended.done():
            self.ended.set_result(None)


def _by_number(ours: Callable[[Any], None], theirs: Callable[[Any], None]) -> Callable[[Any], None]:
    """Calls of this isolate have odd numbers."""
    return lambda message: ours(message) if message.call & 1 else theirs(message)


async def run(channel_socket: socket.socket) -> None:
    """The life of an isolate: from the channel's first message until its end."""
    isolate = Isolate()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: isolate.channel, sock=channel_socket)
    await isolate.ended
