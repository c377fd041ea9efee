"""ASGI applications as Workers (platform-semantics 1.8)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from typing import Any

import js
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.unit.sdk.a_host import AHost, installed, pieces, run
from workers import Request, asgi


def asked(url: str = "http://a/", **options: Any) -> Request:
    return Request(url, **options)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what ``scope`` says; knows nothing of lifespan."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


def under_a_host(main: Any) -> None:
    async def inside() -> None:
        with installed(AHost()) as host:
            await main()
            await asyncio.gather(*host.waiting, return_exceptions=True)

    run(inside())


def test_asgi_is_the_very_same_module() -> None:
    module: Any = importlib.import_module("asgi")
    assert module is asgi
    assert module._to_js_headers is asgi._to_js_headers


def test_a_starlette_application_answers() -> None:
    events: list[str] = []

    async def lifespan(_app: Any) -> Any:
        events.append("startup")
        yield {"pool": 5}
        events.append("shutdown")

    async def page(request: StarletteRequest) -> PlainTextResponse:
        body = (await request.body()).decode()
        text = f"{request.method} {request.url.path} {request.query_params['q']} {body} {request.state.pool}"
        response = PlainTextResponse(text, 201, {"x-env": str(request.scope["env"])})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    app = Starlette(
        routes=[Route("/{rest:path}", page, methods=["POST"])], lifespan=contextlib.asynccontextmanager(lifespan)
    )

    async def main() -> None:
        for request in (
            asked("http://a/ü?q=1", method="POST", body="x"),
            js.Request.new("http://a/ü?q=1", method="POST", body="x"),
        ):
            response = await asgi.fetch(app, request, "ENV")
            assert isinstance(response, js.Response)
            assert (response.status, await response.text()) == (201, "POST /ü 1 x 5")
            assert response.headers.get("x-env") == "ENV"
            assert len(response.headers.getSetCookie()) == 2
        assert events == ["startup", "shutdown"] * 2

    under_a_host(main)


def test_the_scope_is_cloudflares() -> None:
    headers = [("X-B", "2"), ("A", "1")]
    scope = asgi.request_to_scope(asked("https://h.example/a%20b/%2F?x=%20", headers=headers), {"E": 1})
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/a b//",
        "raw_path": b"/a%20b/%2F",
        "query_string": b"x=%20",
        "headers": [(b"a", b"1"), (b"x-b", b"2")],
        "env": {"E": 1},
    }
    assert (
        asgi.request_to_scope(js.Request.new("https://h.example/", headers=headers), None)["headers"]
        == scope["headers"]
    )
    assert asgi.request_to_scope(asked("https://a/"), None, ws=True)["scheme"] == "wss"


def test_the_body_comes_piece_by_piece_and_then_the_disconnect_waits_for_the_answer() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        for _ in range(3):
            event = await receive()
            seen.append((event["body"], event["more_body"]))
        late = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not late.done()
        await plain(scope, receive, send)
        seen.append((await late)["type"])

    async def main() -> None:
        request = asked(method="POST", body=js.ReadableStream.new(pieces(b"a", b"b")))
        assert await (await asgi.fetch(app, request, None)).text() == "ok"

    under_a_host(main)
    assert seen == [(b"a", True), (b"b", True), (b"", False), "http.disconnect"]


def test_a_stream_is_returned_at_once_and_written_with_back_pressure() -> None:
    produced: list[int] = []

    async def numbers() -> Any:
        for number in range(50):
            produced.append(number)
            yield bytes([number])

    async def page(_request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(numbers())

    async def main() -> None:
        response = await asgi.fetch(Starlette(routes=[Route("/", page)]), asked(), None)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(produced) <= 2
        assert await response.bytes() == bytes(range(50))

    under_a_host(main)


def test_an_application_without_lifespan_is_served() -> None:
    async def returns(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await plain(scope, receive, send)

    async def main() -> None:
        for app in (plain, returns):
            assert await (await asgi.fetch(app, asked(), None)).text() == "ok"

    under_a_host(main)


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_a_life_that_fails_is_a_runtime_error_with_its_message(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await plain(scope, receive, send)
            return
        while True:
            kind = (await receive())["type"]
            failed = kind.endswith(phase)
            await send({"type": f"{kind}.{'failed' if failed else 'complete'}", "message": "no database"})

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"^no database$"):
            await asgi.fetch(app, asked(), None)

    under_a_host(main)


def test_an_exception_before_the_response_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    async def main() -> None:
        with pytest.raises(ValueError, match="broken"):
            await asgi.fetch(app, asked(), None)

    under_a_host(main)
    assert "ASGI request failed" in caplog.text


def test_an_exception_after_the_start_ends_the_stream_cleanly(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("broken")

    async def main() -> None:
        assert await (await asgi.fetch(app, asked(), None)).bytes() == b"half"

    under_a_host(main)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "asgi" and record.exc_info is not None


def test_no_response_is_a_runtime_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"^The application did not generate a response$"):
            await asgi.fetch(app, asked(), None)

    under_a_host(main)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_drops_it(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"dropped"})

    async def main() -> None:
        response = await asgi.fetch(app, asked(), None)
        assert (response.status, response.body) == (status, None)

    under_a_host(main)


def test_headers_that_would_break_out_of_their_line_are_refused() -> None:
    with pytest.raises(ValueError, match="no header"):
        asgi._to_js_headers([(b"x", b"a\r\nb: c")])
    assert list(asgi._to_js_headers([(b"A", b"1"), (b"a", b"2")])) == [("a", "1, 2")]


def test_a_client_that_goes_ends_the_stream_for_the_application() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200})
            while not gone.is_set():
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                if (await receive())["type"] == "http.disconnect":
                    gone.set()

        response = await asgi.fetch(app, asked(), None)
        reader = response.body.getReader()
        assert (await reader.read()).value == b"x"
        await reader.cancel()
        await asyncio.wait_for(gone.wait(), 5)

    under_a_host(main)


def test_what_fails_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ValueError("in the background")

    async def main() -> None:
        await asyncio.wait([asgi.run_in_background(broken())])
        await asyncio.sleep(0)

    under_a_host(main)
    assert "in the background" in caplog.text
