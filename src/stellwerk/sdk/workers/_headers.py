"""Headers: a list of byte pairs inside, ``http.client.HTTPMessage`` and JavaScript's ``Headers`` outside.

Requests and responses keep the list as the ingress gave it, or as it goes out; the two views are made when asked for.
Names are lower-case and sorted in both views, and all values of one name are joined with ", " except those of
Set-Cookie, which may not be joined: as Cloudflare does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from typing import Any

from workers._js import JsProxy, js_text, jsnull, revivers

RawHeaders = list[tuple[bytes, bytes]]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BAD_IN_VALUE = re.compile(r"[\0\r\n]")
_NAMES_MAX = 1024  # names seen so far are kept, up to this many: a program uses few
_names: dict[str, bytes] = {}


def encode_name(name: Any) -> bytes:
    """The header's name, lower-case. Raises ``TypeError`` for what is none."""
    encoded = _names.get(name) if type(name) is str else None
    if encoded is not None:
        return encoded
    text = js_text(name)
    if not _NAME.match(text):
        raise TypeError(f"Invalid header name: {text!r}")
    encoded = text.lower().encode("ascii")
    if len(_names) < _NAMES_MAX:
        _names[text] = encoded
    return encoded


def encode_value(value: Any) -> bytes:
    """The header's value as it goes over the wire. Raises ``TypeError`` where it would break out of its line."""
    text = value if type(value) is str else js_text(value)
    if _BAD_IN_VALUE.search(text):
        raise TypeError(f"Invalid header value: {text!r}")
    return text.strip(" \t").encode("utf-8", "replace")


def decode_value(value: bytes) -> str:
    """UTF-8 as Cloudflare reads it, or Latin-1 where it is none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def raw_headers(headers: Any) -> RawHeaders:
    """The list for what a user may pass as ``headers``: a dict, a list of pairs, or ``Headers``."""
    if isinstance(headers, dict):
        return [(encode_name(name), encode_value(value)) for name, value in headers.items()]
    if isinstance(headers, list):
        return [(encode_name(name), encode_value(value)) for name, value in headers]
    if isinstance(headers, Headers):
        return list(headers._list)
    raise TypeError("Received unexpected type for headers argument")


def joined(headers: RawHeaders) -> list[tuple[str, str]]:
    """What JavaScript sees when it walks over ``headers``."""
    values: dict[bytes, str] = {}
    cookies: list[tuple[str, str]] = []
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        value = decode_value(raw_value).strip()
        if name == b"set-cookie":
            cookies.append(("set-cookie", value))
        elif name in values:
            values[name] += ", " + value
        else:
            values[name] = value
    pairs = [(name.decode("latin-1"), value) for name, value in values.items()]
    if cookies:
        pairs += cookies
    pairs.sort(key=_by_name)
    return pairs


def _by_name(pair: tuple[str, str]) -> str:
    return pair[0]


def http_message(headers: RawHeaders) -> HTTPMessage:
    """A fresh ``HTTPMessage``. Changing it changes nothing else, as on Cloudflare."""
    message = HTTPMessage()
    # The list behind every email.message.Message. Adding one by one would go through the mail policy, at ten times
    # the cost, for a result that is the same.
    message._headers = joined(headers)  # type: ignore[attr-defined]
    return message


def first(headers: RawHeaders | None, name: bytes) -> str:
    """The first value of ``name``, or ''."""
    for key, value in headers or ():
        if key == name or key.lower() == name:
            return decode_value(value).strip()
    return ""


class Headers(JsProxy):
    """JavaScript's ``Headers`` (``js.Headers.new``), and a mapping for Python."""

    def __init__(self, init: Any = None) -> None:
        if init is None or init is jsnull:
            self._list: RawHeaders = []
        elif hasattr(init, "items") and not isinstance(init, (dict, Headers)):
            self._list = raw_headers(list(init.items()))
        else:
            self._list = raw_headers(init if isinstance(init, (dict, Headers)) else [tuple(pair) for pair in init])

    @classmethod
    def _over(cls, headers: RawHeaders) -> Headers:
        """A view: what is set here is set in ``headers``."""
        view = object.__new__(cls)
        view._list = headers
        return view

    def get(self, name: Any, default: Any = None) -> Any:
        key = encode_name(name)
        values = [decode_value(value) for each, value in self._list if each.lower() == key]
        return ", ".join(values) if values else default

    def set(self, name: Any, value: Any) -> None:
        key, encoded = encode_name(name), encode_value(value)
        for index, (each, _) in enumerate(self._list):
            if each.lower() == key:
                rest = [pair for pair in self._list[index + 1 :] if pair[0].lower() != key]
                self._list[index:] = [(key, encoded), *rest]
                return
        self._list.append((key, encoded))

    def append(self, name: Any, value: Any) -> None:
        self._list.append((encode_name(name), encode_value(value)))

    def has(self, name: Any) -> bool:
        key = encode_name(name)
        return any(each.lower() == key for each, _ in self._list)

    def delete(self, name: Any) -> None:
        key = encode_name(name)
        self._list[:] = [pair for pair in self._list if pair[0].lower() != key]

    def getSetCookie(self) -> list[str]:
        return [decode_value(value) for name, value in self._list if name.lower() == b"set-cookie"]

    def entries(self) -> list[tuple[str, str]]:
        return joined(self._list)

    items = entries

    def keys(self) -> list[str]:
        return [name for name, _ in joined(self._list)]

    def values(self) -> list[str]:
        return [value for _, value in joined(self._list)]

    def forEach(self, callback: Callable[..., Any]) -> None:
        for name, value in joined(self._list):
            callback(value, name, self)

    def to_py(self, **_options: Any) -> dict[str, str]:
        return dict(joined(self._list))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(joined(self._list))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.has(name)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return str(value)

    __setitem__ = set
    __delitem__ = delete

    def __len__(self) -> int:
        return len(joined(self._list))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Headers({joined(self._list)!r})"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "Headers", [list(pair) for pair in self._list]


revivers["Headers"] = lambda pairs: Headers._over([(bytes(name), bytes(value)) for name, value in pairs])
