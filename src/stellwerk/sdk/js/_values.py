"""JavaScript's own values and static objects, as far as Python programs on Cloudflare name them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from workers._buffers import as_bytes
from workers._js import JsDict, JsException, JsProxy, js_text


class Undefined(JsProxy):
    """``undefined``: falsy, and null to everybody else."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "undefined"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", None


undefined = Undefined()


class Object(JsProxy):
    """``Object.fromEntries`` and its neighbours; an object is a ``JsDict``."""

    def __new__(cls, value: Any = None) -> Any:
        return JsDict() if value is None else value

    @classmethod
    def new(cls, *args: Any, **_options: Any) -> Any:
        return args[0] if args and args[0] is not None else JsDict()

    @staticmethod
    def fromEntries(entries: Iterable[Any]) -> JsDict:
        return JsDict({js_text(key): value for key, value in entries})

    @staticmethod
    def keys(value: Any) -> list[str]:
        return list(value.keys() if isinstance(value, dict) else value.object_keys())

    @staticmethod
    def values(value: Any) -> list[Any]:
        return list(value.values() if isinstance(value, dict) else value.object_values())

    @staticmethod
    def entries(value: Any) -> list[list[Any]]:
        return [[key, item] for key, item in zip(Object.keys(value), Object.values(value), strict=True)]

    @staticmethod
    def assign(target: Any, *sources: Any) -> Any:
        for source in sources:
            target.update(source)
        return target


class Array(JsProxy):
    """Arrays are lists."""

    @classmethod
    def new(cls, *items: Any, **_options: Any) -> list[Any]:
        return [None] * items[0] if len(items) == 1 and isinstance(items[0], int) else list(items)

    @staticmethod
    def of(*items: Any) -> list[Any]:
        return list(items)

    @staticmethod
    def isArray(value: Any) -> bool:
        return isinstance(value, list)


setattr(Array, "from", staticmethod(lambda items: list(items)))  # a keyword in Python: reached by getattr only


def _jsonable(value: Any) -> Any:
    """What ``JSON.stringify`` asks a value for."""
    if isinstance(value, Date):
        return value.toJSON()
    if isinstance(value, datetime):
        return Date(value.timestamp() * 1000).toJSON()
    if isinstance(value, (set, JsProxy)):
        to_json = getattr(value, "toJSON", None)
        return to_json() if to_json is not None else {}
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, dict):
        return {js_text(key): _finite(item) for key, item in value.items() if item is not undefined}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


class JSON(JsProxy):
    @staticmethod
    def stringify(value: Any, _replacer: Any = None, indent: Any = None) -> str:
        separators = (",", ":") if not indent else (",", ": ")
        return json.dumps(_finite(value), separators=separators, ensure_ascii=False, default=_jsonable, indent=indent)

    @staticmethod
    def parse(text: Any) -> Any:
        try:
            return json.loads(text, object_pairs_hook=JsDict)
        except json.JSONDecodeError as error:
            raise JsException(str(error), name="SyntaxError") from None


class Date(JsProxy):
    """A moment, in milliseconds since the epoch."""

    def __init__(self, value: Any = None) -> None:
        if value is None:
            self._ms = Date.now()
        elif isinstance(value, str):
            self._ms = round(_aware(datetime.fromisoformat(value)).timestamp() * 1000)
        elif isinstance(value, datetime):
            self._ms = round(value.timestamp() * 1000)
        else:
            self._ms = value._ms if isinstance(value, Date) else int(value)

    @staticmethod
    def now() -> int:
        return time.time_ns() // 1_000_000

    def getTime(self) -> int:
        return self._ms

    valueOf = getTime

    def toISOString(self) -> str:
        moment = datetime.fromtimestamp(self._ms // 1000, tz=UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self._ms % 1000:03d}Z"

    toJSON = toISOString

    def to_py(self, **_options: Any) -> datetime:
        return datetime.fromtimestamp(self._ms / 1000)

    def __repr__(self) -> str:
        return self.toISOString()

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", self.to_py()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Map(JsProxy):
    """Insertion-ordered; sent to others as an object with text keys."""

    def __init__(self, entries: Iterable[Any] = ()) -> None:
        self._items = dict(entries)

    def get(self, key: Any) -> Any:
        return self._items.get(key)

    def set(self, key: Any, value: Any) -> Map:
        self._items[key] = value
        return self

    def has(self, key: Any) -> bool:
        return key in self._items

    def delete(self, key: Any) -> bool:
        return self._items.pop(key, self) is not self

    @property
    def size(self) -> int:
        return len(self._items)

    def keys(self) -> Iterator[Any]:
        return iter(list(self._items))

    def values(self) -> Iterator[Any]:
        return iter(list(self._items.values()))

    def entries(self) -> Iterator[list[Any]]:
        return iter([[key, value] for key, value in self._items.items()])

    __iter__ = entries

    def to_py(self, **_options: Any) -> dict[Any, Any]:
        return dict(self._items)

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", dict(self._items)


class Set(JsProxy):
    @classmethod
    def new(cls, *args: Any, **_options: Any) -> set[Any]:
        return set(*args)


class Number(JsProxy):
    @classmethod
    def new(cls, *args: Any, **_options: Any) -> Any:
        value = float(args[0]) if args else 0.0
        return int(value) if value.is_integer() else value


class Error(JsProxy):
    """``Error.new(text)`` is an exception that can be raised or sent."""

    stackTraceLimit = 10

    @classmethod
    def new(cls, *args: Any, **_options: Any) -> JsException:
        return JsException(js_text(args[0]) if args else "", name=cls.__name__)


class TypeError_(Error): ...


class RangeError(Error): ...


TypeError_.__name__ = "TypeError"


class TextDecoder(JsProxy):
    """UTF-8, also in pieces (``stream``)."""

    def __init__(self, _label: str = "utf-8", *_options: Any) -> None:
        self._rest = b""

    def decode(self, data: Any = b"", options: Any = None, *, stream: bool = False) -> str:
        going_on = stream or bool(isinstance(options, dict) and options.get("stream"))
        whole = self._rest + as_bytes(data)
        self._rest = b""
        if not going_on:
            return whole.decode("utf-8", "replace")
        for kept in range(1, min(4, len(whole) + 1)):  # a character that is still incomplete waits for the next piece
            if whole[-kept] >= 0xC0:
                need = 2 if whole[-kept] < 0xE0 else 3 if whole[-kept] < 0xF0 else 4
                if kept < need:
                    whole, self._rest = whole[:-kept], whole[-kept:]
                break
        return whole.decode("utf-8", "replace")


class TextEncoder(JsProxy):
    def encode(self, text: str = "") -> bytes:
        return text.encode("utf-8", "replace")
