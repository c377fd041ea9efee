"""Reads the runs of the workflow from the node's control plane, which speaks Cloudflare's API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

AT_ONCE = 8
PAGE = 100


class Journal:
    """The control plane of one node. Raises ``httpx.HTTPError`` while that is down."""

    def __init__(self, url: str, state: Path) -> None:
        self.state = state
        self._workflow = "/client/v4/accounts/local/workflows/orders"
        self._client = httpx.AsyncClient(base_url=url, timeout=5.0, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def is_ready(self) -> bool:
        try:
            return (await self._client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def statuses(self) -> dict[str, str]:
        """Every run and its status."""
        found: dict[str, str] = {}
        cursor = ""
        while True:
            page = await self._get("/instances", per_page=PAGE, **({"cursor": cursor} if cursor else {}))
            found |= {run["id"]: run["status"] for run in page["result"]}
            cursor = (page.get("result_info") or {}).get("cursor") or ""
            if not cursor or not page["result"]:
                return found

    async def runs(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Each run as the control plane describes it, with every step and attempt."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(run_id: str) -> tuple[str, dict[str, Any]]:
            async with slots:
                return run_id, (await self._get(f"/instances/{run_id}"))["result"]

        return dict(await asyncio.gather(*map(one, ids)))

    async def _get(self, path: str, **query: Any) -> dict[str, Any]:
        token = (self.state / "token").read_text().strip()
        response = await self._client.get(
            self._workflow + path, params=query, headers={"authorization": f"Bearer {token}"}
        )
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer
