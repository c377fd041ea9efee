"""The watcher: loads the workspace again whenever something in it changes.

The roots themselves are watched without what is below, their visible folders with it. So the state folder in
``.stellwerk``, which changes with every commit of the store, wakes nobody. When a folder is added or removed the
watches are set anew.

A loaded workspace is reported only when it differs from the last one. What cannot be loaded stands in its
``problems``; whoever is told keeps the old version of that Worker serving.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from watchfiles import awatch

from stellwerk.core import limits
from stellwerk.core.errors import ConfigError
from stellwerk.node.workspace.files import is_left_out
from stellwerk.node.workspace.loader import Workspace, load_workspace

OnChange = Callable[[Workspace], Awaitable[None]]


class EventLog(Protocol):
    """What of the node's log this service needs."""

    def error(self, event: str, **fields: Any) -> None: ...


class Watcher:
    """A service: ``start`` watches, ``stop`` ends it; stopping twice or before starting is harmless.

    ``on_change`` is awaited with the workspace as it is now, one call at a time; its exceptions are logged, and the
    watching goes on. ``baseline`` is the workspace as the caller already has it: a change between its loading and the
    start is reported too. Without it, what is found at the start is the baseline.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        on_change: OnChange,
        *,
        environment: str | None = None,
        baseline: Workspace | None = None,
        log: EventLog | None = None,
    ) -> None:
        self._folders = list(folders)  # as given: messages show them so
        self._roots = [folder.resolve() for folder in folders]
        self._on_change = on_change
        self._environment = environment
        self._last = baseline
        self._log = log
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.started = asyncio.Event()

    async def start(self) -> None:
        """Returns once changes are seen. Raises ``ConfigError`` for a folder that is not there, ``OSError`` when one
        cannot be watched."""
        if self._task is not None:
            return
        for folder in self._folders:
            if not await asyncio.to_thread(folder.is_dir):
                raise ConfigError("there is no such folder.", file=str(folder))
        self._task = asyncio.create_task(self._run(), name="workspace watcher")
        waiting = asyncio.create_task(self.started.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            task, self._task = self._task, None
            await task

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.started.clear()

    async def _run(self) -> None:
        try:
            while True:
                await self._watch()
        except Exception as error:
            self._error("workspace.watch_ended", error)
            raise

    async def _watch(self) -> None:
        """Watches until there are other folders to watch."""
        watched = await asyncio.to_thread(self._visible_folders)
        async with _watching(self._roots, False, self._dirty), _watching(watched, True, self._dirty):
            self._dirty.set()  # whatever changed before the watches stood
            while await asyncio.to_thread(self._visible_folders) == watched:
                await self._dirty.wait()
                self._dirty.clear()
                await self._reload()
                self.started.set()

    async def _reload(self) -> None:
        workspace = await asyncio.to_thread(load_workspace, self._folders, self._environment)
        last, self._last = self._last, workspace
        if last is None or workspace.same_as(last):
            return
        try:
            await self._on_change(workspace)
        except Exception as error:
            self._error("workspace.change_failed", error)

    def _error(self, event: str, error: Exception) -> None:
        if self._log is not None:
            self._log.error(event, text=f"{type(error).__name__}: {error}")

    def _visible_folders(self) -> list[Path]:
        folders = {
            entry
            for root in self._roots
            if root.is_dir()
            for entry in root.iterdir()
            if not is_left_out(entry.name) and entry.is_dir()
        }
        return sorted(folders)


@contextlib.asynccontextmanager
async def _watching(paths: Sequence[Path], recursive: bool, dirty: asyncio.Event) -> AsyncIterator[None]:
    """Sets ``dirty`` whenever something that can matter changes below ``paths``."""
    if not paths:
        yield
        return
    stop = asyncio.Event()  # ends the thread that awatch waits in

    async def pump() -> None:
        async for _ in awatch(
            *paths,
            watch_filter=lambda _, path: _matters(path, paths),
            debounce=limits.WATCH_DEBOUNCE_MS,
            step=limits.WATCH_DEBOUNCE_MS // 4,
            stop_event=stop,
            recursive=recursive,
            ignore_permission_denied=True,  # also passes over a folder that was removed just now
        ):
            dirty.set()

    task = asyncio.create_task(pump())
    # One turn of the loop brings the generator to its first await, and by then the watches are set.
    await asyncio.sleep(0)
    try:
        if task.done():
            await task  # it could not be set
        yield
    finally:
        stop.set()
        await task


def _matters(path: str, roots: Sequence[Path]) -> bool:
    """Whether a change of ``path`` can change a Worker: not in a folder that no bundle has."""
    changed = Path(path)
    for root in roots:
        if changed.is_relative_to(root):
            parts = changed.relative_to(root).parts
            return not any(is_left_out(part) and not part.startswith(".dev.vars") for part in parts)
    return True
