"""What stands in every file: a theory on top, and nothing of the machine on which it was written."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.code import ROOT, Function, name_of, python_files, text_of, tracked_files, tree_of

MACHINE = [
    r"/wo" + r"rk/",
    r"\bfa" + r"rm-",
    r"/fa" + r"rm\b",
    r"\.libr" + r"ary\b",
    r"/home/\w+/",
    r"/Us" + r"ers/\w+/",
    r"(?<![\w.])/tmp/\w",
]
"""Written so that this file does not contain what it looks for."""

TMP_ALLOWED = {
    # A folder of that name as data, never opened.
    "tests/unit",
    "tests/integration",
    "tests/property",
}
BINARY = {".png", ".ico", ".db", ".gz", ".whl"}


def readable_files() -> list[Path]:
    files = [path for path in tracked_files() if path.suffix not in BINARY]
    assert len(files) > 200
    return files


@pytest.mark.parametrize("pattern", MACHINE)
def test_no_file_names_a_place_of_somebodys_machine(pattern: str) -> None:
    looked_for = re.compile(pattern)
    wrong = [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in readable_files()
        if not ("/tmp" in pattern and any(name_of(path).startswith(place) for place in TMP_ALLOWED))
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if looked_for.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_on_top_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in python_files("src", "tests", "bench", "docs")
        if ast.get_docstring(tree_of(path)) is None and text_of(path).strip()
    ]
    assert silent == ["src/stellwerk/__init__.py"] or not silent, "\n".join(silent)


def test_nothing_is_left_to_do_in_the_text() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    left = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in python_files("src", "tests", "bench", "examples")
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if marks.search(line)
    ]
    assert not left, "\n".join(left)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'"{project["version"]}"' in (ROOT / "src/stellwerk/__init__.py").read_text()
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


PROGRAMS = {"worker.py", "behaviours.py", "bench.py"}
"""Not tests: Workers that take their time, because that is what is tested, and a measurement."""

WORKFLOW_PROGRAMS = ROOT / "tests" / "unit" / "isolate_workflow"  # their loop's clock is virtual: a sleep is a timer


def test_no_test_sleeps() -> None:
    """Signals and deadlines, not hopes. A pause is a poll when the function that it stands in has a deadline."""
    wrong = [
        f"{name_of(path)}:{call.lineno}: in {function.name}"
        for path in python_files("tests")
        if path.name not in PROGRAMS and WORKFLOW_PROGRAMS not in path.parents
        for function in ast.walk(tree_of(path))
        if isinstance(function, Function)
        for call in _sleeps(function)
        if not re.search(r"deadline|timeout|bounded", ast.get_source_segment(text_of(path), function) or "")
    ]
    assert not wrong, "\n".join(wrong)


def _sleeps(function: Function) -> Iterator[ast.Call]:
    """Calls of ``sleep`` with a time: ``sleep(0)`` only gives way."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "anyio.sleep", "asyncio.sleep"):
            waits = node.args and not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
            if waits:
                yield node
