"""WSGI applications as Workers: ``wsgi.fetch(app, request, env)`` answers one request.

The application is synchronous, and runs where the Worker runs: while it computes, the isolate does nothing else. The
request's body is read before it starts (on Cloudflare, ``wsgi.input`` reads while the application waits, which needs
``run_sync``; that is not built yet). What it returns is written piece by piece, with back-pressure.
"""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from workers._headers import joined
from workers._host import RawResponse
from workers._streams import ReadableStream
from workers.asgi import NULL_BODY_STATUSES, _to_js_headers
from workers.request import JsRequest, Request
from workers.response import JsResponse, Response

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_PORTS = {"http": "80", "https": "443"}


def build_environ(req: Any, env: Any, body: Any = b"") -> dict[str, Any]:
    """The WSGI environment. ``body`` is bytes, or a file to read from. Raises ``ValueError`` for a URL without a
    scheme."""
    request = req._request if isinstance(req, JsRequest) else req
    url = urlsplit(request.url)
    if not url.scheme:
        raise ValueError(f"The URL {request.url!r} has no scheme")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": str(getattr(request, "_method", req.method)),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path or "/").decode("latin-1"),  # WSGI's native strings: bytes as Latin-1
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname or "",
        "SERVER_PORT": str(url.port or _PORTS.get(url.scheme, "")),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "workers.env": env,
    }
    for name, value in joined(request._header_list()):
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = _native(value)
    if isinstance(body, bytes) and body:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def _native(value: str) -> str:
    return value.encode("utf-8", "replace").decode("latin-1")


class _Run:
    """One call of the application: what it said, and what it yields."""

    def __init__(self, app: Application, environ: dict[str, Any]) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []
        self._sent = False
        self._input = environ["wsgi.input"]
        self._result: Iterable[bytes] = ()
        try:
            self._result = app(environ, self._start_response)
            self._chunks = iter(self._result)
        except BaseException:
            self.close()
            raise

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None:
            if self._sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.status:
            raise AssertionError("start_response() was called twice without exc_info")
        code, _, self.reason = status.partition(" ")
        self.status, self.headers = int(code), list(headers)
        return self._written.append

    def first(self) -> bytes | None:
        """The first piece that is not empty; None when there is none. By then the status must have been said."""
        try:
            chunk = next((each for each in self._chunks if each), None) if not self._written else None
            if not self.status:
                raise RuntimeError("The WSGI application did not call start_response()")
        except BaseException:
            self.close()
            raise
        self._sent = True
        return chunk

    def rest(self, first: bytes | None) -> Iterator[bytes]:
        """What was written, then what is yielded; each piece is made when it is asked for."""
        try:
            while self._written:
                yield self._written.pop(0)
            if first is not None:
                yield first
            for chunk in self._chunks:
                while self._written:
                    yield self._written.pop(0)
                if chunk:
                    yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Exactly once, whatever happened."""
        result, self._result = self._result, ()
        source, self._input = self._input, None
        for each in (result, source):
            close = getattr(each, "close", None)
            if close is not None:
                close()


async def _streamed(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        for piece in pieces:
            yield piece
    finally:
        pieces.close()  # type: ignore[attr-defined]


def process_request(app: Application, req: Any, env: Any, body: Any = b"") -> JsResponse:
    """Calls the application with a body that is here already. What it raises before its answer goes through."""
    run = _Run(app, build_environ(req, env, body))
    first = run.first()
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in run.headers]
    if run.status in NULL_BODY_STATUSES:
        run.close()
        content = None
    else:
        content = ReadableStream(_streamed(run.rest(first)))
        content._cancel = lambda _reason: run.close()  # also when nothing was read, and no generator has begun
    raw = RawResponse(run.status, _to_js_headers(encoded)._list, None, run.reason)
    response = Response._from_raw(raw)
    response._source = content
    return JsResponse._over(response)


async def fetch(app: Application, req: Any, env: Any, ctx: Any = None) -> JsResponse:
    """Answers ``req`` by the WSGI application ``app``; ``env`` is in ``environ["workers.env"]``."""
    request: Request = req._request if isinstance(req, JsRequest) else req
    return process_request(app, request, env, await request.bytes())
