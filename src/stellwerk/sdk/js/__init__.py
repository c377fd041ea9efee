"""The global scope of JavaScript, for programs that ``import js`` on Cloudflare.

There is no JavaScript here. Each name is Python that does what a Worker can see of it; names that are missing raise
``AttributeError`` with the reason, so that a program fails where it reaches for them.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import secrets
import sys
import uuid
from collections.abc import Callable
from typing import Any

from workers._abort import AbortController, AbortSignal
from workers._buffers import (
    ArrayBuffer,
    BigInt64Array,
    BigUint64Array,
    DataView,
    Float32Array,
    Float64Array,
    Int8Array,
    Int16Array,
    Int32Array,
    Uint8Array,
    Uint8ClampedArray,
    Uint16Array,
    Uint32Array,
)
from workers._headers import Headers
from workers._host import host
from workers._js import JsProxy, NotBuiltError, js_text, options_of
from workers._streams import ReadableStream, TransformStream, WritableStream
from workers._url import URL, URLSearchParams
from workers.blob import JsBlob as Blob
from workers.blob import JsFile as File
from workers.fetch import fetch as _fetch
from workers.formdata import JsFormData as FormData
from workers.request import JsRequest as Request
from workers.response import JsResponse as Response

from js._values import (
    JSON,
    Array,
    Date,
    Error,
    Map,
    Number,
    Object,
    RangeError,
    Set,
    TextDecoder,
    TextEncoder,
    undefined,
)
from js._values import TypeError_ as TypeError

__all__ = [
    "JSON",
    "URL",
    "AbortController",
    "AbortSignal",
    "Array",
    "ArrayBuffer",
    "BigInt64Array",
    "BigUint64Array",
    "Blob",
    "DataView",
    "Date",
    "Error",
    "File",
    "Float32Array",
    "Float64Array",
    "FormData",
    "Headers",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Map",
    "Number",
    "Object",
    "RangeError",
    "ReadableStream",
    "Request",
    "Response",
    "Set",
    "TextDecoder",
    "TextEncoder",
    "TransformStream",
    "TypeError",
    "URLSearchParams",
    "Uint8Array",
    "Uint8ClampedArray",
    "Uint16Array",
    "Uint32Array",
    "WebSocketPair",
    "WritableStream",
    "atob",
    "btoa",
    "clearInterval",
    "clearTimeout",
    "console",
    "crypto",
    "fetch",
    "globalThis",
    "queueMicrotask",
    "self",
    "setInterval",
    "setTimeout",
    "undefined",
]


async def fetch(resource: Any, *init: Any, **options: Any) -> Response:
    """``fetch(resource, init)``; the answer is JavaScript's Response."""
    return (await _fetch(resource, **options_of(init, options))).js_object


class _Console(JsProxy):
    """Records of the Worker's log."""

    def _say(self, level: str, parts: tuple[Any, ...]) -> None:
        text = " ".join(_shown(part) for part in parts)
        try:
            host().log(level, text)
        except RuntimeError:  # outside a Worker: a test or a script
            print(text, file=sys.stderr)

    def log(self, *parts: Any) -> None:
        self._say("info", parts)

    def info(self, *parts: Any) -> None:
        self._say("info", parts)

    def warn(self, *parts: Any) -> None:
        self._say("warn", parts)

    def error(self, *parts: Any) -> None:
        self._say("error", parts)

    def debug(self, *parts: Any) -> None:
        self._say("debug", parts)

    trace = debug


def _shown(part: Any) -> str:
    if isinstance(part, (bytes, bytearray, memoryview)):
        return f"[Uint8Array({len(part)} bytes)]"
    if isinstance(part, ArrayBuffer):
        return f"[ArrayBuffer({len(part)} bytes)]"
    return JSON.stringify(part) if isinstance(part, (dict, list)) else js_text(part)


console = _Console()

_timers: dict[int, asyncio.TimerHandle] = {}
_running: set[asyncio.Future[Any]] = set()
_last_timer = 0


def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    answer = function(*args)
    if inspect.isawaitable(answer):
        task = asyncio.ensure_future(answer)
        _running.add(task)  # the loop itself would let it be collected
        task.add_done_callback(_running.discard)


def setTimeout(function: Callable[..., Any], delay: float = 0, *args: Any) -> int:
    """Calls ``function`` after ``delay`` milliseconds. As on Cloudflare, it does not keep the invocation alive."""
    global _last_timer
    _last_timer += 1
    number = _last_timer

    def fire() -> None:
        _timers.pop(number, None)
        _run(function, args)

    _timers[number] = asyncio.get_running_loop().call_later(max(delay, 0) / 1000, fire)
    return number


def setInterval(function: Callable[..., Any], delay: float = 0, *args: Any) -> int:
    global _last_timer
    _last_timer += 1
    number = _last_timer
    loop = asyncio.get_running_loop()

    def fire() -> None:
        _timers[number] = loop.call_later(max(delay, 1) / 1000, fire)
        _run(function, args)

    _timers[number] = loop.call_later(max(delay, 1) / 1000, fire)
    return number


def clearTimeout(number: int | None = None) -> None:
    timer = _timers.pop(number, None) if number is not None else None
    if timer is not None:
        timer.cancel()


clearInterval = clearTimeout


def queueMicrotask(function: Callable[[], Any]) -> None:
    asyncio.get_running_loop().call_soon(_run, function, ())


def atob(text: str) -> str:
    return base64.b64decode(text).decode("latin-1")


def btoa(text: str) -> str:
    return base64.b64encode(text.encode("latin-1")).decode()


class _Crypto(JsProxy):
    def randomUUID(self) -> str:
        return str(uuid.uuid4())

    def getRandomValues(self, array: Any) -> Any:
        view = memoryview(array if isinstance(array, (bytearray, memoryview)) else array.to_py()).cast("B")
        view[:] = secrets.token_bytes(len(view))
        return array


crypto = _Crypto()


class WebSocketPair(JsProxy):
    def __init__(self, *_args: Any, **_options: Any) -> None:
        raise NotBuiltError("WebSockets are not built yet: a Worker cannot answer an upgrade in this release.")


globalThis = self = sys.modules[__name__]


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"module 'js' has no attribute '{name}': there is no JavaScript here, and Stellwerk has no Python for "
        "this name. Use Python's own library for it."
    )
