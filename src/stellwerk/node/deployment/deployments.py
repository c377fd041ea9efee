"""Deployments: what is uploaded, what serves, and what must stay loadable.

The store has the truth: versions with their manifests, and the deployment of each Worker that is in force. This
service keeps what serves in memory, since every request and every new run asks for it, and changes memory only after
the store has the change. Uploading and loading is in ``versions.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from stellwerk.core.deployment.bindings import BindingRow, Exports
from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import Manifest, WorkflowBinding
from stellwerk.core.deployment.routing import RouteTable
from stellwerk.core.errors import NotFoundError, StellwerkError, WorkerNotFoundError
from stellwerk.core.ids import LOCAL_ACCOUNT, WorkerName
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.interpreter import Interpreter
from stellwerk.node.deployment.serving import Serving
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.deployment.versions import DeploymentStore, Versions
from stellwerk.store.base import DeploymentRow

OnChange = Callable[[str, LoadedVersion | None, LoadedVersion], None]
OnRemove = Callable[[str, LoadedVersion], None]


class EventLog(Protocol):
    """What of the node's log this service needs."""

    def error(self, event: str, **fields: Any) -> None: ...


class _WhatServes:
    """Questions that memory answers. The view is replaced as a whole by a change."""

    def __init__(self) -> None:
        self._serving = Serving()
        self._deployed_from: dict[str, str] = {}

    def serving(self, worker: str) -> LoadedVersion | None:
        """The version that serves ``worker`` now."""
        return self._serving.versions.get(worker)

    def deployed_from(self, worker: str) -> str | None:
        """The ``source`` of the deployment in force: dev, api, wrangler."""
        return self._deployed_from.get(worker)

    def route(self, host: str, path: str) -> str | None:
        """The Worker that answers ``host`` (as in the Host header) and ``path`` (without a query)."""
        return self._serving.routes.match(host, path)

    def routes(self) -> RouteTable:
        """The compiled routes, with their ``rows`` and the ``default`` Worker. A deployment makes a new table."""
        return self._serving.routes

    def workflow(self, name: str) -> tuple[LoadedVersion, WorkflowBinding]:
        """The serving version that defines the workflow. Raises ``WorkflowNotFoundError``, naming the nearest."""
        return self._serving.workflow(name)

    def workflows(self) -> list[tuple[LoadedVersion, WorkflowBinding]]:
        """Every workflow that a serving version defines, by name."""
        return self._serving.workflows()

    def workers(self) -> list[LoadedVersion]:
        """What serves, ordered by the Workers' names."""
        return list(self._serving.versions.values())

    def bindings(self, exports: Mapping[WorkerName, Exports] | None = None) -> tuple[BindingRow, ...]:
        """One row per binding of what serves, connected or with the reason why not."""
        return self._serving.bindings(exports)

    def freeze(self, worker: str) -> dict[str, str]:
        """The run manifest of a run created now: Worker -> version, everything reachable through bindings.

        Raises ``WorkerNotFoundError`` when ``worker``, or one that it is bound to, is not deployed.
        """
        return self._serving.freeze(worker)


class Deployments(_WhatServes):
    """A service: ``start`` loads everything that serves, ``stop`` ends what is under way. Both may be repeated.

    ``on_change`` is called with (worker, old version or None, new version) after a deployment is on disk and in
    memory, ``on_remove`` with (worker, old version); an exception of a listener is logged and stops nobody else.
    """

    def __init__(
        self,
        store: DeploymentStore,
        state: Path,
        clock: Clock,
        account_id: str = LOCAL_ACCOUNT,
        *,
        interpreter: Interpreter | None = None,
        log: EventLog | None = None,
    ) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self._account_id = account_id
        self._log = log
        self._versions = Versions(store, state, clock, account_id, interpreter)
        self._changing = asyncio.Lock()  # one change at a time: each is checked against the state that it changes
        self._under_way: set[asyncio.Task[Any]] = set()
        self.on_change: list[OnChange] = []
        self.on_remove: list[OnRemove] = []
        self.problems: dict[str, StellwerkError] = {}  # Workers that could not be loaded at the start, and why
        self.started = asyncio.Event()

    # -- lifecycle ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Loads what serves. A Worker that cannot be loaded stands in ``problems`` and is the only one missing."""
        if self.started.is_set():
            return
        await self._versions.start()
        rows = [row for row in await self._store.current_deployments() if row.account_id == self._account_id]
        found = await asyncio.gather(*(self._load_deployed(row) for row in rows))
        self._deployed_from = {row.worker: row.source for row in rows}
        self._serve([version for version in found if version is not None])
        self.started.set()

    async def stop(self) -> None:
        """Waits for changes that are being recorded; ends installations."""
        await self._versions.stop()
        if self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)
        self.started.clear()

    async def _load_deployed(self, row: DeploymentRow) -> LoadedVersion | None:
        version_id, _ = max(row.versions, key=lambda version: version[1])
        try:
            return await self.load(version_id)
        except StellwerkError as error:
            self._problem(row.worker, error)
            return None

    def _serve(self, versions: list[LoadedVersion]) -> None:
        """All of them; or, if an older release let two serve that no longer can, all but the later one."""
        try:
            self._serving = Serving(versions)
        except StellwerkError:
            for version in versions:
                try:
                    self._serving = self._serving.with_version(version)
                except StellwerkError as error:
                    self._problem(version.worker, error)

    def _problem(self, worker: str, error: StellwerkError) -> None:
        self.problems[worker] = error
        if self._log is not None:
            self._log.error("deployment.not_loaded", worker=worker, code=error.code, text=str(error))

    # -- changes ------------------------------------------------------------------------------------------------------

    async def upload(
        self, manifest: Manifest, files: Mapping[str, bytes], *, source: str, message: str = ""
    ) -> LoadedVersion:
        """Makes a version of ``files`` (relative path -> content); the same upload again is the same version.

        Nothing is served yet. Returns once it is on disk and its dependencies are installed. Raises ``BundleError``
        and ``DependencyError``.
        """
        return await self._versions.upload(manifest, files, source=source, message=message)

    async def deploy(self, worker: str, version_id: str, *, source: str, message: str = "") -> None:
        """Makes the version serve all of its Worker's traffic; returns once that is on disk and in force.

        Raises ``NotFoundError`` (no such version of this Worker), ``ConflictError`` (another Worker defines the same
        workflow) and ``ConfigError`` (another Worker claims the same route). A caller who gives up waiting does not
        undo it.
        """
        await self._finish(self._deploy(worker, version_id, source, message))

    async def _deploy(self, worker: str, version_id: str, source: str, message: str) -> None:
        async with self._changing:
            new = await self.load(version_id)
            if new.worker != worker:
                raise NotFoundError(
                    f'"{worker}" has no version {version_id}: it is one of "{new.worker}".',
                    cure=f'List the versions of "{worker}" and name one of them.',
                )
            after = self._serving.with_version(new)
            await self._store.add_deployment(
                DeploymentRow(
                    account_id=self._account_id,
                    worker=worker,
                    deployment_id=self._clock.new_uuid(),
                    created_at=self._clock.now_ms(),
                    versions=((version_id, 100.0),),
                    source=source,
                    message=message,
                )
            )
            old, self._serving = self._serving.versions.get(worker), after
            self._deployed_from[worker] = source
            self.problems.pop(worker, None)
            if old is None or old.version_id != new.version_id:
                if old is not None:
                    self._versions.retire(old)
                for listener in list(self.on_change):
                    self._tell(listener, worker, old, new)

    async def remove(self, worker: str) -> None:
        """Takes the Worker out of service. Its versions stay loadable while runs need them.

        Raises ``WorkerNotFoundError``.
        """
        await self._finish(self._remove(worker))

    async def _remove(self, worker: str) -> None:
        async with self._changing:
            removed = await self._store.remove_worker(self._account_id, worker)
            old = self._serving.versions.get(worker)
            self.problems.pop(worker, None)
            self._deployed_from.pop(worker, None)
            if old is None:
                if removed:
                    return
                cure = did_you_mean(worker, self._serving.versions) or "Nothing had to be removed."
                raise WorkerNotFoundError(f'There is no Worker "{worker}".', cure=cure)
            self._serving = self._serving.without(worker)
            self._versions.retire(old)
            for listener in list(self.on_remove):
                self._tell(listener, worker, old)

    async def _finish(self, change: Coroutine[Any, Any, None]) -> None:
        """Runs ``change`` to its end also when the caller is cancelled: memory and store must not part."""
        task = asyncio.create_task(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    def _tell(self, listener: Callable[..., None], *arguments: Any) -> None:
        try:
            listener(*arguments)
        except Exception as error:
            if self._log is not None:
                self._log.error("deployment.listener_failed", worker=arguments[0], text=repr(error))

    # -- versions -----------------------------------------------------------------------------------------------------

    def loaded(self, version_id: str) -> LoadedVersion | None:
        """The version, if it is in memory."""
        return self._versions.loaded(version_id)

    async def load(self, version_id: str) -> LoadedVersion:
        """The version, from the store if need be; its dependencies are installed again if they are gone.

        Raises ``NotFoundError`` when there is no such version, or its files are no longer kept.
        """
        return await self._versions.load(version_id)

    async def collect(self) -> list[str]:
        """Removes bundles and installed dependencies that nothing needs; returns their names.

        Needed are: what serves, what an unfinished run froze, the newest ``VERSIONS_KEPT`` versions of a Worker that
        serves (for a rollback), and whatever was uploaded, loaded or replaced within the grace time.
        """
        async with self._changing:  # a deployment must not choose a version while its files are being judged
            return await self._versions.collect()
