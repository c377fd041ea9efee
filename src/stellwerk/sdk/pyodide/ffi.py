"""``pyodide.ffi``: values between Python and JavaScript. Both are Python here, so a conversion is a copy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from workers._buffers import ArrayBuffer as JsBuffer
from workers._buffers import Uint8Array
from workers._js import JsDict, JsException, JsNull, JsProxy, NotBuiltError, js_text, jsnull

__all__ = [
    "JsBuffer",
    "JsException",
    "JsNull",
    "JsProxy",
    "create_once_callable",
    "create_proxy",
    "destroy_proxies",
    "jsnull",
    "run_sync",
    "to_js",
]


def to_js(
    obj: Any,
    /,
    *,
    depth: int = -1,
    pyproxies: Any = None,
    create_pyproxies: bool = True,
    dict_converter: Callable[[Iterable[list[Any]]], Any] | None = None,
    default_converter: Callable[[Any, Callable[[Any], Any], Callable[[Any, Any], None]], Any] | None = None,
) -> Any:
    """A copy in which tuples are arrays and dicts are objects with attribute access."""

    def convert(value: Any) -> Any:
        return to_js(value, dict_converter=dict_converter, default_converter=default_converter)

    if isinstance(obj, dict):
        entries: list[Any] = [[js_text(key), convert(value)] for key, value in obj.items()]
        return JsDict(dict(entries)) if dict_converter is None else dict_converter(entries)
    if isinstance(obj, (list, tuple)):
        return [convert(item) for item in obj]
    if isinstance(obj, (bytes, bytearray, memoryview)):
        return Uint8Array(obj)
    if obj is None or isinstance(obj, (str, int, float, set, JsProxy)) or default_converter is None:
        return obj
    return default_converter(obj, convert, lambda _value, _made: None)


class PyProxy:
    """A Python object that JavaScript holds: here the object itself, behind its methods."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._target(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def copy(self) -> PyProxy:
        return self

    def unwrap(self) -> Any:
        return self._target

    def destroy(self) -> None:
        """The garbage collector does."""


def create_proxy(obj: Any, /, **_options: Any) -> PyProxy:
    return PyProxy(obj)


def create_once_callable(obj: Callable[..., Any], /, **_options: Any) -> PyProxy:
    """Callable one time; then it raises."""
    used = False

    def once(*args: Any, **kwargs: Any) -> Any:
        nonlocal used
        if used:
            raise JsException("OnceProxy can only be called once")
        used = True
        return obj(*args, **kwargs)

    return PyProxy(once)


def destroy_proxies(proxies: Any, /) -> None:
    """The garbage collector does."""


def run_sync(awaitable: Awaitable[Any]) -> Any:
    """Not built yet. Raises ``NotBuiltError`` and closes the coroutine."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
    raise NotBuiltError("run_sync() is not built yet. Make the calling function async and await instead.")
