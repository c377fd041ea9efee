"""ASGI applications as Workers: ``asgi.fetch(app, request, env)`` answers one request, as Cloudflare's SDK does it.

Every request runs a whole life of the application: start-up, request, shut-down. The request's body is read before the
application starts; the answer is whole if its first body event is the last, else a stream that is returned at once and
written with back-pressure. The application may go on after its answer: it is kept alive by ``waitUntil``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

from workers._env import wait_until
from workers._headers import Headers, RawHeaders, joined
from workers._host import RawResponse
from workers._js import NotBuiltError
from workers._streams import TransformStream, WritableStreamWriter
from workers._url import URL
from workers.request import JsRequest, Request
from workers.response import JsResponse, Response

logger = logging.getLogger("asgi")

Event = MutableMapping[str, Any]
Application = Callable[[Any, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

ASGI = {"version": "3.0", "spec_version": "2.0"}
NULL_BODY_STATUSES = frozenset((101, 103, 204, 205, 304))
_background: set[asyncio.Task[Any]] = set()


def run_in_background(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Runs ``work`` beside the request; what it raises is logged."""
    task = asyncio.create_task(work)
    _background.add(task)

    def ended(task: asyncio.Task[Any]) -> None:
        _background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("Exception in a background task", exc_info=task.exception())

    task.add_done_callback(ended)
    return task


def _request(request: Any) -> Request:
    return request._request if isinstance(request, JsRequest) else request


def request_to_scope(req: Any, env: Any, ws: bool = False) -> dict[str, Any]:
    """The ASGI scope of a request of either kind."""
    request = _request(req)
    url = URL(request.url)
    scheme = url.protocol.removesuffix(":")
    if ws:
        scheme = "wss" if scheme == "https" else "ws"
    return {
        "type": "websocket" if ws else "http",
        "asgi": ASGI,
        "http_version": "1.1",
        "method": req.method,
        "scheme": scheme,
        "path": unquote(url.pathname),
        "raw_path": url.pathname.encode(),
        "query_string": url.search.removeprefix("?").encode(),
        "headers": [(name.encode(), value.encode()) for name, value in joined(request._header_list())],
        "env": env,
    }


def _to_js_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The application's headers; a name may repeat. Raises ``ValueError`` for one that would break out of its line."""
    made: RawHeaders = []
    for name, value in headers:
        if any(byte in value or byte in name for byte in (b"\r", b"\n", b"\0")) or not name:
            raise ValueError(f"The application sent the header {name!r} with the value {value!r}, which is no header.")
        made.append((bytes(name).lower(), bytes(value).strip()))
    return Headers._over(made)


class _Lifespan:
    """One life of the application. Applications that do not know of it are left in peace."""

    def __init__(self, app: Application, env: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._scope = {"type": "lifespan", "asgi": ASGI, "state": self.state, "env": env}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._acks: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Lifespan:
        self._task = asyncio.create_task(self._run())
        await self._ask("startup")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_rest: Any) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._end()
            return
        await self._ask("shutdown")
        self._end()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._events.get, self._acks.put)
        except Exception:  # an application without lifespan raises here: that is its way to say so
            logger.debug("The application ended its lifespan", exc_info=True)

    async def _ask(self, what: str) -> None:
        task = self._task
        if task is None or task.done():
            return
        await self._events.put({"type": f"lifespan.{what}"})
        ack = asyncio.ensure_future(self._acks.get())
        await asyncio.wait((task, ack), return_when=asyncio.FIRST_COMPLETED)
        if not ack.done():
            ack.cancel()
            return
        if ack.result()["type"] == f"lifespan.{what}.failed":
            self._end()
            raise RuntimeError(ack.result().get("message", ""))

    def _end(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()


class _Exchange:
    """One request and its answer, between the application and the host."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._incoming: deque[Event] = deque(
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in body if chunk
        )
        self._incoming.append({"type": "http.request", "body": b"", "more_body": False})
        self._start: Event | None = None
        self._writer: WritableStreamWriter | None = None
        self.finished = asyncio.Event()

    async def receive(self) -> Event:
        if self._incoming:
            return self._incoming.popleft()
        await self.finished.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self._start = event
        elif event["type"] == "http.response.body":
            await self._send_body(event.get("body", b""), event.get("more_body", False))

    async def _send_body(self, data: bytes, more: bool) -> None:
        if self._start is None:
            raise RuntimeError("The application sent a body before http.response.start")
        if self.finished.is_set():
            return
        if not self.answer.done():
            if not more:
                self._respond(bytes(data))
                self.finished.set()
                return
            pipe = TransformStream()
            self._writer = pipe.writable.getWriter()
            self._respond(pipe.readable)
        if self._writer is not None and data:
            try:
                await self._writer.write(bytes(data))
            except TypeError:  # the client has gone
                self.finished.set()
                return
        if not more:
            await self.close()

    def _respond(self, body: Any) -> None:
        assert self._start is not None
        status = self._start["status"]
        headers = _to_js_headers(self._start.get("headers", ()))._list
        if status in NULL_BODY_STATUSES:
            body = None
        self.answer.set_result(Response._from_raw(RawResponse(status, headers, body)))

    async def close(self) -> None:
        """Ends the answer; a stream ends cleanly, whatever became of the application."""
        self.finished.set()
        if self._writer is not None:
            await self._writer.close()

    async def run(self, app: Application, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:
            if self.answer.done():
                logger.error("ASGI request failed after its response was started", exc_info=error)
            else:
                logger.error("ASGI request failed", exc_info=error)
                self.answer.set_exception(error)
        else:
            if not self.answer.done():
                self.answer.set_exception(RuntimeError("The application did not generate a response"))
        finally:
            if not self.answer.done():
                self.answer.cancel()
            await self.close()


async def _pieces(request: Request) -> list[bytes]:
    taken = request._take()
    if taken is None or isinstance(taken, bytes):
        return [taken or b""]
    return [chunk async for chunk in taken]


async def process_request(app: Application, req: Any, env: Any, state: dict[str, Any]) -> JsResponse:
    """The request alone, in a life of the application that somebody else leads."""
    request = _request(req)
    scope = {**request_to_scope(req, env), "state": state.copy()}
    exchange = _Exchange(await _pieces(request))
    wait_until(run_in_background(exchange.run(app, scope)))
    return JsResponse._over(await exchange.answer)


async def fetch(app: Application, req: Any, env: Any, ctx: Any = None) -> JsResponse:
    """Answers ``req`` by the ASGI application ``app``; ``env`` is in ``scope["env"]``.

    Raises ``RuntimeError`` when the application refuses to start up or to shut down, and what it raises itself before
    its response is started.
    """
    async with _Lifespan(app, env) as life:
        return await process_request(app, req, env, life.state)


async def websocket(app: Application, req: Any, env: Any = None) -> JsResponse:
    raise NotBuiltError("WebSockets are not built yet: a Worker cannot answer an upgrade in this release.")


def _env_dependency() -> Any:
    """``asgi.env``: FastAPI's way to ``env``. Made when it is asked for, since not every program has FastAPI."""
    from fastapi import Depends  # type: ignore[import-not-found]
    from fastapi import Request as FastApiRequest

    async def env(request: FastApiRequest) -> Any:
        return request.scope["env"]

    env.__annotations__["request"] = FastApiRequest
    return Depends(env)


def __getattr__(name: str) -> Any:
    if name == "env":
        made = globals()["env"] = _env_dependency()
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
