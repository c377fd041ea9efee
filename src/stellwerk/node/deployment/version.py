"""A version as the node runs it: its manifest, and the folders that an isolate gets to see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stellwerk.core.deployment.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedVersion:
    """One version, ready to be started. Immutable, so it may be shared by everything that mentions the version."""

    account_id: str
    worker: str
    version_id: str
    number: int
    manifest: Manifest
    bundle: Path  # folder with the version's files, read-only by convention
    dependencies: tuple[Path, ...] = ()  # folders for sys.path, after the main module's own folder
    notices: tuple[str, ...] = ()  # sentences about its dependencies, for the person who deploys
