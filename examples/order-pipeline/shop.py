"""The shop: posts orders to the gateway, a few at a time, and repeats a post until it knows what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from reconcile import Answer

AT_ONCE = 12  # posts under way
PAUSE_S = 0.1  # before a post is repeated


class Shop:
    """``answered`` is called for each order as soon as its fate is known."""

    def __init__(self, url: str, token: str, *, per_second: float, answered: Callable[[Answer], None]) -> None:
        self.url, self.per_second, self.answered = url, per_second, answered
        self.repeats = 0
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"},
            timeout=5.0,
            trust_env=False,  # a proxy of this machine has no business between us and the loopback address
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def post_all(self, lines: Sequence[dict[str, Any]]) -> None:
        async with self._client, asyncio.TaskGroup() as posts:
            for line in lines:
                posts.create_task(self._post(line))
                await asyncio.sleep(1 / self.per_second)

    async def _post(self, line: dict[str, Any]) -> None:
        async with self._slots:
            while (status := await self._try(line["order"])) is None:
                # No answer, or one of 5xx: the order may have arrived or not. Posting it again is safe, since its id
                # is the id of the run: if it had arrived, the answer is 409.
                self.repeats += 1
                await asyncio.sleep(PAUSE_S)
        self.answered(Answer(order=line["order"], kind=line["kind"], status=status))

    async def _try(self, order: dict[str, Any]) -> int | None:
        try:
            response = await self._client.post(f"{self.url}/orders", json=order)
        except httpx.TransportError:
            return None
        return response.status_code if response.status_code < 500 else None
