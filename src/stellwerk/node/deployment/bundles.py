"""Bundles: the files of a version, in a folder named by their content.

The hash covers every path and every byte, in a fixed order, each with its length in front, so no two different sets
of files can run together into the same bytes. Equal files give the same folder, whichever Worker or version has them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from stellwerk.core import limits
from stellwerk.core.errors import BundleError, StorageError
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.content_folders import ContentFolders

_COMPONENT_BYTES_MAX = 255  # NAME_MAX of the file systems we run on


class Bundles:
    """The bundles of one node, in ``<state>/bundles/<sha256>/``."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._folders = ContentFolders(root)
        self._clock = clock

    async def start(self) -> None:
        """Makes the folder and sweeps what a killed process left half-written."""
        await asyncio.to_thread(self._folders.sweep)

    def path(self, digest: str) -> Path:
        """Where the bundle ``digest`` is, if it is."""
        return self._folders.path(digest)

    async def put(self, files: Mapping[str, bytes]) -> str:
        """Keeps ``files`` (relative path -> content) and returns their hash, once they are on disk.

        Raises ``BundleError`` for an unsafe path, a path that is both file and folder, too many files (20,000) and
        too many bytes (64 MiB); ``StorageError`` when the disk refuses.
        """
        check_files(files)
        return await asyncio.to_thread(self._put, dict(files))

    def _put(self, files: dict[str, bytes]) -> str:
        digest = bundle_hash(files)
        try:
            if not self._folders.claim(digest, now_ms=self._clock.now_ms()):
                self._write(digest, files)
        except OSError as error:
            raise unwritable("The files of this Worker", error) from error
        return digest

    def _write(self, digest: str, files: dict[str, bytes]) -> None:
        scratch = self._folders.scratch(f"{digest}-{self._clock.new_uuid()}")
        try:
            _write_files(scratch, files)
            self._folders.publish(scratch, digest, now_ms=self._clock.now_ms())
        finally:
            self._folders.discard(scratch)  # after a success there is nothing under this name any more

    def claim(self, digest: str) -> bool:
        """Whether the bundle exists; if so, its grace time starts anew."""
        return self._folders.claim(digest, now_ms=self._clock.now_ms())

    async def collect(self, keep: Iterable[str]) -> list[str]:
        """Removes the bundles that are not in ``keep`` and were not claimed within the grace time; returns them."""
        before_ms = self._clock.now_ms() - limits.BUNDLE_GRACE_MS
        return await asyncio.to_thread(self._folders.retire, keep=frozenset(keep), unused_since_ms=before_ms)


def unwritable(what: str, error: OSError) -> StorageError:
    """What a full or broken disk means to the caller: nothing was kept, and it is not the caller's fault."""
    reason = error.strerror or str(error)
    return StorageError(
        f"{what} cannot be written: {reason}.", cure="Look at the disk of the state folder, then repeat."
    )


def bundle_hash(files: Mapping[str, bytes]) -> str:
    """The sha256 that names a bundle, over its paths and contents in the order of the paths."""
    total = hashlib.sha256()
    for path in sorted(files):
        name, content = path.encode(), files[path]
        total.update(b"%d:%b%d:" % (len(name), name, len(content)))
        total.update(content)
    return total.hexdigest()


def check_files(files: Mapping[str, bytes]) -> None:
    """Raises ``BundleError`` unless ``files`` can become a bundle."""
    if len(files) > limits.BUNDLE_FILES_MAX:
        raise BundleError(
            f"This Worker has {len(files):,} files; a bundle may have {limits.BUNDLE_FILES_MAX:,}.",
            cure="Move data out of the Worker's folder, or put it behind a service.",
        )
    size = sum(map(len, files.values()))
    if size > limits.BUNDLE_BYTES_MAX:
        largest = max(files, key=lambda path: len(files[path]))
        raise BundleError(
            f"This Worker's files have {size:,} bytes; a bundle may have {limits.BUNDLE_BYTES_MAX:,}. "
            f"The largest is {largest} ({len(files[largest]):,}).",
            cure="Move data out of the Worker's folder, or name packages as dependencies instead of vendoring them.",
        )
    for path in files:
        _check_path(path)
    _check_no_file_is_a_folder(files)


def _check_path(path: str) -> None:
    """A path that stays inside of the bundle on every system: relative, plain parts, no tricks."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise _unsafe(path, "it is not Unicode text") from None
    if path.startswith("/") or "\\" in path:
        raise _unsafe(path, "it is not relative, with / between its parts")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise _unsafe(path, "it has a control character")
    if len(encoded) > limits.BUNDLE_PATH_BYTES_MAX:
        raise _unsafe(path[:60] + "...", f"it is longer than {limits.BUNDLE_PATH_BYTES_MAX} bytes")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise _unsafe(path, 'a part of it is empty, "." or ".."')
        if len(part.encode()) > _COMPONENT_BYTES_MAX:
            raise _unsafe(path, f"a part of it is longer than {_COMPONENT_BYTES_MAX} bytes")


def _unsafe(path: str, reason: str) -> BundleError:
    return BundleError(f"The path {path!r} cannot be in a bundle: {reason}.", cure="Rename or leave out this file.")


def _check_no_file_is_a_folder(files: Mapping[str, bytes]) -> None:
    for path in files:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in files:
                raise BundleError(f"{parent!r} is a file and the folder of {path!r}.", cure="Rename one of them.")


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Read-only: a program that writes into its own bundle would change it for every version that shares it.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
            file.write(content)
