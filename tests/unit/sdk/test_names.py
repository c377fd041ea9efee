"""The names that programs import, and the light ``js`` and ``pyodide`` (1.0, 1.9, 1.10)."""

from __future__ import annotations

import asyncio
import importlib
from datetime import UTC, datetime
from typing import Any

import js
import pyodide
import pytest
import workers
from pyodide.ffi import JsException, create_once_callable, create_proxy, destroy_proxies, run_sync, to_js
from tests.unit.sdk.a_host import AHost, installed, run

PUBLIC = [
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "DurableObject",
    "FetchKwargs",
    "FetchResponse",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "JSBody",
    "Request",
    "RequestInitCfProperties",
    "Response",
    "WorkerEntrypoint",
    "WorkflowEntrypoint",
    "env",
    "fetch",
    "handler",
    "import_from_javascript",
    "patch_env",
    "python_from_rpc",
    "python_to_rpc",
    "waitUntil",
    "wait_until",
]


def test_the_public_names_are_cloudflares() -> None:
    assert sorted(workers.__all__) == sorted(PUBLIC)
    with installed(AHost({})):
        assert all(getattr(workers, name) is not None for name in PUBLIC)


@pytest.mark.parametrize(
    "name",
    [
        "blob",
        "formdata",
        "request",
        "response",
        "fetch",
        "rpc",
        "entrypoints",
        "types",
        "utils",
        "workflows",
        "asgi",
        "wsgi",
    ],
)
def test_the_submodules_are_cloudflares(name: str) -> None:
    assert importlib.import_module(f"workers.{name}")


def test_the_name_fetch_is_the_function_although_a_module_has_it_too() -> None:
    importlib.import_module("workers.fetch")
    assert callable(workers.fetch)


def test_flags_and_the_runtimes_own_modules() -> None:
    flags: Any = importlib.import_module("_cloudflare_compat_flags")
    helper: Any = importlib.import_module("_pyodide_entrypoint_helper")
    with installed(AHost({"A": 1})):
        assert flags.python_workflows and not flags.other
        assert workers.utils.get_compat_flag("python_workflows")
        assert helper.cloudflareWorkersModule.env.A == 1
        patch = helper.patch_env_helper({"A": 2})
        next(patch)
        assert workers.env.A == 2
        assert list(patch) == []
        assert workers.env.A == 1
    assert pyodide.__version__ != "0.26.0a2"


def test_json_is_javascripts() -> None:
    value = {
        "a": [1.0, 1.5, None, True, float("nan")],
        "d": datetime(2025, 1, 1, tzinfo=UTC),
        "u": js.undefined,
        "ü": "ü",
    }
    assert js.JSON.stringify(value) == '{"a":[1,1.5,null,true,null],"d":"2025-01-01T00:00:00.000Z","ü":"ü"}'
    assert js.JSON.parse('{"a": {"b": 1}}').a.b == 1
    with pytest.raises(JsException) as caught:
        js.JSON.parse("{")
    assert caught.value.name == "SyntaxError"


def test_objects_dates_maps_and_errors() -> None:
    made = js.Object.fromEntries([["a", 1], [2, "b"]])
    assert made == {"a": 1, "2": "b"} and made.a == 1
    assert js.Object.entries(made) == [["a", 1], ["2", "b"]]
    assert js.Array.new(1, 2) == [1, 2]
    date = js.Date.new(1_700_000_000_123)
    assert (date.getTime(), date.toISOString()) == (1_700_000_000_123, "2023-11-14T22:13:20.123Z")
    assert js.Date.new("2023-11-14T22:13:20.123Z").getTime() == 1_700_000_000_123
    assert abs(js.Date.now() - js.Date.new().getTime()) < 10_000
    assert js.Map.new([["a", 1]]).get("a") == 1
    assert js.Set.new([1, 1]) == {1}
    assert str(js.Error.new("no")) == "Error: no"
    assert js.TypeError.new("no").name == "TypeError"
    assert js.crypto.randomUUID() != js.crypto.randomUUID()
    assert js.atob(js.btoa("x")) == "x"
    assert js.globalThis.JSON is js.JSON


def test_urls_and_their_parameters() -> None:
    url = js.URL.new("/a?x=1&x=2#f", "https://Test.com:8080/b")
    assert (url.protocol, url.host, url.port, url.pathname, url.search, url.hash) == (
        "https:",
        "test.com:8080",
        "8080",
        "/a",
        "?x=1&x=2",
        "#f",
    )
    assert url.searchParams.getAll("x") == ["1", "2"]
    url.searchParams.set("x", "ü b")
    url.pathname = "c d"
    assert url.href == str(url) == "https://test.com:8080/c%20d?x=%C3%BC+b#f"
    params = js.URLSearchParams.new({"a": 1, "b": "c d"})
    params.append("a", True)
    assert params.toString() == "a=1&b=c+d&a=true"
    params.delete("a")
    assert list(params) == [("b", "c d")] and params.has("b") and params.get("z") is None
    assert not js.URL.canParse("nonsense")


def test_headers_of_javascript() -> None:
    headers = js.Headers.new([["B", "1"], ["a", "2"], ["b", "3"], ["Set-Cookie", "x=1"], ["Set-Cookie", "y=2"]])
    assert list(headers) == [("a", "2"), ("b", "1, 3"), ("set-cookie", "x=1"), ("set-cookie", "y=2")]
    assert (headers.get("B"), headers.has("b"), headers.get("z"), headers.getSetCookie()) == (
        "1, 3",
        True,
        None,
        ["x=1", "y=2"],
    )
    headers.set("b", 5)
    headers.delete("A")
    assert "a" not in headers and headers["b"] == "5"
    assert js.Headers.new(headers).get("b") == "5"
    assert headers.to_py()["b"] == "5"


def test_text_is_decoded_in_pieces() -> None:
    data = "aü€😀z".encode()
    for size in (1, 2, 3, 5):
        decoder = js.TextDecoder.new()
        out = "".join(decoder.decode(data[at : at + size], {"stream": True}) for at in range(0, len(data), size))
        assert out + decoder.decode() == "aü€😀z"
    assert js.TextEncoder.new().encode("ü") == "ü".encode()


def test_console_writes_to_the_log() -> None:
    with installed(AHost()) as host:
        js.console.log("a", 1, None, {"b": [1]}, js.undefined, b"xx")
        js.console.info("i")
        js.console.warn("w")
        js.console.error(ValueError("e"))
        js.console.debug("d")
        assert host.logged == [
            ("info", 'a 1 null {"b":[1]} undefined [Uint8Array(2 bytes)]'),
            ("info", "i"),
            ("warn", "w"),
            ("error", "e"),
            ("debug", "d"),
        ]


def test_timers_call_functions_of_both_kinds() -> None:
    async def main() -> None:
        done = asyncio.Event()
        seen: list[Any] = []

        async def later(value: int) -> None:
            seen.append(value)
            done.set()

        js.clearTimeout(js.setTimeout(seen.append, 0, "never"))
        js.queueMicrotask(lambda: seen.append("micro"))
        js.setTimeout(create_proxy(later), 1, 5)
        await done.wait()
        assert seen == ["micro", 5]

    run(main())


def test_what_does_not_exist_says_so() -> None:
    with pytest.raises(AttributeError, match="no JavaScript here"):
        _ = js.document
    with pytest.raises(NotImplementedError, match="WebSockets"):
        js.WebSocketPair.new()
    with pytest.raises(NotImplementedError, match="run_sync"):
        run_sync(asyncio.sleep(0))


def test_to_js_copies_into_arrays_and_objects() -> None:
    made = to_js({"a": (1, [2]), 3: None}, dict_converter=js.Object.fromEntries)
    assert made == {"a": [1, [2]], "3": None} and made.a == [1, [2]]
    assert to_js({"a": {"b": 1}}).a.b == 1
    assert to_js(b"abc").buffer.to_bytes() == b"abc"
    assert to_js(object, default_converter=lambda value, _convert, _cache: value.__name__) == "object"


def test_proxies_are_the_objects_themselves() -> None:
    once = create_once_callable(lambda x: x + 1)
    assert once(1) == 2
    with pytest.raises(JsException):
        once(1)
    proxy = create_proxy([1])
    proxy.append(2)
    assert proxy.unwrap() == [1, 2]
    proxy.destroy()
    destroy_proxies([proxy])


def test_typed_arrays_share_their_buffer() -> None:
    array = js.Uint16Array.of(1, 2, 3)
    part = array.subarray(1, 3)
    part[0] = 513
    assert list(array) == [1, 513, 3]
    assert (part.byteLength, part.byteOffset, part.length, len(part)) == (4, 2, 2, 2)
    assert part.to_bytes() == b"\1\2\3\0"
    copy = array.slice(1)
    copy[0] = 0
    assert array[1] == 513
    array.set([7], 2)
    assert array[2] == 7 and array.buffer.byteLength == 6
