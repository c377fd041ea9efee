"""Folders named by the hash of what is in them: written once, whole or not at all, and shared by who needs the same.

A folder is filled under a scratch name, brought to disk, then renamed to its hash. So a folder that carries a hash is
complete, whenever the process or the machine died; what a dead process left under a scratch name is swept at start.
(One node holds a state folder at a time, so a scratch folder found at start belongs to nobody.)

The modification time of a folder says when it was last needed. ``claim`` sets it and ``retire`` reads it, both under
one lock, so a folder cannot be taken away between the moment an upload finds it and the moment its version is stored.

All functions here block; the callers run them in threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from stellwerk.core import limits

_SCRATCH = ".scratch-"
_MS_NS = 1_000_000


class ContentFolders:
    """The folders below ``root``, each named by 64 hex digits."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        return self._root / digest

    def sweep(self) -> None:
        """Makes the root and removes what a process that died left half-written. To be called before anything else."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in self._root.iterdir():
            if entry.name.startswith(_SCRATCH):
                _remove_tree(entry)

    def scratch(self, name: str) -> Path:
        """A new, empty folder beside the finished ones. ``name`` must be unique."""
        folder = self._root / f"{_SCRATCH}{name}"
        folder.mkdir(mode=0o755)
        return folder

    def publish(self, scratch: Path, digest: str, *, now_ms: int) -> Path:
        """Brings ``scratch`` to disk and gives it its name; when another was faster, takes that one."""
        _sync_tree(scratch)
        final = self.path(digest)
        with self._lock:
            os.utime(scratch, ns=(now_ms * _MS_NS, now_ms * _MS_NS))
            try:
                scratch.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
                os.utime(final, ns=(now_ms * _MS_NS, now_ms * _MS_NS))
        _remove_tree(scratch)
        _sync_folder(self._root)
        return final

    def discard(self, scratch: Path) -> None:
        """Removes a scratch folder that will not be finished."""
        _remove_tree(scratch)

    def claim(self, digest: str, *, now_ms: int) -> bool:
        """Whether the folder exists; if so, it is marked as needed now."""
        with self._lock:
            try:
                os.utime(self.path(digest), ns=(now_ms * _MS_NS, now_ms * _MS_NS))
            except FileNotFoundError:
                return False
        return True

    def retire(self, *, keep: Iterable[str], unused_since_ms: int) -> list[str]:
        """Removes every folder that is not in ``keep`` and was not claimed after ``unused_since_ms``; returns them."""
        kept = set(keep)
        retired = []
        for entry in sorted(self._root.iterdir()):
            if entry.name in kept or entry.name.startswith(_SCRATCH):
                continue
            trash = self._root / f"{_SCRATCH}retired-{entry.name}"
            with self._lock:
                if entry.stat().st_mtime_ns > unused_since_ms * _MS_NS:
                    continue
                # Renamed first: a folder that carries a hash must be whole, also while it is being removed.
                entry.rename(trash)
            _remove_tree(trash)
            retired.append(entry.name)
        return retired


def _sync_tree(root: Path) -> None:
    """Brings files and folders to disk. Many files are left to one ``sync``, which costs less than one each."""
    paths = [root, *root.rglob("*")]
    if len(paths) > limits.BUNDLE_FSYNCS_MAX:
        os.sync()  # on Linux it returns once everything is written
        return
    for path in paths:
        if not path.is_symlink():
            _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
