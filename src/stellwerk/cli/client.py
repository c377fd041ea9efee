"""The control plane as the commands see it: a call returns the envelope's result, or raises a ``CommandError``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from stellwerk.cli.exits import CommandError, Exit
from stellwerk.cli.place import Place

ACCOUNT = "local"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
UPLOAD_TIMEOUT_S = 900.0  # the answer to an upload comes when its dependencies are installed


class Client:
    """One control plane. A context manager; closes its connections at the end."""

    def __init__(self, place: Place) -> None:
        self._url = place.url
        self._headers = {"Authorization": f"Bearer {place.token}", "User-Agent": "stellwerk-cli"}
        self._http = _pool(place.url)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.clear()

    def get(self, *path: str, params: Mapping[str, str | int] | None = None) -> Any:
        return self._call("GET", path, fields=dict(params or {}))["result"]

    def page(self, *path: str, params: Mapping[str, str | int] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """A page of a list and its ``result_info``."""
        body = self._call("GET", path, fields=dict(params or {}))
        return body["result"], body.get("result_info") or {}

    def pages(self, *path: str, key: str = "") -> list[Any]:
        """A whole list, page after page. ``key`` is where the result keeps its items, when it is an object."""
        items: list[Any] = []
        number = 1
        while True:
            body = self._call("GET", path, fields={"page": number, "per_page": 100})
            part = body["result"][key] if key else body["result"]
            items += part
            if not part or len(items) >= (body.get("result_info") or {}).get("total_count", 0):
                return items
            number += 1

    def post(self, *path: str, json: Any) -> Any:
        return self._call("POST", path, json=json)["result"]

    def patch(self, *path: str, json: Any) -> Any:
        return self._call("PATCH", path, json=json)["result"]

    def upload(self, *path: str, metadata: str, files: Mapping[str, bytes]) -> Any:
        """A version's files as the multipart form that wrangler sends."""
        parts: list[tuple[str, tuple[str | None, bytes, str]]] = [
            ("metadata", (None, metadata.encode(), "application/json"))
        ]
        parts += [(name, (name, data, _content_type(name))) for name, data in files.items()]
        return self._call("PUT", path, read_timeout_s=UPLOAD_TIMEOUT_S, fields=parts)["result"]

    def _call(
        self, method: str, path: tuple[str, ...], *, read_timeout_s: float = READ_TIMEOUT_S, **arguments: Any
    ) -> dict[str, Any]:
        address = "/".join(("/client/v4/accounts", ACCOUNT, *(quote(part, safe="") for part in path)))
        try:
            response = self._http.request(
                method, self._url + address, headers=self._headers, redirect=False, retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s), **arguments,
            )  # fmt: skip
        except urllib3.exceptions.TimeoutError as error:
            raise self._unreachable(f"The node at {self._url} does not answer in time.") from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(f"The node at {self._url} cannot be reached: {error}.") from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or "success" not in body:
            raise self._unreachable(f"What answers at {self._url} is no control plane (HTTP {response.status}).")
        if not body["success"]:
            raise _translate(response.status, body)
        return body

    def _unreachable(self, message: str) -> CommandError:
        return CommandError(
            message,
            cure="Is it running? Start it with `stellwerk dev`, or look at `stellwerk doctor`.",
            exit_code=Exit.UNREACHABLE,
            code="cli.unreachable",
        )


def _translate(status: int, body: dict[str, Any]) -> CommandError:
    """The first error of an envelope. Its place in a configuration file goes in front, as editors like it."""
    errors = body.get("errors") or [{}]
    first = errors[0]
    detail = first.get("stellwerk") or {}
    message = detail.get("message") or first.get("message") or f"HTTP {status}"
    if detail.get("file"):
        line = f":{detail['line']}" if detail.get("line") else ""
        key = f"{detail['key']}: " if detail.get("key") else ""
        message = f"{detail['file']}{line}: {key}{message}"
    exits = {401: Exit.REFUSED, 403: Exit.REFUSED, 404: Exit.NOT_FOUND, 409: Exit.REFUSED}
    return CommandError(
        message,
        cure=detail.get("cure") or "",
        exit_code=exits.get(status, Exit.FAILED),
        code=detail.get("code") or str(first.get("code") or "cli.failed"),
    )


def _content_type(name: str) -> str:
    if name.startswith("python_modules/"):
        return "application/octet-stream"
    return "text/x-python" if name.endswith(".py") else "application/octet-stream"


def _pool(url: str) -> urllib3.PoolManager:
    """By way of the environment's proxy, which cannot reach this machine's own loopback, though."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or _is_loopback(host) or proxy_bypass(host):
        return urllib3.PoolManager()
    address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    login = f"{unquote(address.username)}:{unquote(address.password or '')}" if address.username else None
    headers = urllib3.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(address.geturl(), proxy_headers=headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
