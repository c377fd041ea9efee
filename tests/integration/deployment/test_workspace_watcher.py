"""The watcher on real folders: what wakes it, what does not, and that a broken file ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core.errors import ConfigError
from stellwerk.node.workspace.loader import Workspace, load_workspace
from stellwerk.node.workspace.watcher import Watcher

CONFIG = """{"name": "%s", "main": "entry.py", "compatibility_date": "2026-01-01",
"compatibility_flags": ["python_workers"]}"""


def a_worker(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "entry.py").write_text("x = 1\n")
    (folder / "wrangler.jsonc").write_text(CONFIG % name)
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Reports:
    """What the watcher said, one workspace after the other."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[Workspace] = asyncio.Queue()
        self.failing = False
        self.errors: list[str] = []

    async def __call__(self, workspace: Workspace) -> None:
        self.seen.put_nowait(workspace)
        if self.failing:
            raise RuntimeError("a listener's own fault")

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append(f"{event} {fields['text']}")

    async def next(self) -> Workspace:
        async with asyncio.timeout(20):
            return await self.seen.get()


@contextlib.asynccontextmanager
async def watching(root: Path, *, baseline: Workspace | None = None) -> AsyncIterator[Reports]:
    reports = Reports()
    watcher = Watcher([root], reports, baseline=baseline, log=reports)
    await watcher.start()
    try:
        yield reports
    finally:
        await watcher.stop()
        await watcher.stop()


def test_an_edited_file_is_reported_with_the_worker_as_it_is_now(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge")

    async def run() -> None:
        async with watching(tmp_path) as reports:
            write(folder / "entry.py", "x = 2\n")
            [source] = (await reports.next()).workers
            assert source.files["entry.py"] == b"x = 2\n"
            write(folder / ".dev.vars", "KEY=value\n")
            [source] = (await reports.next()).workers
            assert source.manifest.secrets == {"KEY": "value"}

    asyncio.run(run())


def test_a_worker_that_comes_or_goes_is_reported_and_then_watched(tmp_path: Path) -> None:
    a_worker(tmp_path / "one", "charge")

    async def run() -> None:
        async with watching(tmp_path) as reports:
            other = a_worker(tmp_path / "two", "enrich")
            while len((await reports.next()).workers) < 2:
                pass
            write(other / "entry.py", "x = 3\n")
            found = await reports.next()
            assert found.workers[1].files["entry.py"] == b"x = 3\n"
            (other / "wrangler.jsonc").unlink()
            assert len((await reports.next()).workers) == 1

    asyncio.run(run())


def test_a_broken_configuration_is_reported_and_watching_goes_on(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge")

    async def run() -> None:
        async with watching(tmp_path) as reports:
            write(folder / "wrangler.jsonc", "{")
            found = await reports.next()
            assert found.workers == () and "wrangler.jsonc" in str(found.problems[0])
            write(folder / "wrangler.jsonc", CONFIG % "charge")
            while (await reports.next()).problems:
                pass

    asyncio.run(run())


def test_the_state_folder_caches_and_equal_content_wake_nobody(tmp_path: Path) -> None:
    """Proven by order: after all that, a real change is the first thing that is heard."""
    folder = a_worker(tmp_path / "one", "charge")

    async def run() -> None:
        async with watching(tmp_path) as reports:
            write(tmp_path / ".stellwerk/state/stellwerk.db", "rows")
            write(folder / "__pycache__/entry.pyc", "code")
            write(folder / "entry.py", "x = 1\n")
            write(tmp_path / "notes.txt", "not below a Worker")
            write(folder / "entry.py", "x = 2\n")
            assert (await reports.next()).workers[0].files["entry.py"] == b"x = 2\n"
            assert reports.seen.empty()

    asyncio.run(run())


def test_a_change_between_loading_and_starting_is_not_lost(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge")
    baseline = load_workspace([tmp_path])
    write(folder / "entry.py", "x = 2\n")

    async def run() -> None:
        async with watching(tmp_path, baseline=baseline) as reports:
            assert (await reports.next()).workers[0].files["entry.py"] == b"x = 2\n"
        async with watching(tmp_path, baseline=load_workspace([tmp_path])) as reports:
            assert reports.seen.empty()

    asyncio.run(run())


def test_a_listener_that_fails_is_logged_and_told_again(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge")

    async def run() -> None:
        async with watching(tmp_path) as reports:
            reports.failing = True
            write(folder / "entry.py", "x = 2\n")
            await reports.next()
            write(folder / "entry.py", "x = 3\n")
            await reports.next()
            assert reports.errors[0] == "workspace.change_failed RuntimeError: a listener's own fault"

    asyncio.run(run())


def test_a_folder_that_is_not_there_fails_at_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        watcher = Watcher([tmp_path / "none"], Reports())
        await watcher.stop()
        with pytest.raises(ConfigError, match="no such folder"):
            await watcher.start()
        await watcher.stop()

    asyncio.run(run())
