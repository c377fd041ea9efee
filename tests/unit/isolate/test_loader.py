"""From ``Boot`` to what a Worker exports, and what its author reads when it does not import."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from stellwerk.isolate.failures import to_error_value
from stellwerk.isolate.loader import load
from stellwerk.wire.isolate import PROTOCOL, Boot

ENTRY = "from workers import WorkerEntrypoint, WorkflowEntrypoint, Response\n"
HELLO = ENTRY + "class Default(WorkerEntrypoint):\n    async def fetch(self, request):\n        return Response('hi')\n"


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Each test has sys.path and sys.modules to itself: a real isolate loads once."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def a_boot(
    bundle: Path,
    files: dict[str, str],
    *,
    main: str = "main.py",
    date: str = "2026-01-01",
    flags: tuple[str, ...] = (),
    dependencies: tuple[Path, ...] = (),
    protocol: int = PROTOCOL,
) -> Boot:
    for name, text in files.items():
        file = bundle / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Boot(protocol, "w", "v", str(bundle), main, [str(folder) for folder in dependencies], [], date, list(flags))


def test_classes_are_exported_by_name_with_kind_and_methods(tmp_path: Path) -> None:
    source = HELLO + (
        "class Admin(WorkerEntrypoint):\n"
        "    async def add(self, a, b): return a + b\n"
        "    def _hidden(self): pass\n"
        "class Orders(WorkflowEntrypoint):\n"
        "    async def run(self, event, step): pass\n"
    )
    worker = load(a_boot(tmp_path, {"main.py": source}))
    assert {export.name: (export.kind, export.methods) for export in worker.exports} == {
        "Default": ("entrypoint", ["fetch"]),
        "Admin": ("entrypoint", ["add"]),
        "Orders": ("workflow", ["run"]),
    }
    assert worker.classes["Orders"][0] is worker.module.Orders
    assert worker.module.__name__ == "main"


def test_the_import_time_is_measured(tmp_path: Path) -> None:
    ticks = iter([1_000_000, 43_000_000])
    assert load(a_boot(tmp_path, {"main.py": HELLO}), monotonic_ns=lambda: next(ticks)).import_ms == 42


def test_modules_are_found_beside_the_main_module_then_vendored_then_installed(tmp_path: Path) -> None:
    bundle, installed = tmp_path / "bundle", tmp_path / "installed"
    installed.mkdir()
    (installed / "first.py").write_text("WHERE = 'installed'")
    (installed / "second.py").write_text("WHERE = 'installed'")
    (installed / "third.py").write_text("WHERE = 'installed'")
    files = {
        "src/main.py": HELLO + "import first, second, third\nFOUND = [first.WHERE, second.WHERE, third.WHERE]\n",
        "src/first.py": "WHERE = 'beside'",
        "python_modules/first.py": "WHERE = 'vendored'",
        "python_modules/second.py": "WHERE = 'vendored'",
    }
    worker = load(a_boot(bundle, files, main="src/main.py", dependencies=(installed,)))
    assert worker.module.FOUND == ["beside", "vendored", "installed"]


def test_a_main_module_may_have_the_name_of_one_that_is_loaded_already(tmp_path: Path) -> None:
    worker = load(a_boot(tmp_path, {"types.py": HELLO}, main="types.py"))
    assert worker.module.Default.__module__ == "types"


def test_pth_files_of_vendored_packages_are_followed_from_their_date_on(tmp_path: Path) -> None:
    files = {
        "main.py": HELLO + "try:\n    import deep\nexcept ImportError:\n    deep = None\n",
        "python_modules/more.pth": "lib\n",
        "python_modules/lib/deep.py": "",
    }
    assert load(a_boot(tmp_path, files, date="2026-05-25")).module.deep is None
    assert load(a_boot(tmp_path, files, date="2026-05-26")).module.deep is not None


def test_an_error_on_import_is_raised_as_it_is_with_the_users_frames_only(tmp_path: Path) -> None:
    files = {"main.py": "import helper\n", "helper.py": "def f():\n    return 1 / 0\nf()\n"}
    with pytest.raises(ZeroDivisionError) as caught:
        load(a_boot(tmp_path, files))
    frames = [Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[frames.index("main.py") :] == ["main.py", "helper.py", "helper.py"]
    assert not any("importlib" in frame for frame in frames)
    assert "main" not in sys.modules


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError) as caught:
        load(a_boot(tmp_path, {"main.py": "x = 1\nclass :\n"}))
    stack = to_error_value(caught.value).stack
    assert 'main.py", line 2' in stack
    assert "importlib" not in stack


def test_a_missing_module_says_where_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        load(a_boot(tmp_path, {"main.py": "import no_such_package\n"}))
    assert "pyproject.toml" in to_error_value(caught.value).stack


def test_importing_by_the_main_modules_folder_is_explained(tmp_path: Path) -> None:
    files = {"src/main.py": "import src.helper\n", "src/helper.py": ""}
    with pytest.raises(ModuleNotFoundError) as caught:
        load(a_boot(tmp_path, files, main="src/main.py"))
    assert "write `import helper`" in to_error_value(caught.value).stack


def test_a_missing_main_module_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"main\.py"):
        load(a_boot(tmp_path, {}))
    with pytest.raises(TypeError, match=r"needs to end with a \.py"):
        load(a_boot(tmp_path, {}, main="main.js"))


HANDLER = "from workers import Response\nasync def on_fetch(request, env): return Response('old')\n"


def test_global_handlers_serve_before_their_date_and_by_their_flag(tmp_path: Path) -> None:
    for boot in (
        a_boot(tmp_path, {"main.py": HANDLER}, date="2025-08-13"),
        a_boot(tmp_path, {"main.py": HANDLER}, flags=("disable_python_no_global_handlers",)),
    ):
        worker = load(boot)
        assert worker.classes == {"Default": (worker.module.on_fetch, "handlers")}
        assert [(export.name, export.kind, export.methods) for export in worker.exports] == [
            ("Default", "entrypoint", ["fetch"])
        ]


@pytest.mark.parametrize(
    ("source", "date", "message"),
    [
        (HANDLER, "2025-08-14", r"on_fetch\(\) is ignored since compatibility date 2025-08-14"),
        ("x = 1\n", "2026-01-01", "exports no class"),
        (HELLO + "def on_fetch(): pass\n", "2025-01-01", "Cannot define multiple default entrypoints"),
        ("def on_scheduled(): pass\n", "2025-01-01", 'does not export a handler named "on_fetch"'),
    ],
)
def test_exports_that_make_no_sense_are_refused(tmp_path: Path, source: str, date: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        load(a_boot(tmp_path, {"main.py": source}, date=date))


def test_a_node_of_another_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="protocol 0"):
        load(a_boot(tmp_path, {"main.py": HELLO}, protocol=0))
