"""``workers.Response`` as platform-semantics 1.2 has it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import js
import pyodide.http
import pytest
from pyodide.ffi import JsException
from tests.unit.sdk.a_host import pieces, run
from workers import Blob, FetchResponse, FormData, Response
from workers._host import RawResponse
from workers.response import raw_parts


def typed(content_type: bytes) -> tuple[bytes, bytes]:
    return b"content-type", content_type


TEXT = typed(b"text/plain;charset=UTF-8")
FORM = typed(b"application/x-www-form-urlencoded;charset=UTF-8")
JSON = typed(b"application/json")


def test_the_hierarchy_is_cloudflares() -> None:
    assert issubclass(Response, FetchResponse) and issubclass(FetchResponse, pyodide.http.FetchResponse)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Response("Hello"), (200, [TEXT], b"Hello", "")),
        (lambda: Response("grün", status=HTTPStatus.CREATED), (201, [TEXT], "grün".encode(), "")),
        (lambda: Response(b"x", 404, "Nope"), (404, [], b"x", "Nope")),
        (lambda: Response(), (200, [], None, "")),
        (lambda: Response(None, status=204), (204, [], None, "")),
        (lambda: Response("", status=204), (204, [], None, "")),
        (lambda: Response("x", headers={"Content-Type": "text/html"}), (200, [typed(b"text/html")], b"x", "")),
        (lambda: Response("x", headers=[("A", "1")]), (200, [(b"a", b"1"), TEXT], b"x", "")),
        (lambda: Response(js.URLSearchParams.new({"a": "b c"})), (200, [FORM], b"a=b+c", "")),
        (lambda: Response(Blob("x", "Text/CSV")), (200, [(b"content-type", b"text/csv")], b"x", "")),
        (lambda: Response(js.Blob.new(["x"], type="a/b")), (200, [(b"content-type", b"a/b")], b"x", "")),
        (lambda: Response(js.Response.new("x", {"status": 201})), (201, [TEXT], b"x", "")),
        (lambda: js.Response.new("x", status=201, headers={"a": 1}), (201, [(b"a", b"1"), TEXT], b"x", "")),
        (lambda: js.Response.json({"a": [1, "ü"]}), (200, [JSON], '{"a":[1,"ü"]}'.encode(), "")),
        (lambda: Response.from_json({"a": 1}), (200, [JSON], b'{"a": 1}', "")),
        (lambda: Response.redirect("https://a.example"), (302, [(b"location", b"https://a.example/")], None, "")),
    ],
)  # fmt: skip
def test_what_leaves_the_isolate(make: Any, parts: Any) -> None:
    assert raw_parts(make()) == parts


def test_a_response_leaves_only_once() -> None:
    response = Response("x")
    raw_parts(response)
    with pytest.raises(OSError, match="Body already used"):
        raw_parts(response)


@pytest.mark.parametrize(("value", "shown"), [(None, "returned None"), ("text", "returned 'text'"), ({}, "type dict")])
def test_what_is_no_response_is_named(value: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=shown):
        raw_parts(value)


def test_a_stream_leaves_as_an_iterator_of_bytes() -> None:
    async def main() -> None:
        *_, body, _ = raw_parts(Response(js.ReadableStream.new(pieces(b"a", bytearray(b"b"), js.Uint8Array.of(99)))))
        assert not isinstance(body, (bytes, type(None)))
        assert [chunk async for chunk in body] == [b"a", b"b", b"c"]
        *_, body, _ = raw_parts(Response(js.ReadableStream.new(pieces("text"))))
        assert not isinstance(body, (bytes, type(None)))
        with pytest.raises(TypeError, match="stream of bytes, but received a chunk of type str"):
            await anext(body)

    run(main())


class Test:
    __test__ = False


@pytest.mark.parametrize("body", [Test(), bytearray(b"x"), memoryview(b"x"), {}, 1, pieces(b"x")])
def test_other_bodies_are_refused_by_the_name_of_their_class(body: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Response(body)
    assert str(caught.value) == f"Unsupported type in Response: {type(body).__name__}"


def test_a_js_object_is_refused_by_the_name_of_its_constructor() -> None:
    with pytest.raises(TypeError, match=r"^Unsupported type in Response: Map$"):
        Response(js.Map.new())


def test_a_js_response_takes_no_options() -> None:
    text = r"^Expected no options when constructing Response from a js\.Response$"
    options: dict[str, Any]
    for options in ({"status": 200}, {"status_text": "x"}, {"headers": {}}):
        with pytest.raises(ValueError, match=text):
            Response(js.Response.new("x"), **options)


@pytest.mark.parametrize("status", [100, 101, 199, 600, -1])
def test_a_status_out_of_range_is_a_range_error_of_javascript(status: int) -> None:
    with pytest.raises(JsException) as caught:
        Response(None, status=status)
    assert caught.value.name == "RangeError"
    with pytest.raises(ValueError, match="in the range 200 to 599"):
        Response.from_json({}, status=status)


def test_101_goes_together_with_a_web_socket_only() -> None:
    assert Response(None, status=101, web_socket=object()).status == 101


def test_a_status_without_a_body_refuses_one() -> None:
    with pytest.raises(JsException, match="null body status"):
        Response("x", status=204)
    assert Response(None, status=204).body is None


def test_header_values_become_text_and_repeated_names_are_joined() -> None:
    assert Response(headers={"X": 123, "Y": True, "Z": 1.5}).headers.items() == [
        ("x", "123"),
        ("y", "true"),
        ("z", "1.5"),
    ]
    assert Response(headers=[("A", "a"), ("a", "b")]).headers.get_all("A") == ["a, b"]
    cookies = Response(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert cookies.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert raw_parts(cookies)[1] == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


def test_repr_is_cloudflares() -> None:
    assert repr(Response.json({})) == "Response(status=200, status_text='OK', content_type='application/json')"
    fetched = Response._from_raw(RawResponse(404, [], None, "", "http://a/"))
    assert repr(fetched) == "Response(status=404, status_text='Not Found', url='http://a/')"


def test_members_of_an_answer_from_elsewhere() -> None:
    response = Response._from_raw(RawResponse(404, [(b"X", b"1")], b"gone", "Gone", "http://a/", True))
    assert (response.status, response.status_text, response.ok, response.redirected) == (404, "Gone", False, True)
    assert (response.type, response.url, response.headers["x"]) == ("default", "http://a/", "1")
    with pytest.raises(OSError, match="404 Client Error: Gone for url: http://a/"):
        response.raise_for_status()
    Response().raise_for_status()


def test_all_the_ways_to_read() -> None:
    async def main() -> None:
        data = b'{"a": 1}'
        assert await Response(data).text() == data.decode()
        assert await Response(data).json() == {"a": 1}
        assert await Response(data).bytes() == data
        assert (await Response(data).buffer()).to_bytes() == data
        assert bytes(await Response(data).memoryview()) == data
        blob = await Response(data, headers={"content-type": "a/b"}).blob()
        assert (await blob.bytes(), blob.content_type) == (data, "a/b")
        assert isinstance(json.loads(await Response.from_json([1]).text()), list)

    run(main())


def test_the_second_reading_is_an_os_error() -> None:
    async def main() -> None:
        response = Response("x")
        await response.text()
        with pytest.raises(OSError, match=r"^Body already used$") as caught:
            await response.text()
        assert type(caught.value) is OSError
        with pytest.raises(OSError, match=r"^Body already used$"):
            response.clone()

    run(main())


def test_clone_and_replace_body_keep_status_and_headers() -> None:
    async def main() -> None:
        response = Response(js.ReadableStream.new(pieces(b"a", b"b")), 201, "Fine", {"X": "1"})
        copy = response.clone()
        assert (copy.status, copy.status_text, copy.headers["x"]) == (201, "Fine", "1")
        assert await copy.text() == await response.text() == "ab"
        other = Response("a", 201, "Fine", {"X": "1", "content-type": "text/html"}).replace_body("new")
        assert isinstance(other, Response)
        assert raw_parts(other) == (201, [(b"x", b"1"), (b"content-type", b"text/html")], b"new", "Fine")
        assert raw_parts(Response(b"a").replace_body("new"))[1] == [TEXT]

    run(main())


def test_redirect_refuses_other_statuses_and_what_is_no_url() -> None:
    response = Response.redirect("https://a.example/x", 308)
    assert (response.status, response.headers.get("location")) == (308, "https://a.example/x")
    for url, status in (("", 502), ("https://a/", 200), ("", 302), ("/relative", 302)):
        with pytest.raises(ValueError):
            Response.redirect(url, status)


def test_from_json_keeps_pythons_text_and_the_content_type_that_is_given() -> None:
    async def main() -> None:
        response = Response.from_json({"obj": {"field": 123}}, headers={"Content-Type": "application/problem+json"})
        assert response.headers["content-type"] == "application/problem+json"
        assert await response.text() == '{"obj": {"field": 123}}'
        with pytest.raises(TypeError, match=r"^Object of type set is not JSON serializable$"):
            Response.from_json({1})

    run(main())


def test_json_makes_on_the_class_and_reads_on_an_instance() -> None:
    async def main() -> None:
        response = Response.json({"a": 1}, status=201, headers={"x": "y"})
        assert (response.status, response.headers["x"]) == (201, "y")
        assert await response.json() == {"a": 1}
        view = js.Response.json([1], status=202)
        assert view.status == 202 and await view.json() == [1]

    run(main())


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (js.Uint8Array.of(1, 2, 3), b"\1\2\3"),
        (js.Uint8Array.of(1, 2, 3, 4).subarray(1, 3), b"\2\3"),
        (js.Int16Array.of(1, 256), b"\1\0\0\1"),
        (js.Float64Array.new(1), bytes(8)),
        (js.Uint8Array.new([1, 2]).buffer, b"\1\2"),
        (js.DataView.new(js.Uint8Array.of(1, 2, 3, 4).buffer, 1, 2), b"\2\3"),
        (js.ArrayBuffer.new(0), b""),
    ],
)
def test_every_kind_of_buffer_keeps_its_exact_bytes(body: Any, data: bytes) -> None:
    assert run(Response(body).bytes()) == data


def test_a_buffer_is_copied_when_the_response_is_made() -> None:
    array = js.Uint8Array.of(1, 2)
    response = Response(array)
    array[0] = 9
    assert run(response.bytes()) == b"\1\2"


def test_a_form_as_a_body_is_multipart_and_comes_back() -> None:
    async def main() -> None:
        form = FormData({"a": "1"})
        form.append("file", Blob('{"x": 1}', content_type="application/json"), filename="metadata.json")
        response = Response(form)
        assert response.headers["content-type"].startswith("multipart/form-data; boundary=")
        back = await response.formData()
        assert back["a"] == "1"
        file = back["file"]
        assert (file.name, file.content_type, await file.text()) == ("metadata.json", "application/json", '{"x": 1}')

    run(main())


def test_a_text_whose_stream_is_taken_keeps_its_content_type() -> None:
    response = Response("text")
    assert response.body is not None
    assert response.headers["content-type"] == "text/plain;charset=UTF-8"
