"""The back ends that run the suite. A new one is a line here; none may skip a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.store.kit import NOW, Backend

from stellwerk.store.base import Store
from stellwerk.store.sqlite.store import SqliteStore


class SqliteBackend:
    """A file in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stellwerk.db"

    async def open(self, owner: str = "node-1") -> Store:
        return await SqliteStore.open(self.path, owner=owner, now_ms=NOW)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[SqliteBackend], ids=["sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    opened: Backend = request.param(tmp_path)
    return opened


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    opened = await backend.open()
    yield opened
    await opened.close()
