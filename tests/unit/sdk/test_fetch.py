"""``fetch``: what reaches the host, and what comes back (1.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import js
import pytest
from pyodide.ffi import JsException
from pyodide.http import pyfetch
from tests.unit.sdk.a_host import AHost, installed, pieces, run
from workers import Request, Response, fetch
from workers._host import RawRequest, RawResponse


def test_options_reach_the_host() -> None:
    async def main() -> None:
        with installed(AHost()) as host:
            response = await fetch(
                "https://test.com",
                method="POST",
                body="x",
                headers={"A": "1"},
                redirect="manual",
                cf={"x": 1},
            )
            assert isinstance(response, Response)
            assert (response.status, response.headers["content-type"]) == (200, "text/plain")
            ((_, sent),) = host.requests
            assert (sent.method, sent.url, sent.redirect, sent.cf) == ("POST", "https://test.com/", "manual", {"x": 1})
            assert sent.headers == [(b"a", b"1"), (b"content-type", b"text/plain;charset=UTF-8")]
            assert sent.body == b"x"

    run(main())


def test_a_request_of_either_kind_is_sent_as_it_is() -> None:
    async def main() -> None:
        with installed(AHost()) as host:
            await fetch(Request("http://a", method="PUT", body=js.ReadableStream.new(pieces(b"x", b"y"))))
            await fetch(js.Request.new("http://b"), body=None)
            await js.fetch("http://c", {"method": "POST"})
            await pyfetch("http://d", method="DELETE")
            sent = [request for _, request in host.requests]
            assert [(each.method, each.url) for each in sent] == [
                ("PUT", "http://a/"),
                ("GET", "http://b/"),
                ("POST", "http://c/"),
                ("DELETE", "http://d/"),
            ]
            assert [chunk async for chunk in sent[0].body] == [b"x", b"y"]  # type: ignore[union-attr]

    run(main())


def test_what_the_host_adds_stays_out_of_the_request() -> None:
    def answer(request: RawRequest) -> RawResponse:
        request.headers.append((b"traceparent", b"1"))
        return RawResponse(200, [])

    async def main() -> None:
        with installed(AHost(answer=answer)):
            request = Request("http://a", headers={"a": "1"})
            await fetch(request)
            assert request.headers.items() == [("a", "1")]

    run(main())


def test_a_second_positional_argument_is_refused_in_these_words() -> None:
    function: Any = fetch
    with pytest.raises(TypeError, match=r"^fetch\(\) takes 1 positional argument but 2 were given$"):
        function("http://a/", {})


@pytest.mark.parametrize("url", ["/relative", "ftp://a/", "data:text/plain,x"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    async def main() -> None:
        with installed(AHost()), pytest.raises(JsException) as caught:
            await fetch(url)
        assert caught.value.name == "TypeError"

    run(main())


def test_a_network_failure_is_an_os_error() -> None:
    def refuse(_request: RawRequest) -> RawResponse:
        raise OSError("http://a cannot be reached")

    async def main() -> None:
        with installed(AHost(answer=refuse)), pytest.raises(OSError, match="cannot be reached"):
            await fetch("http://a")

    run(main())


def test_a_fetcher_of_the_users_own_takes_the_place_of_the_network() -> None:
    async def fetcher(request: Any) -> Any:
        return js.Response.new(f"{request.method} {await request.text()}", status=201)

    async def main() -> None:
        response = await fetch("http://a", method="POST", body="x", fetcher=fetcher)
        assert isinstance(response, Response)
        assert (response.status, await response.text()) == (201, "POST x")
        with pytest.raises(TypeError, match="must return a Response"):
            await fetch("http://a", fetcher=lambda _request: 5)

    run(main())


def test_a_signal_gives_up_a_fetch() -> None:
    asked = asyncio.Event()

    async def never(_request: RawRequest) -> RawResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        with installed(AHost(answer=never)):
            controller = js.AbortController.new()
            task = asyncio.create_task(fetch("http://a", signal=controller.signal))
            await asked.wait()
            controller.abort()
            with pytest.raises(JsException) as caught:
                await task
            assert caught.value.name == "AbortError"
            with pytest.raises(JsException) as caught:
                await fetch("http://a", signal=js.AbortSignal.timeout(1))
            assert caught.value.name == "TimeoutError"
            with pytest.raises(JsException):
                await fetch("http://a", signal=js.AbortSignal.abort())

    run(main())


def test_a_signal_that_does_not_fire_changes_nothing() -> None:
    async def main() -> None:
        with installed(AHost()):
            signal = js.AbortController.new().signal
            assert (await fetch("http://a", signal=signal)).status == 200
            assert signal._listeners == []

    run(main())
