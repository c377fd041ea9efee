"""What everything that runs in the node agrees on."""

from __future__ import annotations

from typing import Protocol


class Stoppable(Protocol):
    """What has work under way. ``stop`` ends it; stopping twice is harmless."""

    async def stop(self) -> None: ...


class Service(Stoppable, Protocol):
    """``start`` returns when it works; ``stop`` is harmless before it."""

    async def start(self) -> None: ...
