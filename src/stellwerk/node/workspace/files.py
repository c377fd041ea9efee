"""Which files of a Worker's folder make its bundle: everything below it, except

- hidden files and folders (``.git``, ``.venv``, ``.dev.vars``: secrets never get into a bundle),
- ``node_modules``, ``__pycache__`` and ``*.pyc``,
- its own configuration (``wrangler.jsonc``, ``.json``, ``.toml``, ``stellwerk.toml``): that becomes the manifest,
- folders below it that are Workers of their own.

Tests, if they are in the folder, are part of it: nothing is guessed from names. A symbolic link is followed when it
leads to something within the workspace that would itself be in a bundle; any other is left out, with a notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk.core import limits
from stellwerk.core.errors import BundleError

CONFIG_FILES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
"""In the order in which wrangler itself looks for them."""

SETTINGS_FILE = "stellwerk.toml"
_NEVER = frozenset({"node_modules", "__pycache__"})


@dataclass(slots=True)
class Collected:
    """The files of one Worker by their path in the bundle."""

    files: dict[str, bytes] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is in no bundle."""
    return name.startswith(".") or name in _NEVER or name.endswith(".pyc")


def config_file(folder: Path) -> Path | None:
    """The configuration that makes ``folder`` a Worker, if it is one."""
    return next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)


def collect_files(folder: Path, *, boundary: Path) -> Collected:
    """Reads the bundle of the Worker in ``folder``; links are followed within ``boundary``.

    Raises ``BundleError`` before it reads more than a bundle may have.
    """
    collected, size = Collected(), 0
    for name, path in _walk(folder, "", boundary.resolve(), (folder.resolve(),), collected.notices):
        size += path.stat().st_size
        if size > limits.BUNDLE_BYTES_MAX or len(collected.files) >= limits.BUNDLE_FILES_MAX:
            raise BundleError(
                f"{folder.name} has more than {limits.BUNDLE_FILES_MAX:,} files or {limits.BUNDLE_BYTES_MAX:,} bytes; "
                f"the limit was passed at {name}.",
                cure="Move data out of the Worker's folder.",
            )
        collected.files[name] = path.read_bytes()
    return collected


def _walk(
    folder: Path, prefix: str, boundary: Path, ancestors: tuple[Path, ...], notices: list[str]
) -> Iterator[tuple[str, Path]]:
    """Files below ``folder`` as (path in the bundle, path on disk). ``ancestors`` breaks circles of links."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, path = prefix + entry.name, Path(entry.path)
        if is_left_out(entry.name) or (not prefix and entry.name in (*CONFIG_FILES, SETTINGS_FILE)):
            continue
        if entry.is_symlink() and not _leads_within(path, boundary, ancestors):
            notices.append(f"{name} is left out: it is a link to nothing, out of the workspace, or in a circle.")
            continue
        if entry.is_file():
            yield name, path
        elif entry.is_dir() and config_file(path) is None:
            yield from _walk(path, f"{name}/", boundary, (*ancestors, path.resolve()), notices)


def _leads_within(link: Path, boundary: Path, ancestors: tuple[Path, ...]) -> bool:
    target = link.resolve()
    if not target.exists() or not target.is_relative_to(boundary) or target in ancestors:
        return False
    # A link must not bring in what its target's own name keeps out: a hidden file may hold secrets.
    return not any(is_left_out(part) for part in target.relative_to(boundary).parts)
