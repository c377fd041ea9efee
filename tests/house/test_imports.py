"""Imports run one way: downwards from processes over stores and messages to decisions, and never in a circle.

import-linter checks the contracts of pyproject.toml; here it is checked that the contracts are complete, and what they
cannot say.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.house.code import (
    PACKAGE,
    ROOT,
    SDK,
    Import,
    imports_module,
    imports_of,
    module_name,
    name_of,
    platform_files,
    python_files,
)

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
OUTSIDE_THE_FLOORS = {"sdk"}  # an import root of its own: see the two tests about it
LOCAL_IMPORTS = {
    "src/stellwerk/sdk/workers/asgi.py": "FastAPI is a package of the user's; most programs do not have it",
}


def packages_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/__init__.py")} | (
        {path.name for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))} - {"__pycache__"}
    )


def test_the_contracts_of_pyproject_are_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_of_core_is_in_the_independence_contract() -> None:
    (contract,) = [contract for contract in CONTRACTS if contract["type"] == "independence"]
    rooms = {f"stellwerk.core.{name}" for name in packages_in(PACKAGE / "core")}
    assert set(contract["modules"]) == rooms


def test_every_top_level_package_stands_on_a_floor() -> None:
    (contract,) = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    floors = {module.strip() for layer in contract["layers"] for module in layer.split("|")}
    assert floors == {f"stellwerk.{name}" for name in packages_in(PACKAGE) - OUTSIDE_THE_FLOORS}


def sdk_roots() -> set[str]:
    """The names that a Worker's program imports: everything at the top of ``sdk/``."""
    return {path.stem for path in SDK.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}


def test_only_the_isolate_and_the_users_tests_import_the_sdk() -> None:
    allowed = (PACKAGE / "isolate", PACKAGE / "testing")
    roots = sdk_roots()
    assert {"workers", "js", "pyodide"} <= roots
    wrong = [
        f"{name_of(path)}:{found.line}: {found.module}"
        for path in platform_files()
        if not any(map(path.is_relative_to, allowed))
        for found in imports_of(path)
        if found.module.split(".")[0] in roots
    ]
    assert not wrong, "\n".join(wrong)


def test_the_sdk_imports_nothing_of_ours() -> None:
    """A Worker's program must not find a way from the SDK into the platform."""
    wrong = [
        f"{name_of(path)}:{found.line}: {found.module}"
        for path in python_files("src/stellwerk/sdk")
        for found in imports_of(path)
        if imports_module(found, "stellwerk")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_inside_a_function() -> None:
    """It would hide a cycle, and a failure until the line is reached."""
    wrong = {name_of(path) for path in python_files("src") if any(found.inside for found in imports_of(path))}
    assert wrong == set(LOCAL_IMPORTS)


def graph(files: Iterable[Path]) -> dict[str, set[str]]:
    """Which module imports which, of these files. What is imported for the type checker alone never runs."""
    by_name = {module_name(path): path for path in files}

    def target(found: Import) -> str | None:
        return found.module if found.module in by_name else None

    return {
        name: {
            other
            for found in imports_of(path)
            if not found.for_types and (other := target(found)) is not None and other != name
        }
        for name, path in by_name.items()
    }


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    """One circle of modules, or nothing. Leaves are taken away until only circles, and what leads to them, are left."""
    left = {name: set(others) for name, others in edges.items()}
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    if not left:
        return []
    path = [min(left)]
    while True:
        following = min(left[path[-1]] & left.keys())
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def test_a_circle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    edges = graph(python_files("src/stellwerk"))
    assert sum(map(len, edges.values())) > 300, "the graph is not what it should be"
    # A package whose front door imports its own modules is no circle with them.
    for name, others in edges.items():
        others.difference_update({package for package in others if name.startswith(f"{package}.")})
    assert not (found := cycle_in(edges)), " -> ".join(found)
