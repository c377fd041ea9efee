"""The project's own source as the house tests see it: which files there are, parsed, and what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "stellwerk"
SDK = PACKAGE / "sdk"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path), str(path))


def name_of(path: Path) -> str:
    """How people name a file: its path below the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that belongs to the project: what git knows, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = sorted({ROOT / name for name in listed.stdout.split("\0") if name})
    return tuple(path for path in paths if path.is_file())


def python_files(*folders: str) -> tuple[Path, ...]:
    """The Python files below these folders of the repository. There must be some: a wrong name would check nothing."""
    roots = [ROOT / folder for folder in folders]
    found = tuple(path for path in tracked_files() if path.suffix == ".py" and any(map(path.is_relative_to, roots)))
    assert found, f"no Python file below {folders}"
    return found


def platform_files() -> tuple[Path, ...]:
    """``src/stellwerk`` without the SDK, which is an import root of its own."""
    return tuple(path for path in python_files("src/stellwerk") if not path.is_relative_to(SDK))


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, absolute, as far as it is known to be a module."""

    module: str
    line: int
    inside: str  # the function that it stands in; "" at the top of the file
    for_types: bool  # below ``if TYPE_CHECKING``


def module_name(path: Path) -> str:
    """``stellwerk.core.errors``, ``workers.rpc``: how the file is imported."""
    root = SDK if path.is_relative_to(SDK) else ROOT / "src"
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of the file, wherever it stands. ``from a import b`` counts as ``a.b`` and as ``a``."""
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]

    def walk(node: ast.AST, inside: str, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = _base(child, package)
                names = [base, *(f"{base}.{alias.name}" for alias in child.names)]
            yield from (Import(name, getattr(child, "lineno", 0), inside, for_types) for name in names)
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from walk(child, child.name if isinstance(child, Function) else inside, for_types or typing_only)

    return walk(tree_of(path), "", False)


def _base(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of what comes after ``from``."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def imports_module(imported: Import, name: str) -> bool:
    """Whether the import is of this module or of something in it."""
    return imported.module == name or imported.module.startswith(f"{name}.")
