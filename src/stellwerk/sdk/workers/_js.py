"""What stands for JavaScript's own notions in Python: proxies, errors, null, and objects with attribute access.

On Cloudflare these come from Pyodide. Here there is no JavaScript; the names are kept so that programs written for
Cloudflare find what they import, and mean the same where a Worker can see it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

# kind -> how an object of that kind is rebuilt from what ``__rpc_value__`` answered on the other side.
revivers: dict[str, Callable[[Any], Any]] = {}


class JsDict(dict[str, Any]):
    """A JavaScript object: a dict whose keys can be read as attributes. Where a key has the name of a method of dict,
    the attribute is the method."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to_py(self, **_options: Any) -> dict[str, Any]:
        """The same as plain dicts, all the way down."""
        return {key: _plain(value) for key, value in self.items()}

    @staticmethod
    def __rpc_revive__(kind: str, content: Any) -> Any:
        """How the codec gives an object of the SDK back (see ``wire/values.py``)."""
        return revivers[kind](content)


class JsProxy:
    """Base of everything that is a JavaScript object on Cloudflare."""

    @classmethod
    def new(cls, *args: Any, **options: Any) -> Any:
        """``Class.new(...)`` is how Pyodide spells ``new Class(...)``."""
        return cls(*args, **options)

    @property
    def constructor(self) -> SimpleNamespace:
        return SimpleNamespace(name=type(self).__name__)

    def to_py(self, **_options: Any) -> Any:
        return self

    def object_values(self) -> list[Any]:
        return [getattr(self, name) for name in self.object_keys()]

    def object_keys(self) -> list[str]:
        return [name for name in vars(self) if not name.startswith("_")]

    def destroy(self) -> None:
        """Pyodide frees the proxy; here the garbage collector does."""


class JsObject(JsProxy):
    """A plain JavaScript object, read by attribute (``request.cf``)."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update({key: js_object(value) for key, value in values.items()})

    def to_py(self, **_options: Any) -> dict[str, Any]:
        return {key: _plain(value) for key, value in vars(self).items()}

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", self.to_py()

    def __repr__(self) -> str:
        return "[object Object]"


def js_object(value: Any) -> Any:
    """``value`` with a ``JsObject`` for each dict."""
    if isinstance(value, dict):
        return JsObject(value)
    return [js_object(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (JsObject, JsDict)):
        return value.to_py()
    return [_plain(item) for item in value] if isinstance(value, list) else value


class JsException(Exception):
    """An error thrown by the platform rather than by Python. ``name`` is the JavaScript class, as ``RangeError``."""

    def __init__(self, message: str = "", *, name: str = "Error") -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.stack = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class JsNull:
    """``null``, where Cloudflare's SDK gives it out instead of ``None``: falsy and equal to itself only."""

    _instance: JsNull | None = None

    def __new__(cls) -> JsNull:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "jsnull"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", None


jsnull = JsNull()


class NotBuiltError(NotImplementedError):
    """Cloudflare has this and this release does not. The text says what to do instead."""


def js_text(value: Any) -> str:
    """``String(value)``: what JavaScript makes of a value where text is wanted."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or value is jsnull:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return ",".join(js_text(item) for item in value)
    return "[object Object]" if isinstance(value, dict) else str(value)


def options_of(args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a call in either of Pyodide's two spellings: a trailing object, or keyword arguments."""
    given = args[0] if args else None
    merged: dict[str, Any] = {}
    if isinstance(given, dict):
        merged.update(given)
    elif isinstance(given, JsObject):
        merged.update(vars(given))
    elif given is not None and given is not jsnull:
        raise TypeError(f"Expected an object with options, got {type(given).__name__}")
    merged.update(options)
    return merged
