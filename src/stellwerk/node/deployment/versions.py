"""Versions: made by an upload, loaded when somebody needs them, collected when nobody does.

An upload writes files, then dependencies, then the version's row. So a process that dies at any point leaves at most
files that nobody names, which ``collect`` removes in time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from stellwerk.core import limits
from stellwerk.core.deployment import manifest as manifests
from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.errors import BundleError, DependencyError, NotFoundError
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.bundles import Bundles
from stellwerk.node.deployment.dependencies import Dependencies, dependency_files
from stellwerk.node.deployment.interpreter import Interpreter
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.store.base import DeploymentRoom, VersionRow


class DeploymentStore(DeploymentRoom, Protocol):
    """What deploying needs of a store."""

    async def live_versions(self) -> set[str]: ...


class Versions:
    """The versions of one account, with their files below ``state``."""

    def __init__(
        self, store: DeploymentStore, state: Path, clock: Clock, account_id: str, interpreter: Interpreter | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._account_id = account_id
        self._bundles = Bundles(state / "bundles", clock)
        self._dependencies = Dependencies(state / "dependencies", clock, interpreter)
        self._loaded: dict[str, LoadedVersion] = {}

    async def start(self) -> None:
        """Makes the folders, and sweeps what a killed process left half-written."""
        await self._bundles.start()
        await self._dependencies.start()

    async def stop(self) -> None:
        """Ends installations under way."""
        await self._dependencies.stop()

    async def upload(
        self, manifest: Manifest, files: Mapping[str, bytes], *, source: str, message: str = ""
    ) -> LoadedVersion:
        """Makes a version of ``files`` (relative path -> content); the same upload again is the same version.

        Nothing is served yet. Returns once it is on disk and its dependencies are installed. Raises ``BundleError``
        and ``DependencyError``.
        """
        if manifest.main not in files:
            names = [path for path in files if path.endswith(".py")]
            raise BundleError(
                f'The main module "{manifest.main}" of the Worker "{manifest.name}" is not among its files.',
                cure=did_you_mean(manifest.main, names),
            )
        bundle = await self._bundles.put(files)
        await self._dependencies.ensure(self._bundles.path(bundle), allow_sdist=manifest.settings.allow_sdist)
        config = manifests.encode(manifest)
        row = await self._store.add_version(
            VersionRow(
                account_id=self._account_id,
                worker=manifest.name,
                version_id=self._clock.new_uuid(),
                number=0,
                created_at=self._clock.now_ms(),
                source=source,
                bundle=bundle,
                config=config,
                config_hash=hashlib.sha256(bundle.encode() + config).hexdigest(),
                message=message,
            )
        )
        return self._loaded.get(row.version_id) or await self._load_row(row)

    def loaded(self, version_id: str) -> LoadedVersion | None:
        """The version, if it is in memory."""
        return self._loaded.get(version_id)

    async def load(self, version_id: str) -> LoadedVersion:
        """The version, from the store if need be; its dependencies are installed again if they are gone.

        Raises ``NotFoundError`` when there is no such version, or its files are no longer kept.
        """
        found = self._loaded.get(version_id)
        if found is not None:
            return found
        row = await self._store.version(version_id)
        if row is None or row.account_id != self._account_id:
            raise NotFoundError(f"There is no version {version_id}.", cure="List the versions of the Worker.")
        return await self._load_row(row)

    async def _load_row(self, row: VersionRow) -> LoadedVersion:
        if not await asyncio.to_thread(self._bundles.claim, row.bundle):
            raise NotFoundError(
                f'The files of version {row.number} of "{row.worker}" ({row.version_id}) are no longer kept.',
                cure="Upload this version again.",
            )
        manifest = manifests.decode(row.config)
        bundle = self._bundles.path(row.bundle)
        installed = await self._dependencies.ensure(bundle, allow_sdist=manifest.settings.allow_sdist)
        version = LoadedVersion(
            account_id=row.account_id,
            worker=row.worker,
            version_id=row.version_id,
            number=row.number,
            manifest=manifest,
            bundle=bundle,
            dependencies=installed.folders,
            notices=installed.notices,
        )
        return self._loaded.setdefault(row.version_id, version)

    def retire(self, version: LoadedVersion) -> None:
        """Its files' grace time counts from now: isolates that finish their work may still import from them."""
        self._bundles.claim(version.bundle.name)
        for folder in version.dependencies:
            if folder.parent != version.bundle:  # not what the bundle brings itself
                self._dependencies.claim(folder.name)

    async def collect(self) -> list[str]:
        """Removes bundles and installed dependencies that nothing needs; returns their names.

        Needed are: what serves, what an unfinished run froze, the newest ``VERSIONS_KEPT`` versions of a Worker that
        serves (for a rollback), and whatever was uploaded, loaded or replaced within the grace time.
        """
        rows = await self._needed_versions()
        bundles = {row.bundle for row in rows}
        dependencies = await asyncio.to_thread(self._digests_of, bundles)
        needed = {row.version_id for row in rows}
        for version_id in [each for each in self._loaded if each not in needed]:
            del self._loaded[version_id]
        return await self._bundles.collect(bundles) + await self._dependencies.collect(dependencies)

    async def _needed_versions(self) -> list[VersionRow]:
        """Of all accounts: they share the files."""
        rows: dict[str, VersionRow] = {}
        wanted = await self._store.live_versions()
        for deployment in await self._store.current_deployments():
            wanted.update(version_id for version_id, _ in deployment.versions)
            newest = await self._store.versions(deployment.account_id, deployment.worker)
            rows.update({row.version_id: row for row in newest[: limits.VERSIONS_KEPT]})
        for version_id in wanted - rows.keys():
            row = await self._store.version(version_id)
            if row is not None:
                rows[version_id] = row
        return list(rows.values())

    def _digests_of(self, bundles: set[str]) -> set[str]:
        digests = set()
        for bundle in bundles:
            try:
                digests.add(self._dependencies.digest_of(dependency_files(self._bundles.path(bundle))))
            except DependencyError:  # its requirements are refused, so nothing can be installed for them
                continue
        return {digest for digest in digests if digest is not None}
