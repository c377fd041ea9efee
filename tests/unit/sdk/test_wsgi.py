"""WSGI applications as Workers (platform-semantics 1.8, as far as it needs no ``run_sync``)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import js
import pytest
from tests.unit.sdk.a_host import run
from workers import Request, wsgi


def asked(url: str = "http://a/", **options: Any) -> Request:
    return Request(url, **options)


def answer(app: Any, request: Any = None) -> tuple[int, bytes]:
    async def main() -> tuple[int, bytes]:
        response = await wsgi.fetch(app, request or asked(), None)
        return response.status, await response.bytes()

    return run(main())


def test_the_environment_is_wsgis() -> None:
    headers = [("Content-Type", "text/x"), ("X-A", "1"), ("x-a", "2")]
    request = asked("https://h.example:8443/a%20b/%C3%BC?x=1", method="POST", body=b"abc", headers=headers)
    environ = wsgi.build_environ(request, "ENV", b"abc")
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/ü".encode().decode("latin-1"),
        "QUERY_STRING": "x=1",
        "SERVER_NAME": "h.example",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3",
        "HTTP_X_A": "1, 2",
        "wsgi.url_scheme": "https",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "workers.env": "ENV",
    }
    assert {key: environ[key] for key in expected} == expected
    assert environ["wsgi.input"].read() == b"abc"
    assert "CONTENT_LENGTH" not in wsgi.build_environ(asked(), None, io.BytesIO(b"abc"))
    with pytest.raises(ValueError, match="no scheme"):
        wsgi.build_environ(Request._from_raw("GET", "//a/b", [], None), None)


def test_an_application_answers_requests_of_both_kinds() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("201 Made", [("X", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        return [environ["REQUEST_METHOD"].encode(), b"", environ["wsgi.input"].read()]

    for request in (asked(method="PUT", body="x"), js.Request.new("http://a/", method="PUT", body="x")):
        assert answer(app, request) == (201, b"PUTx")
    response = wsgi.process_request(app, asked(), None)
    assert (response.statusText, response.headers.getSetCookie()) == ("Made", ["a=1", "b=2"])


def test_pieces_are_made_when_they_are_asked_for_and_close_is_called_once() -> None:
    made: list[Any] = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            for number in range(5):
                made.append(number)
                yield bytes([number])

        def close(self) -> None:
            made.append("closed")

    def app(_environ: Any, start_response: Any) -> Pieces:
        start_response("200 OK", [])
        return Pieces()

    async def main() -> None:
        reader = wsgi.process_request(app, asked(), None).body.getReader()
        assert made == [0]
        await reader.read()
        await reader.read()
        assert made == [0, 1]
        await reader.cancel()
        assert made == [0, 1, "closed"]
        made.clear()
        await wsgi.process_request(app, asked(), None).body.cancel()
        assert made == [0, "closed"]
        made.clear()
        assert await wsgi.process_request(app, asked(), None).bytes() == bytes(range(5))
        assert made == [0, 1, 2, 3, 4, "closed"]

    run(main())


def test_what_is_written_comes_before_what_is_returned() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    assert answer(app) == (200, b"abc")


def test_an_application_may_start_its_response_in_its_iterable() -> None:
    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("202 Later", [])
        yield b"x"

    assert answer(app) == (202, b"x")


def test_no_start_response_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"^The WSGI application did not call start_response\(\)$"):
        answer(lambda _environ, _start: [b"x"])


def test_a_second_start_needs_exc_info() -> None:
    def twice(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("500 No", [])
        return []

    def corrected(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        error = ValueError("x")
        start_response("500 No", [], (ValueError, error, None))
        return [b"sorry"]

    with pytest.raises(AssertionError):
        answer(twice)
    assert answer(corrected) == (500, b"sorry")


def test_an_exception_of_the_application_goes_through_and_closes_the_input() -> None:
    source = io.BytesIO(b"x")

    def app(_environ: Any, _start_response: Any) -> list[bytes]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        wsgi.process_request(app, asked(), None, source)
    assert source.closed


def test_a_status_without_a_body_drops_it() -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return [b"dropped"]

    assert answer(app) == (204, b"")
