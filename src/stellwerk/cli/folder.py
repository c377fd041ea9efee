"""A Worker's folder as ``deploy`` uploads it: its configuration's texts and the files of its bundle.

The rules are those of ``node/workspace/files.py``, which the command line may not import (a client must run where no
node is installed to run); a test compares the two on the same folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk.core import limits
from stellwerk.core.deployment.document import SourceText
from stellwerk.core.errors import BundleError, ConfigError

CONFIG_FILES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
SETTINGS_FILE = "stellwerk.toml"
_NEVER = frozenset({"node_modules", "__pycache__"})


@dataclass(slots=True)
class WorkerFolder:
    """What was read. ``workspace_settings``: defaults from the nearest ``stellwerk.toml`` above the folder."""

    wrangler: SourceText
    settings: SourceText | None
    workspace_settings: SourceText | None
    files: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_folder(folder: Path) -> WorkerFolder:
    """Reads a Worker's folder. Raises ``ConfigError`` when it is none, ``BundleError`` when it is too large."""
    config = config_file(folder)
    if config is None:
        raise ConfigError(
            f"{folder} is not a Worker's folder: it has none of {', '.join(CONFIG_FILES)}.",
            cure="Name the folder that has the Worker's configuration.",
        )
    read = WorkerFolder(
        wrangler=read_text(config),
        settings=_optional(folder / SETTINGS_FILE),
        workspace_settings=_workspace_settings(folder.resolve()),
    )
    size = 0
    for name, path in _walk(folder, "", folder.resolve(), (folder.resolve(),), read.left_out):
        size += path.stat().st_size
        if size > limits.BUNDLE_BYTES_MAX or len(read.files) >= limits.BUNDLE_FILES_MAX:
            raise BundleError(
                f"{folder} has more than {limits.BUNDLE_FILES_MAX:,} files or {limits.BUNDLE_BYTES_MAX:,} bytes; "
                f"the limit was passed at {name}.",
                cure="Move data out of the Worker's folder.",
            )
        read.files[name] = path.read_bytes()
    return read


def config_file(folder: Path) -> Path | None:
    """The configuration that makes ``folder`` a Worker, if it is one."""
    return next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)


def read_text(path: Path) -> SourceText:
    """A text file. Raises ``ConfigError`` when it cannot be read as UTF-8."""
    try:
        return SourceText(file=str(path), text=path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}.", file=str(path), cure="Save it as UTF-8.") from error


def _optional(path: Path) -> SourceText | None:
    return read_text(path) if path.is_file() else None


def _workspace_settings(folder: Path) -> SourceText | None:
    """The nearest ``stellwerk.toml`` above that does not belong to a Worker of its own."""
    for parent in folder.parents:
        if (parent / SETTINGS_FILE).is_file() and config_file(parent) is None:
            return read_text(parent / SETTINGS_FILE)
    return None


def _left_out(name: str) -> bool:
    """Hidden files hold secrets and tools' state; the others are made anew wherever they are needed."""
    return name.startswith(".") or name in _NEVER or name.endswith(".pyc")


def _walk(
    folder: Path, prefix: str, boundary: Path, ancestors: tuple[Path, ...], left_out: list[str]
) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, path = prefix + entry.name, Path(entry.path)
        if _left_out(entry.name) or (not prefix and entry.name in (*CONFIG_FILES, SETTINGS_FILE)):
            continue
        if entry.is_symlink() and not _leads_within(path, boundary, ancestors):
            left_out.append(f"{name} is left out: it is a link to nothing, out of the folder, or in a circle.")
            continue
        if entry.is_file():
            yield name, path
        elif entry.is_dir() and config_file(path) is None:
            yield from _walk(path, f"{name}/", boundary, (*ancestors, path.resolve()), left_out)


def _leads_within(link: Path, boundary: Path, ancestors: tuple[Path, ...]) -> bool:
    target = link.resolve()
    if not target.exists() or not target.is_relative_to(boundary) or target in ancestors:
        return False
    return not any(_left_out(part) for part in target.relative_to(boundary).parts)
