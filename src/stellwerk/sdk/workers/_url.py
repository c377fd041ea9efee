"""URLs as the web platform reads them, for the schemes a Worker meets: ``URL`` and ``URLSearchParams``.

Not the whole of the WHATWG standard, but what a program can see of it with http and https URLs: case, default ports,
dot segments, percent-encoding, and an error where there is no URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin

from workers._js import JsProxy, js_text, revivers

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/?#\\]*))?([^?#]*)(\?[^#]*)?(#.*)?\Z", re.DOTALL)
_PLAIN = re.compile(
    r"https?://[a-z0-9.-]+(?::(?!443(?:/|\Z)|80(?:/|\Z))[1-9][0-9]{1,3})?/[A-Za-z0-9/_~!$&'()*+,;=:@.%-]*(?:\?[A-Za-z0-9/_~!$&()*+,;=:@.%?-]+)?\Z"
)
_BAD_HOST = re.compile(r"[\0-\x20#%/:<>?@\[\\\]^|\x7f]")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._|[]^"
_QUERY_SAFE = "/%:@!$&()*+,;=~-._?|[]^`{}\\"
_FRAGMENT_SAFE = _QUERY_SAFE + "'#"


class URL(JsProxy):
    """``URL.new(text, base)``. Raises ``TypeError`` with JavaScript's text for what is no URL."""

    def __init__(self, url: Any, base: Any = None) -> None:
        text = js_text(str(url) if isinstance(url, URL) else url).strip("\0 \t\r\n\f").translate(_DROPPED)
        if base is not None and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
            text = urljoin(URL(base).href, text)
        found = _SPLIT.match(text)
        if found is None:
            raise TypeError(f"Invalid URL: {text}")
        scheme, authority, path, query, fragment = found.groups()
        self._scheme = scheme.lower()
        self.username = self.password = ""
        self.hostname, self._port = "", ""
        if self._scheme in _PORTS:
            self._set_special(text, authority, path)
        else:
            self.hostname, self._path = authority or "", path
            self._opaque = authority is None
        self._query = quote(query or "", safe=_QUERY_SAFE)
        self._fragment = quote(fragment or "", safe=_FRAGMENT_SAFE)
        if self._query == "?":
            self._query = ""
        if self._fragment == "#":
            self._fragment = ""

    def _set_special(self, text: str, authority: str | None, path: str) -> None:
        self._opaque = False
        path = path.replace("\\", "/")
        if authority is None or not authority:  # "http:host/path" and "http:///host/path" mean the same
            authority, _, path = path.lstrip("/").partition("/")
            path = "/" + path
        credentials, at, host = authority.rpartition("@")
        if at:
            user, _, password = credentials.partition(":")
            self.username, self.password = quote(user, safe="%!$&'()*+,"), quote(password, safe="%!$&'()*+,")
        self.hostname, self._port = _host_and_port(host, _PORTS[self._scheme], text)
        self._path = quote(_without_dots(path or "/"), safe=_PATH_SAFE)

    @property
    def protocol(self) -> str:
        return self._scheme + ":"

    @property
    def port(self) -> str:
        return self._port

    @property
    def host(self) -> str:
        return f"{self.hostname}:{self._port}" if self._port else self.hostname

    @property
    def origin(self) -> str:
        return f"{self._scheme}://{self.host}" if self._scheme in _PORTS else "null"

    @property
    def pathname(self) -> str:
        return self._path

    @pathname.setter
    def pathname(self, path: str) -> None:
        path = path if path.startswith("/") else "/" + path
        self._path = quote(_without_dots(path), safe=_PATH_SAFE).replace("?", "%3F")

    @property
    def search(self) -> str:
        return self._query

    @search.setter
    def search(self, query: str) -> None:
        bare = query.removeprefix("?")
        self._query = "?" + quote(bare, safe=_QUERY_SAFE) if bare else ""

    @property
    def hash(self) -> str:
        return self._fragment

    @hash.setter
    def hash(self, fragment: str) -> None:
        bare = fragment.removeprefix("#")
        self._fragment = "#" + quote(bare, safe=_FRAGMENT_SAFE) if bare else ""

    @property
    def searchParams(self) -> URLSearchParams:
        params = URLSearchParams(self._query)
        params._owner = self
        return params

    @property
    def href(self) -> str:
        credentials = ""
        if self.username or self.password:
            credentials = self.username + (f":{self.password}" if self.password else "") + "@"
        slashes = "" if self._opaque else "//"
        return f"{self._scheme}:{slashes}{credentials}{self.host}{self._path}{self._query}{self._fragment}"

    def toString(self) -> str:
        return self.href

    toJSON = toString

    @staticmethod
    def canParse(url: Any, base: Any = None) -> bool:
        try:
            URL(url, base)
        except TypeError:
            return False
        return True

    @staticmethod
    def parse(url: Any, base: Any = None) -> URL | None:
        return URL(url, base) if URL.canParse(url, base) else None

    def __str__(self) -> str:
        return self.href

    def __repr__(self) -> str:
        return self.href


_DROPPED = {ord("\t"): None, ord("\r"): None, ord("\n"): None}


def _host_and_port(authority: str, default_port: int, text: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise TypeError(f"Invalid URL: {text}")
    if not host.startswith("["):
        host = unquote(host)
        try:
            host = host.encode("ascii").decode() if host.isascii() else host.encode("idna").decode("ascii")
        except UnicodeError:
            raise TypeError(f"Invalid URL: {text}") from None
        if not host or _BAD_HOST.search(host):
            raise TypeError(f"Invalid URL: {text}")
    elif not re.match(r"\[[0-9A-Fa-f:.]+\]\Z", host):
        raise TypeError(f"Invalid URL: {text}")
    return host.lower(), "" if not port or int(port) == default_port else str(int(port))


def _without_dots(path: str) -> str:
    if "." not in path and "%2" not in path:
        return path
    out: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        plain = segment.replace("%2e", ".").replace("%2E", ".")
        last = index == len(segments) - 1
        if plain == "..":
            if out:
                out.pop()
            if last:
                out.append("")
        elif plain == ".":
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/" + "/".join(out)


def normalised(url: Any) -> str:
    """The URL as the platform writes it. Raises ``TypeError`` for what is none."""
    if type(url) is str and _PLAIN.match(url) and "/." not in url and "%2" not in url:
        return url
    return URL(url).href


class URLSearchParams(JsProxy):
    """Ordered pairs of a query. From text, a dict, pairs, or another one."""

    def __init__(self, init: Any = "") -> None:
        self._owner: URL | None = None
        if isinstance(init, str):
            self._pairs = parse_qsl(init.removeprefix("?"), keep_blank_values=True, errors="replace")
        else:
            pairs = init.items() if isinstance(init, dict) else init
            self._pairs = [(js_text(name), js_text(value)) for name, value in pairs]

    def _changed(self) -> None:
        if self._owner is not None:
            self._owner._query = f"?{self}" if self._pairs else ""

    def get(self, name: str) -> str | None:
        return next((value for key, value in self._pairs if key == name), None)

    def getAll(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def has(self, name: str, value: Any = None) -> bool:
        return any(key == name and (value is None or each == js_text(value)) for key, each in self._pairs)

    def append(self, name: str, value: Any) -> None:
        self._pairs.append((name, js_text(value)))
        self._changed()

    def set(self, name: str, value: Any) -> None:
        at = next((index for index, pair in enumerate(self._pairs) if pair[0] == name), len(self._pairs))
        rest = [pair for pair in self._pairs[at:] if pair[0] != name]
        self._pairs[at:] = [(name, js_text(value)), *rest]
        self._changed()

    def delete(self, name: str) -> None:
        self._pairs = [pair for pair in self._pairs if pair[0] != name]
        self._changed()

    def sort(self) -> None:
        self._pairs.sort(key=lambda pair: pair[0])
        self._changed()

    def entries(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._pairs))

    def keys(self) -> Iterator[str]:
        return iter([name for name, _ in self._pairs])

    def values(self) -> Iterator[str]:
        return iter([value for _, value in self._pairs])

    def forEach(self, callback: Callable[..., Any]) -> None:
        for name, value in list(self._pairs):
            callback(value, name, self)

    @property
    def size(self) -> int:
        return len(self._pairs)

    def toString(self) -> str:
        return urlencode(self._pairs, errors="replace")

    __str__ = toString
    __iter__ = entries

    def to_py(self, **_options: Any) -> dict[str, str]:
        return dict(self._pairs)

    def __rpc_value__(self) -> tuple[str, Any]:
        return "URLSearchParams", [list(pair) for pair in self._pairs]


revivers["URLSearchParams"] = URLSearchParams
