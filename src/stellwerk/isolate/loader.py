"""The loader: from ``Boot`` to the user's module and what it exports.

``sys.path``: the SDK, the main module's own folder, ``python_modules/``, the installed dependencies, the standard
library. The platform's own packages are not on it, so that a Worker finds the same packages on every node: those it
names. Module names that the isolate has imported already (``workers``, the standard library's) stay what they are.
"""

from __future__ import annotations

import importlib.util
import site
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import workers
from workers.entrypoints import exported_classes, rpc_methods

from stellwerk.core.deployment.flags import enabled_flags
from stellwerk.wire.isolate import PROTOCOL, Boot, Export

_SDK = str(Path(workers.__file__).parents[1])
_PTH_SINCE = "2026-05-26"  # flag python_process_pth_files
_LEGACY_HANDLERS = ("on_fetch", "on_scheduled", "on_queue", "on_alarm", "on_trace", "on_pubsub", "test")


@dataclass(frozen=True, slots=True)
class LoadedWorker:
    """A Worker's program, imported. ``classes``: what is called by name, with its kind: ``entrypoint``, ``workflow``,
    ``object``; or ``handlers``, which is a module-level ``on_fetch`` under the name ``Default``."""

    module: ModuleType
    classes: dict[str, tuple[Any, str]]
    exports: list[Export]
    import_ms: int

    def find(self, name: str) -> tuple[Any, str]:
        """The class of this name and its kind. Raises ``TypeError`` with Cloudflare's text."""
        found = self.classes.get(name)
        if found is None:
            raise TypeError(f"There is no '{name}' class defined in the Python Worker's main module")
        return found


def load(boot: Boot, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> LoadedWorker:
    """Imports the Worker's main module and collects its exports.

    Raises whatever the module raises on import, with a traceback that begins in the user's code, and ``TypeError``
    with Cloudflare's texts where the exports make no sense.
    """
    if boot.protocol != PROTOCOL:
        raise RuntimeError(f"the node speaks protocol {boot.protocol}, this isolate {PROTOCOL}: install one release")
    began = monotonic_ns()
    flags = enabled_flags(boot.compatibility_date, boot.compatibility_flags)
    main = Path(boot.bundle, boot.main_module)
    if main.suffix != ".py":
        raise TypeError("Main module needs to end with a .py file extension")
    pth = "python_process_pth_files" in flags or boot.compatibility_date >= _PTH_SINCE
    _set_path(main.parent, Path(boot.bundle, "python_modules"), boot.dependencies, pth=pth)
    module = _import_main(main)
    classes = _exports(module, boot.main_module, legacy="python_no_global_handlers" not in flags)
    exports = [
        Export(name=name, kind=_kind(kind), methods=_methods(found, kind)) for name, (found, kind) in classes.items()
    ]
    return LoadedWorker(module, classes, exports, (monotonic_ns() - began) // 1_000_000)


def _set_path(main: Path, modules: Path, dependencies: list[str], *, pth: bool) -> None:
    folders = [str(main), str(modules), *dependencies]
    own = [_SDK, *(folder for folder in folders if Path(folder).is_dir())]
    sys.path[:] = [*dict.fromkeys(own), *(entry for entry in sys.path if entry not in own)]
    if pth and modules.is_dir():
        site.addsitedir(str(modules))  # on the path already, so this only follows its .pth files


def _import_main(main: Path) -> ModuleType:
    """Imports the file under its own name, even where a module of the standard library has that name too.

    The code is run here and not by the import system, which would put its own frames into the user's traceback.
    """
    name = main.stem
    spec = importlib.util.spec_from_file_location(name, main)
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        code = spec.loader.get_code(name)
        assert code is not None
        exec(code, module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        _explain(error, main)
        raise error.with_traceback(_from_user_code(error.__traceback__)) from error.__cause__
    return module


def _from_user_code(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from its first frame that is neither ours nor the import system's. None for a syntax error in the
    main module, which names its place by itself."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib"):
            return trace
        trace = trace.tb_next
    return None


def _explain(error: BaseException, main: Path) -> None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if top == main.parent.name:
            rest = error.name.partition(".")[2] or "<module>"
            error.add_note(f"The main module lies in {top}/, which is the root of all imports: write `import {rest}`.")
        else:
            error.add_note(
                f"Is {top!r} among the dependencies of pyproject.toml or requirements.txt? Only the standard library, "
                "the SDK, and what is named there can be imported."
            )


def _exports(module: ModuleType, file: str, *, legacy: bool) -> dict[str, tuple[Any, str]]:
    classes: dict[str, tuple[Any, str]] = dict(exported_classes(module))
    handlers = [name for name in _LEGACY_HANDLERS if callable(getattr(module, name, None))]
    global_ones = [name for name in handlers if name != "test"]  # too common a name to draw conclusions from
    if legacy and global_ones:
        if "Default" in classes:
            raise TypeError("Cannot define multiple default entrypoints")
        if "on_fetch" not in handlers:
            raise TypeError(f'Python entrypoint "{file}" does not export a handler named "on_fetch"')
        classes["Default"] = (module.on_fetch, "handlers")
    if classes:
        return classes
    hint = "derive a class `Default` from `workers.WorkerEntrypoint` in it"
    if global_ones:
        raise TypeError(
            f'Python entrypoint "{file}" exports no class. Its module-level {global_ones[0]}() is ignored since '
            f"compatibility date 2025-08-14: {hint}, or set the flag disable_python_no_global_handlers"
        )
    raise TypeError(f'Python entrypoint "{file}" exports no class: {hint}')


def _kind(kind: str) -> str:
    return "entrypoint" if kind == "handlers" else kind


def _methods(found: Any, kind: str) -> list[str]:
    return ["fetch"] if kind == "handlers" else rpc_methods(found)
