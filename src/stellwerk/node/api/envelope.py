"""Cloudflare's envelope around every answer of ``/client/v4``, and how an error becomes one.

wrangler looks at ``success`` and ``errors[0].code`` and never at the HTTP status; the Python SDK raises by the
status. So both are always right. ``errors[].stellwerk`` carries what programs of ours want: the stable code, the
cause and the cure apart, who is at fault, and whether a repeat may help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from stellwerk.core.errors import ConfigError, InvalidRequestError, StellwerkError

NO_ROUTE = 7000  # Cloudflare: "No route for that URI"
NO_METHOD = 7001  # Cloudflare: "Method X not available for that URI"
INTERNAL = 10013  # Cloudflare: workers.api.error.unknown
INVALID = 10001

_FALLBACK = {400: INVALID, 401: 10000, 403: 10000, 404: NO_ROUTE, 405: NO_METHOD}
"""For errors to which Cloudflare gives no number of its own. Statuses that are not here: 10000 + the status."""


class NotBuiltError(InvalidRequestError):
    """A call of Cloudflare's API that this release does not have. 400 and not 501: clients repeat after a 5xx."""

    code = "request.not_built"


class NoRouteError(StellwerkError):
    """The control plane has nothing at that address."""

    code = "request.no_route"
    http_status = 404
    cloudflare_code = NO_ROUTE


class Json(Response):
    """JSON in UTF-8, one line."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def success(
    result: Any, *, status: int = 200, info: Mapping[str, Any] | None = None, messages: list[str] | None = None
) -> Json:
    """An envelope around ``result``; ``info`` is ``result_info`` of a list."""
    body: dict[str, Any] = {"success": True, "errors": [], "messages": messages or [], "result": result}
    if info is not None:
        body["result_info"] = dict(info)
    return Json(body, status_code=status)


def failure(error: StellwerkError) -> Json:
    """An envelope around an error, with the HTTP status of its class."""
    body = {"success": False, "errors": [render_error(error)], "messages": [], "result": None}
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    return Json(body, status_code=error.http_status, headers=headers)


def render_error(error: StellwerkError) -> dict[str, Any]:
    """One element of ``errors``. The message carries the cure too, because wrangler prints nothing else."""
    detail: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "cure": error.cure,
        "fault": error.fault.value,
        "retryable": error.retryable,
    }
    if isinstance(error, ConfigError):
        detail.update(file=error.file, line=error.line, key=error.key)
    number = error.cloudflare_code or _FALLBACK.get(error.http_status) or 10_000 + error.http_status
    if error.http_status == 500 and error.cloudflare_code is None:
        number = INTERNAL
    return {"code": number, "message": str(error), "stellwerk": detail}
