"""``pyodide.http``: fetch under Pyodide's names."""

from __future__ import annotations

from typing import Any

from workers.fetch import fetch
from workers.response import HttpStatusError, Response
from workers.response import PyodideFetchResponse as FetchResponse

__all__ = ["FetchResponse", "HttpStatusError", "pyfetch"]


async def pyfetch(url: str, /, **options: Any) -> Response:
    return await fetch(url, **options)
