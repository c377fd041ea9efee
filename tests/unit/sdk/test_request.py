"""``workers.Request`` as platform-semantics 1.1 and 1.4 have it."""

from __future__ import annotations

import json
from http import HTTPMethod
from http.client import HTTPMessage
from typing import Any

import js
import pytest
from pyodide.ffi import JsException, JsProxy
from tests.unit.sdk.a_host import pieces, run
from workers import Request


def raw(headers: list[tuple[bytes, bytes]] | None = None, body: bytes | None = None, **options: object) -> Request:
    return Request._from_raw("POST", "https://test.com/a", headers or [], body, **options)


def test_repr_shows_the_method_and_the_normalised_url() -> None:
    assert (
        repr(Request("https://test.com", method=HTTPMethod.POST)) == "Request(method='POST', url='https://test.com/')"
    )


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://test.com", "https://test.com/"),
        ("HTTPS://TEST.com:443/A/./b/../c?x=ä b#f", "https://test.com/A/c?x=%C3%A4%20b#f"),
        ("http://test.com:80", "http://test.com/"),
        ("http://test.com:8080/%2e%2e/x", "http://test.com:8080/x"),
        ("  http://test.com/a b\n", "http://test.com/a%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[::1]:8787/x", "http://[::1]:8787/x"),
        ("http://u:p@test.com/", "http://u:p@test.com/"),
        ("http://test.com?", "http://test.com/"),
    ],
)
def test_urls_are_normalised_as_the_web_platform_does(given: str, url: str) -> None:
    assert Request(given).url == url
    assert Request(url).url == url


@pytest.mark.parametrize("url", ["", "/path", "nonsense", "http://", "http://a b/", "http://x:99999/", "http://x:y/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(JsException, match="Invalid URL") as caught:
        Request(url)
    assert caught.value.name == "TypeError"


def test_the_method_is_a_member_of_the_enum_and_unknown_verbs_are_a_key_error() -> None:
    assert Request("http://a/").method is HTTPMethod.GET
    assert Request("http://a/", method="post").method is HTTPMethod.POST
    with pytest.raises(KeyError):
        _ = Request("http://a/", method="BREW").method


def test_headers_may_be_a_dict_pairs_or_js_headers() -> None:
    for headers in ({"X-A": "1"}, [("X-A", "1")], js.Headers.new({"X-A": "1"})):
        request = Request("http://a/", headers=headers)
        assert isinstance(request.headers, HTTPMessage)
        assert request.headers["x-a"] == request.headers.get("X-A") == "1"
        assert "X-a" in request.headers
    with pytest.raises(TypeError, match=r"^Received unexpected type for headers argument$"):
        Request("http://a/", headers="X-A: 1")


def test_repeated_headers_are_joined_and_commas_are_never_split() -> None:
    request = raw(
        [
            (b"User-Agent", b"Example, Agent/1.0"),
            (b"Accept-Encoding", b" deflate "),
            (b"accept-encoding", b"gzip"),
            (b"Set-Cookie", b"a=b, c=d"),
            (b"set-cookie", b"e=f"),
        ]
    )
    assert request.headers.get_all("Accept-encoding") == ["deflate, gzip"]
    assert request.headers.get_all("User-Agent") == ["Example, Agent/1.0"]
    assert request.headers.get_all("Set-Cookie") == ["a=b, c=d", "e=f"]
    assert list(request.headers.keys()) == ["accept-encoding", "set-cookie", "set-cookie", "user-agent"]


@pytest.mark.parametrize("headers", [{"a b": "1"}, {"a": "x\r\ny: z"}, {"": "1"}, {"a": "\0"}])
def test_headers_that_would_break_out_of_their_line_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="Invalid header"):
        Request("http://a/", headers=headers)


def test_the_body_is_read_once() -> None:
    async def main() -> None:
        request = raw(body=b'{"a": 1.50}')
        assert not request.body_used
        assert await request.json(parse_float=str) == {"a": "1.50"}
        assert request.body_used
        for read in (request.text, request.json, request.bytes, request.buffer, request.blob):
            with pytest.raises(OSError, match=r"^Body already used$") as caught:
                await read()
            assert type(caught.value) is OSError
        with pytest.raises(OSError, match=r"^Body already used$"):
            request.clone()

    run(main())


def test_no_body_reads_as_nothing_any_number_of_times() -> None:
    async def main() -> None:
        request = Request("http://a/")
        assert request.body is None
        assert await request.text() == await request.text() == ""
        assert not request.body_used

    run(main())


def test_a_body_from_the_wire_may_come_in_pieces() -> None:
    async def main() -> None:
        request = Request._from_raw("POST", "http://a/", [], pieces(b"\xef\xbb\xbfgr\xc3", b"\xbcn"))
        copy = request.clone()
        assert await request.text() == "grün"
        assert await copy.bytes() == b"\xef\xbb\xbfgr\xc3\xbcn"
        third = Request._from_raw("POST", "http://a/", [], pieces(b"a", b"b"))
        assert third.body is not None
        assert [bytes(chunk) async for chunk in third.body] == [b"a", b"b"]
        assert third.body_used

    run(main())


def test_a_clone_has_its_own_headers_and_body() -> None:
    async def main() -> None:
        request = raw([(b"x", b"1")], b"abc")
        copy = request.clone()
        copy.js_object.headers.set("x", "2")
        assert (request.headers["x"], copy.headers["x"]) == ("1", "2")
        assert await request.text() == await copy.text() == "abc"

    run(main())


def test_a_request_made_of_another_takes_its_body_over() -> None:
    async def main() -> None:
        first = Request("http://a/", method="PUT", body="abc", headers={"x": "1"})
        second = Request(first, headers={"y": "2"})
        assert (second.method, second.url) == (HTTPMethod.PUT, "http://a/")
        assert "x" not in second.headers and second.headers["y"] == "2"
        assert await second.text() == "abc"
        with pytest.raises(OSError, match="Body already used"):
            await first.text()
        with pytest.raises(OSError, match="Body already used"):
            Request(first)

    run(main())


def test_a_js_request_takes_no_options() -> None:
    inner = js.Request.new("https://test.com", {"method": "POST", "body": "x"})
    assert (inner.method, inner.url) == ("POST", "https://test.com/")
    request = Request(inner)
    assert request.method is HTTPMethod.POST
    with pytest.raises(ValueError, match=r"^Expected no options when constructing Request from a js\.Request$"):
        Request(inner, method="GET")


def test_a_get_has_no_body() -> None:
    with pytest.raises(JsException, match="GET or HEAD"):
        Request("http://a/", body="x")


def test_a_body_brings_its_content_type_unless_a_header_says_another() -> None:
    def content_type(body: object, **options: object) -> str | None:
        return Request("http://a/", method="POST", body=body, **options).headers.get("content-type")

    assert content_type("x") == "text/plain;charset=UTF-8"
    assert content_type(b"x") is None
    assert content_type(js.URLSearchParams.new("a=b")) == "application/x-www-form-urlencoded;charset=UTF-8"
    assert content_type("x", headers={"Content-Type": "application/json"}) == "application/json"
    with pytest.raises(TypeError, match="Unsupported type in Request: object"):
        content_type(object())


def test_cf_is_none_or_read_by_attribute() -> None:
    assert raw().cf is None
    cf: Any = raw(cf={"country": "DE", "botManagement": {"score": 3}}).cf
    assert issubclass(type(cf), JsProxy)
    assert cf.country == "DE" and cf.botManagement.score == 3
    assert cf.to_py() == {"country": "DE", "botManagement": {"score": 3}}
    assert not hasattr(cf, "city")


def test_the_js_view_shows_and_changes_the_same_request() -> None:
    async def main() -> None:
        request = raw([(b"x", b"1")], json.dumps({"a": 1}).encode())
        view = request.js_object
        view.headers.append("x", "2")
        assert request.headers["x"] == "1, 2"
        assert await view.json() == {"a": 1}
        assert request.body_used and request._js_request.bodyUsed

    run(main())
