"""What everything that runs in the node agrees on."""

from __future__ import annotations

from typing import Protocol


class Service(Protocol):
    """``start`` returns when it works; ``stop`` may be called twice, and before ``start``."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
