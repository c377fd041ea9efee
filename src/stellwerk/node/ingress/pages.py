"""Answers that the platform gives in a Worker's place: a short page for browsers, JSON for programs."""

from __future__ import annotations

import html
import json
from http import HTTPStatus

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;color:#222}}
small{{color:#666}}</style></head>
<body><h1>{title}</h1><p>{message}</p>{hint}<p><small>{footer}</small></p></body></html>
"""


def phrase(status: int) -> str:
    """The standard reason phrase of a status, or nothing for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def prefers_html(accept: bytes) -> bool:
    """Whether an Accept header names HTML, and not with a lower weight than JSON. ``*/*`` alone means a program."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for item in accept.decode("latin-1").lower().split(","):
        kind, _, rest = item.partition(";")
        kind = kind.strip()
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(rest))
    return weights["text/html"] > 0 and weights["text/html"] >= weights["application/json"]


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def render(
    status: int,
    code: str,
    message: str,
    *,
    accept: bytes = b"",
    cloudflare_code: int | None = None,
    retryable: bool = False,
    request_id: str = "",
) -> tuple[bytes, bytes]:
    """Content type and body of an error answer. JSON is ``{code, message, request_id, retryable}``."""
    if not prefers_html(accept):
        fields = {"code": code, "message": message, "request_id": request_id, "retryable": retryable}
        return b"application/json", json.dumps(fields).encode()
    # As on Cloudflare's pages, the number that people search for stands in the title.
    title = f"Error {cloudflare_code}" if cloudflare_code is not None else f"{status} {phrase(status)}".strip()
    footer = " · ".join(part for part in (code, f"request {request_id}" if request_id else "", "Stellwerk") if part)
    page = _PAGE.format(
        title=html.escape(title),
        message=html.escape(message),
        hint="<p>The same request may succeed in a moment.</p>" if retryable else "",
        footer=html.escape(footer),
    )
    return b"text/html; charset=utf-8", page.encode()
