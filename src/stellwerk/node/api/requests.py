"""Reading a request: bodies with a limit, JSON whatever the content type, pages and cursors.

wrangler sends JSON as ``text/plain`` more often than not, so the content type is not consulted. Clients that count
pages stop at the first empty one and look at nothing else, so a list that ignored ``page`` would never end for them.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from stellwerk.core import limits
from stellwerk.core.errors import InvalidRequestError

T = TypeVar("T")


class BodyTooLargeError(InvalidRequestError):
    """The request's body is over its limit."""

    code = "request.too_large"
    http_status = 413


async def read_body(request: Request, *, max_bytes: int = limits.CONTROL_JSON_BYTES_MAX) -> bytes:
    """The whole body. Raises ``BodyTooLargeError`` as soon as it is known to be too large."""
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    while True:  # and not request.stream(): two generators on the way of each call
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The body is larger than {max_bytes} bytes.",
        cure="Send less in one call, or put the data where a step reads it.",
    )


async def read_json(request: Request, *, default: Any = None) -> Any:
    """The body as JSON; ``default`` when there is none. Raises ``InvalidRequestError`` with the place of the fault."""
    body = await read_body(request)
    if not body.strip():
        return default
    try:
        return _parse(body.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body is not JSON: {error}.", cure="Send a JSON document in UTF-8.") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_parse = json.JSONDecoder(parse_constant=_refuse_constant).decode
"""``json.loads`` with options makes a decoder for each call."""


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object."""
    value = await read_json(request, default={})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"The body is {_kind(value)}, expected a JSON object.")
    return value


def text_field(body: dict[str, Any], name: str) -> str | None:
    """An optional string of a body. Raises ``InvalidRequestError`` when it is something else."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequestError(f'"{name}" is {_kind(value)}, expected a string.')


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


@dataclass(slots=True, frozen=True, kw_only=True)
class Page:
    """Which part of a list is wanted. Exactly one of ``number`` (from 1) and ``cursor`` leads."""

    number: int
    size: int
    cursor: str

    @property
    def skip(self) -> int:
        return (self.number - 1) * self.size


def parse_page(request: Request) -> Page:
    """``page``, ``per_page`` and ``cursor`` of the query. Raises ``InvalidRequestError`` for what is not a number."""
    number = max(1, _integer(request, "page", 1))
    size = min(max(1, _integer(request, "per_page", limits.PAGE_SIZE)), limits.PAGE_SIZE_MAX)
    return Page(number=number, size=size, cursor=request.query_params.get("cursor", ""))


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequestError(f'"{name}" is {text[:20]!r}, expected a whole number.')
    return int(text)


def paginate(items: Sequence[T], page: Page) -> tuple[list[T], dict[str, Any]]:
    """One page of a list that is in memory, and its ``result_info``. Past the end: an empty page, never the first."""
    part = list(items[page.skip : page.skip + page.size])
    return part, page_info(page, count=len(part), total=len(items))


def page_info(page: Page, *, count: int, total: int) -> dict[str, Any]:
    return {
        "page": page.number,
        "per_page": page.size,
        "count": count,
        "total_count": total,
        "total_pages": -(-total // page.size),
    }
