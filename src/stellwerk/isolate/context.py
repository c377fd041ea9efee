"""``ctx``: the execution context of a handler."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from workers._host import Host


class ExecutionContext:
    """As Cloudflare's. ``props`` are the static properties of the service binding that led here."""

    __slots__ = ("_host", "props")

    def __init__(self, host: Host, props: Any) -> None:
        self._host, self.props = host, props

    def waitUntil(self, awaitable: Awaitable[Any]) -> None:  # noqa: N802 - Cloudflare's name
        """Keeps the invocation alive until ``awaitable`` settles; at most 30 s after the answer, shared by all."""
        self._host.wait_until(awaitable)

    wait_until = waitUntil

    def passThroughOnException(self) -> None:  # noqa: N802 - Cloudflare's name
        """Accepted without effect: there is no origin behind this node to pass through to."""
