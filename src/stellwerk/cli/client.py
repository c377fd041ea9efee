"""The control plane as the commands see it: a call returns the envelope's result, or raises a ``CommandError``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

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
        self._http = httpx.Client(
            base_url=place.url,
            headers={"Authorization": f"Bearer {place.token}", "User-Agent": "stellwerk-cli"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=not _is_loopback(place.url),  # a proxy of the environment cannot reach this machine's loopback
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, *path: str, params: Mapping[str, str | int] | None = None) -> Any:
        return self._call("GET", path, params=dict(params or {}))["result"]

    def page(self, *path: str, params: Mapping[str, str | int] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """A page of a list and its ``result_info``."""
        body = self._call("GET", path, params=dict(params or {}))
        return body["result"], body.get("result_info") or {}

    def pages(self, *path: str, key: str = "") -> list[Any]:
        """A whole list, page after page. ``key`` is where the result keeps its items, when it is an object."""
        items: list[Any] = []
        number = 1
        while True:
            body = self._call("GET", path, params={"page": number, "per_page": 100})
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
        timeout = httpx.Timeout(UPLOAD_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        return self._call("PUT", path, files=parts, timeout=timeout)["result"]

    def _call(self, method: str, path: tuple[str, ...], **arguments: Any) -> dict[str, Any]:
        address = "/".join(("/client/v4/accounts", ACCOUNT, *(quote(part, safe="") for part in path)))
        try:
            response = self._http.request(method, address, **arguments)
        except httpx.TimeoutException as error:
            raise self._unreachable(f"The node at {self._url} does not answer in time.") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(f"The node at {self._url} cannot be reached: {error}.") from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or "success" not in body:
            raise self._unreachable(f"What answers at {self._url} is no control plane (HTTP {response.status_code}).")
        if not body["success"]:
            raise _translate(response.status_code, body)
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


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
