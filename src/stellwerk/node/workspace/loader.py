"""The loader: from folders on disk to Workers that can be deployed.

A workspace is one folder with Workers somewhere below it, or several. A Worker is a folder with a wrangler
configuration. Hidden folders, ``node_modules``, ``python_modules`` and ``__pycache__`` are not searched. The
``stellwerk.toml`` of a given folder holds defaults for all Workers below it, unless that folder is a Worker itself.

One broken Worker does not hide the others: what cannot be loaded is a *problem* beside those that can. Everything here
blocks; the callers run it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk.core import limits
from stellwerk.core.deployment.document import SourceText, did_you_mean
from stellwerk.core.deployment.environment import select_environment
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.deployment.parse import ParsedWorker, parse_document, parse_worker
from stellwerk.core.errors import BundleError, ConfigError
from stellwerk.node.workspace.files import (
    CONFIG_FILES,
    SETTINGS_FILE,
    Collected,
    collect_files,
    config_file,
    is_left_out,
)

_NOT_SEARCHED = frozenset({"python_modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSource:
    """A Worker as it is on disk now: everything that an upload needs."""

    folder: Path
    config_file: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    notices: tuple[str, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)  # "services[0]" -> line of config_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """What was found: Workers ordered by name, and what stood in the way of others."""

    workers: tuple[WorkerSource, ...] = ()
    problems: tuple[ConfigError, ...] = ()

    def same_as(self, other: Workspace) -> bool:
        """Whether nothing that matters differs. (Two errors are never equal, so ``==`` cannot tell.)"""
        return self.workers == other.workers and [*map(str, self.problems)] == [*map(str, other.problems)]


def load_workspace(folders: Sequence[Path], environment: str | None = None) -> Workspace:
    """Finds and reads the Workers in or below ``folders``, in the environment of that name.

    Paths in messages begin as the given folders do. Never raises for what it finds: that is in ``problems``.
    """
    found: list[WorkerSource] = []
    problems: list[ConfigError] = []
    seen: set[Path] = set()
    for root in folders:
        try:
            _load_below(root, environment, seen, found, problems)
        except ConfigError as error:
            problems.append(error)
    workers, doubles = _without_doubles(found)
    return Workspace(workers=workers, problems=(*problems, *doubles))


def _load_below(
    root: Path, environment: str | None, seen: set[Path], found: list[WorkerSource], problems: list[ConfigError]
) -> None:
    if root.resolve() in seen:  # given twice, or within a folder that was given
        return
    empty = True
    for folder in _worker_folders(root, seen):
        empty = False
        if len(found) >= limits.WORKSPACE_WORKERS_MAX:
            raise ConfigError(
                f"more than {limits.WORKSPACE_WORKERS_MAX} Workers are in this workspace.", file=str(root)
            )
        try:
            found.append(_load_worker(folder, root, environment))
        except ConfigError as error:
            problems.append(error)
    if empty:
        raise _nothing_below(root)


def _nothing_below(root: Path) -> ConfigError:
    names = ", ".join(CONFIG_FILES)
    return ConfigError(
        "there is no Worker in this folder or below it.",
        file=str(root),
        cure=f"A Worker is a folder with one of {names}.",
    )


def _worker_folders(root: Path, seen: set[Path]) -> Iterator[Path]:
    """The folders in and below ``root`` that are Workers, each real folder once."""
    if not root.is_dir():
        raise ConfigError("there is no such folder.", file=str(root))
    waiting, searched = [root], 0
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        searched += 1
        if searched > limits.WORKSPACE_FOLDERS_MAX:
            raise ConfigError(
                f"more than {limits.WORKSPACE_FOLDERS_MAX:,} folders are below this one.",
                file=str(root),
                cure="Give the folder that holds your Workers.",
            )
        is_worker, below = _look_into(folder)
        if is_worker:
            yield folder
        waiting.extend(below)


def _look_into(folder: Path) -> tuple[bool, list[Path]]:
    """Whether ``folder`` is a Worker, and the folders to search next. One that cannot be read holds no Workers."""
    try:
        below = [path for path in folder.iterdir() if _is_searched(path)]
        return config_file(folder) is not None, sorted(below, reverse=True)
    except OSError:
        return False, []


def _is_searched(path: Path) -> bool:
    return not is_left_out(path.name) and path.name not in _NOT_SEARCHED and path.is_dir()


def _load_worker(folder: Path, root: Path, environment: str | None) -> WorkerSource:
    config = config_file(folder)
    if config is None:
        raise ConfigError("its configuration has just been removed.", file=str(folder))
    wrangler = _read(config)
    parsed = parse_worker(
        wrangler,
        settings=_read_if_there(folder / SETTINGS_FILE),
        workspace_settings=_read_if_there(root / SETTINGS_FILE) if folder != root else None,
        dev_vars=_dev_vars(folder, environment),
        environment=environment,
    )
    collected = _collect(folder, root, config)
    if parsed.manifest.main not in collected.files:
        raise _no_main(wrangler, environment, parsed, collected)
    others = [name for name in CONFIG_FILES if name != config.name and (folder / name).is_file()]
    notices = [str(warning) for warning in parsed.warnings]
    notices += [f"{config}: {name} beside it is not read." for name in others]
    notices += [f"{folder}: {notice}" for notice in collected.notices]
    return WorkerSource(
        folder=folder,
        config_file=config,
        manifest=parsed.manifest,
        files=collected.files,
        notices=tuple(notices),
        lines=parsed.lines,
    )


def _read(path: Path) -> SourceText:
    try:
        return SourceText(file=str(path), text=path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError("this file is not UTF-8 text.", file=str(path), cure="Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"this file cannot be read: {error.strerror}.", file=str(path)) from error


def _read_if_there(path: Path) -> SourceText | None:
    return _read(path) if path.is_file() else None


def _dev_vars(folder: Path, environment: str | None) -> SourceText | None:
    """``.dev.vars.<environment>`` instead of ``.dev.vars`` where it exists, as with wrangler."""
    if environment:
        own = _read_if_there(folder / f".dev.vars.{environment}")
        if own is not None:
            return own
    return _read_if_there(folder / ".dev.vars")


def _collect(folder: Path, root: Path, config: Path) -> Collected:
    try:
        return collect_files(folder, boundary=root)
    except BundleError as error:
        raise ConfigError(error.message, file=str(config), cure=error.cure) from error
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.", file=str(config)) from error


def _no_main(wrangler: SourceText, environment: str | None, parsed: ParsedWorker, collected: Collected) -> ConfigError:
    document = parse_document(wrangler)
    top, _ = select_environment(document, environment)
    main = parsed.manifest.main
    modules = [path for path in collected.files if path.endswith(".py") and not path.startswith("python_modules/")]
    return document.error(
        top.place_of("main"),
        f'found "{main}", but the Worker has no such file.',
        cure=did_you_mean(main, modules) or "Write the path of the main module, from the folder of this file.",
    )


def _without_doubles(found: list[WorkerSource]) -> tuple[tuple[WorkerSource, ...], list[ConfigError]]:
    """Of Workers with one name none is taken: which one is meant cannot be known."""
    by_name: dict[str, list[WorkerSource]] = {}
    for source in found:
        by_name.setdefault(source.manifest.name, []).append(source)
    problems = [
        ConfigError(
            f'the Workers in {same[0].folder} and {other.folder} are both named "{name}".',
            file=str(other.config_file),
            key="name",
            cure="Give one of them another name.",
        )
        for name, same in sorted(by_name.items())
        for other in same[1:]
    ]
    return tuple(same[0] for _, same in sorted(by_name.items()) if len(same) == 1), problems
