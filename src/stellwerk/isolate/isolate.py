"""The isolate: takes messages from the node and lets the Worker's code answer them.

One dispatch table, one method per message. Requests and RPC calls run as tasks on the isolate's loop, each with an
entrypoint instance of its own, as on Cloudflare; runs have their own loops (``isolate/workflow``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import workers._host
from workers._js import JsDict
from workers._relaxed import relaxed_call
from workers.entrypoints import ExecutionContext, rpc_methods
from workers.request import Request
from workers.response import raw_parts
from workers.rpc import wrap_env

from stellwerk.core.errors import WorkerError, WorkerLoopError
from stellwerk.core.limits import COLLECT_THRESHOLDS, INLINE_BODY_BYTES_MAX, WAIT_UNTIL_MS
from stellwerk.core.workflow import inputs
from stellwerk.isolate.bodies import BodyReader, BodyWriter, close_unread
from stellwerk.isolate.failures import to_error_value
from stellwerk.isolate.flags import enabled_flags
from stellwerk.isolate.host import IsolateHost
from stellwerk.isolate.invocation import Invocation
from stellwerk.isolate.loader import LoadedWorker, load
from stellwerk.isolate.logs import LogCapture, current
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.step import WorkflowStep
from stellwerk.wire import isolate as messages
from stellwerk.wire import values
from stellwerk.wire.channel import Channel


class IncomingCall:
    """A request or RPC call that this isolate works on."""

    __slots__ = ("gone", "pump", "reader", "task", "writer")

    def __init__(self) -> None:
        self.gone = False  # nobody waits for the answer any more
        self.task: asyncio.Task[None] | None = None
        self.pump: asyncio.Task[None] | None = None  # sends a streamed answer
        self.reader: BodyReader | None = None
        self.writer: BodyWriter | None = None


class Isolate:
    """One version of one Worker, in this process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.channel = Channel(self._on_messages, self._on_lost)
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._logs = LogCapture(self.channel.send, writable=self.channel.writable.is_set)
        self._host = IsolateHost(self.channel, self._logs.emit)
        self._calls: dict[int, IncomingCall] = {}
        self._runs: dict[int, Run] = {}
        self._attempts = Attempts()
        self._worker: LoadedWorker | None = None
        self._env: Any = None
        self._flags: frozenset[str] = frozenset()
        self._draining = False
        host = self._host
        self._handlers: dict[type, Callable[[Any], None]] = {
            messages.Boot: self._on_boot,
            messages.HttpRequest: self._on_http_request,
            messages.RpcCall: self._on_rpc_call,
            messages.RunStart: self._on_run_start,
            messages.Deliver: self._on_deliver,
            messages.AttemptGranted: self._on_grant,
            messages.RunStop: self._on_run_stop,
            messages.HttpResponse: host.answered,
            messages.RpcResult: host.answered,
            messages.CallFailed: host.failed,
            messages.BodyEnd: self._on_body_end,
            messages.Credit: self._on_credit,
            messages.CallCancelled: self._on_cancelled,
            messages.Drain: self._on_drain,
            messages.Ping: lambda _: self.channel.send(messages.Pong()),
        }

    # -- channel ------------------------------------------------------------------------------------------------------

    def _on_messages(self, channel: Channel, batch: list[Any]) -> None:
        for message in batch:
            if type(message) is tuple:
                self._on_body(*message)
            else:
                self._handlers[type(message)](message)

    def _on_lost(self, channel: Channel, error: Exception | None) -> None:
        """The node has gone or has closed: there is nothing left to live for."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _on_boot(self, boot: messages.Boot) -> None:
        self._flags = enabled_flags(boot.compatibility_date, boot.compatibility_flags)
        self._host.configure(boot, self._flags)
        workers._host.install(self._host)
        self._env = wrap_env(self._host.env())
        self._logs.install()
        try:
            self._worker = load(boot)
        except BaseException as error:
            self.channel.send(messages.BootFailed(to_error_value(error)))
            self.channel.close()
            return
        gc.collect()
        gc.set_threshold(*COLLECT_THRESHOLDS)
        gc.freeze()  # the Worker's module lives as long as the isolate: no collection has to look at it
        self.channel.send(messages.Ready(messages.PROTOCOL, self._worker.exports, self._worker.import_ms))

    def _on_drain(self, message: messages.Drain) -> None:
        self._draining = True
        self._look_drained()

    def _look_drained(self) -> None:
        if self._draining and not self._calls and not self._runs:
            self._logs.flush()
            self.channel.close()

    # -- requests and RPC ---------------------------------------------------------------------------------------------

    def _on_http_request(self, message: messages.HttpRequest) -> None:
        call = self._calls[message.call] = IncomingCall()
        if message.streaming:
            call.reader = BodyReader(self.channel, message.call)
        call.task = self._loop.create_task(self._serve_http(message, call))

    def _on_rpc_call(self, message: messages.RpcCall) -> None:
        call = self._calls[message.call] = IncomingCall()
        call.task = self._loop.create_task(self._serve_rpc(message, call))

    async def _serve_http(self, message: messages.HttpRequest, call: IncomingCall) -> None:
        invocation = Invocation(
            message.request_id, traceparent=message.traceparent, depth=message.depth, scope=message.scope
        )
        current.set(invocation)
        try:
            request = Request._from_raw(
                message.method, message.url, message.headers, call.reader or message.body, message.cf
            )
            response = await self._fetch(message, request, invocation)
            status, headers, body, reason = raw_parts(response)
        except BaseException as error:
            await self._failed(message.call, error, invocation)
            return
        if body is None or (type(body) is bytes and len(body) <= INLINE_BODY_BYTES_MAX):
            self.channel.send(
                messages.HttpResponse(
                    message.call, status, headers, body, False, reason, invocation.pending is not None
                )
            )
        else:
            await self._stream(message.call, call, status, headers, body, reason, invocation)
        await self._finish(message.call, invocation)

    async def _fetch(self, message: messages.HttpRequest, request: Request, invocation: Invocation) -> Any:
        cls, kind = self._class(message.target)
        if kind == "handlers":
            result = relaxed_call(cls, request, self._env, ExecutionContext(message.props))
        else:
            instance = cls(ExecutionContext(message.props), self._env)
            handler = getattr(instance, "fetch", None)
            if handler is None:
                raise TypeError("Handler does not export a fetch() function.")
            result = relaxed_call(handler, request, self._env, instance.ctx if hasattr(instance, "ctx") else None)
        return await result if inspect.isawaitable(result) else result

    async def _stream(
        self,
        number: int,
        call: IncomingCall,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes],
        reason: str,
        invocation: Invocation,
    ) -> None:
        if call.gone:
            self.channel.send(
                messages.HttpResponse(number, status, headers, None, False, reason, invocation.pending is not None)
            )
            await _close(body)
            return
        self.channel.send(messages.HttpResponse(number, status, headers, None, True, reason, True))
        call.writer = BodyWriter(self.channel, number)
        try:
            call.pump = self._loop.create_task(call.writer.pump(_chunks(body)))
            await call.pump
        except asyncio.CancelledError:
            if not call.gone:
                raise
        except Exception as error:
            self._logs.emit("error", f"The response body broke off: {error}", to_error_value(error).stack)
        await _close(body)
        invocation.pending = invocation.pending or set()

    async def _serve_rpc(self, message: messages.RpcCall, call: IncomingCall) -> None:
        invocation = Invocation("", traceparent=message.traceparent, depth=message.depth, scope=message.scope)
        current.set(invocation)
        try:
            cls, _ = self._class(message.target)
            if message.method not in _methods(cls):
                raise TypeError(f"Method {message.method} does not exist")
            args, kwargs = values.decode(message.args, mapping=JsDict)
            instance = cls(ExecutionContext(message.props), self._env)
            result = getattr(instance, message.method)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            data = values.encode(result)
        except BaseException as error:
            await self._failed(message.call, error, invocation)
            return
        self.channel.send(messages.RpcResult(message.call, data, invocation.pending is not None))
        await self._finish(message.call, invocation)

    async def _failed(self, number: int, error: BaseException, invocation: Invocation) -> None:
        value = to_error_value(error)
        self._logs.emit("error", f"Uncaught {value.name}: {value.message}", value.stack)
        code = WorkerLoopError.code if value.name == WorkerLoopError.__name__ else WorkerError.code
        self.channel.send(messages.CallFailed(number, value, code, invocation.pending is not None))
        await self._finish(number, invocation)

    async def _finish(self, number: int, invocation: Invocation) -> None:
        """Keeps the invocation alive for its waitUntil work, at most 30 s in all, and then lets go of it."""
        if invocation.pending is not None:
            deadline = self._loop.time() + WAIT_UNTIL_MS / 1000
            while invocation.pending:
                left = deadline - self._loop.time()
                if left <= 0:
                    self._give_up_waiting(invocation)
                    break
                await asyncio.wait(invocation.pending, timeout=left)
                await asyncio.sleep(0)  # lets done callbacks take finished ones out, and new ones in
            self.channel.send(messages.CallEnded(number))
        close_unread(invocation.unread)
        self._calls.pop(number, None)
        if self._draining:
            self._look_drained()

    def _give_up_waiting(self, invocation: Invocation) -> None:
        for task in list(invocation.pending or ()):
            task.cancel()
        self._logs.emit("warn", f"waitUntil() work was cancelled: it took more than {WAIT_UNTIL_MS // 1000} s", "")

    def _class(self, name: str) -> tuple[Any, str]:
        assert self._worker is not None
        found: tuple[Any, str] | None = self._worker.classes.get(name)
        if found is None:
            raise TypeError(f"There is no '{name}' class defined in the Python Worker's main module")
        return found

    # -- bodies and the end of calls ----------------------------------------------------------------------------------

    def _on_body(self, number: int, chunk: bytes) -> None:
        if number & 1:
            self._host.body(number, chunk)
            return
        call = self._calls.get(number)
        if call is not None and call.reader is not None:
            call.reader.feed(chunk)
        else:
            self.channel.send(messages.Credit(number, len(chunk)))

    def _on_body_end(self, message: messages.BodyEnd) -> None:
        if message.call & 1:
            self._host.body_ended(message)
        elif (call := self._calls.get(message.call)) is not None and call.reader is not None:
            call.reader.finish(message.error)

    def _on_credit(self, message: messages.Credit) -> None:
        if message.call & 1:
            self._host.credit(message)
        elif (call := self._calls.get(message.call)) is not None and call.writer is not None:
            call.writer.grant(message.size)

    def _on_cancelled(self, message: messages.CallCancelled) -> None:
        """The caller has gone. As on Cloudflare the handler may go on for its waitUntil work; its body is not sent, and
        a generator that makes it is ended wherever it waits."""
        if message.call & 1:
            self._host.cancelled(message.call)
            return
        call = self._calls.get(message.call)
        if call is None:
            return
        call.gone = True
        if message.abort and call.task is not None:
            call.task.cancel()
        if call.writer is not None:
            call.writer.cancel()
        if call.pump is not None:
            call.pump.cancel()
        if call.reader is not None:
            call.reader.finish("the client has gone")

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _on_run_start(self, message: messages.RunStart) -> None:
        try:
            cls, kind = self._class(message.class_name)
            if kind != "workflow":
                raise TypeError(f"'{message.class_name}' is not a WorkflowEntrypoint")
        except TypeError as error:
            self.channel.send(inputs.RunFailed(message.run, to_error_value(error)))
            return
        run = Run(
            message,
            attempts=self._attempts,
            send=self.channel.send,
            on_end=self._run_ended,
            report_unhandled=self._unhandled,
            steps_max=message.steps_max,
        )
        self._runs[message.run] = run
        run.start(lambda: self._program(run, cls, message))

    async def _program(self, run: Run, cls: Any, message: messages.RunStart) -> Any:
        current.set(self._run_invocation(run))
        step = WorkflowStep(run, implicit_dependencies="python_workflows_implicit_dependencies" in self._flags)
        instance = cls(ExecutionContext(None), self._env)
        event = JsDict(
            payload=values.decode(message.params, mapping=JsDict),
            timestamp=datetime.fromtimestamp(message.created_at / 1000),
            instanceId=message.instance_id,
            workflowName=message.workflow,
        )
        result = relaxed_call(instance.run, event, step)
        return await result if inspect.isawaitable(result) else result

    def _run_invocation(self, run: Run) -> Invocation:
        start = run.start_message
        return Invocation(
            start.instance_id, traceparent=start.traceparent, scope=run.number, instance=start.instance_id, live=run
        )

    def _on_deliver(self, message: messages.Deliver) -> None:
        run = self._runs.get(message.run)
        if run is not None:
            run.deliver(message)

    def _on_grant(self, message: messages.AttemptGranted) -> None:
        run = self._runs.get(message.run)
        if run is not None:
            run.grant(message)

    def _on_run_stop(self, message: messages.RunStop) -> None:
        run = self._runs.get(message.run)
        if run is not None:
            run.stop()

    def _run_ended(self, run: Run) -> None:
        self._runs.pop(run.number, None)
        if self._draining:
            self._look_drained()

    def _unhandled(self, context: dict[str, Any]) -> None:
        """What asyncio would print about a run's tasks and futures: a log record instead."""
        error = context.get("exception")
        stack = to_error_value(error).stack if isinstance(error, BaseException) else ""
        self._logs.emit("error", str(context.get("message", "unhandled")), stack)


@lru_cache(maxsize=256)
def _methods(cls: type) -> frozenset[str]:
    return frozenset(rpc_methods(cls))


async def _chunks(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    async for chunk in body:
        yield chunk


async def _close(body: bytes | AsyncIterator[bytes]) -> None:
    """Lets go of a body that is not read to its end; after its end this does nothing."""
    close = getattr(body, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):  # it is the user's generator, and nobody is left to tell
            await close()


async def run(channel_socket: socket.socket) -> None:
    """The life of an isolate: from the channel's first message until its end."""
    isolate = Isolate()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: isolate.channel, sock=channel_socket)
    await isolate.ended
