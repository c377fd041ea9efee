"""Short by rule: what does not fit on a page hides something. The numbers are those of CONTRIBUTING.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.code import Function, name_of, python_files, text_of, tree_of

FUNCTION_LINES_MAX = 70
SOURCE_LINES_MAX = 600
TEST_LINES_MAX = 800
METHODS_MAX = 20

METHODS_EXEMPT = {
    "tests/property/test_workflow_machine.py: Runs": "a rule per input, which Hypothesis wants in one class",
}
SOURCES = ("src", "bench", "docs", "examples")


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """Its length without the classes that stand in it, whose methods are measured by themselves."""
    inner = [node for node in ast.walk(function) if isinstance(node, ast.ClassDef)]
    return length(function) - sum(map(length, inner))


def length(node: Function | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def methods() -> dict[str, int]:
    """Methods of each class, by file and class."""
    return {
        f"{name_of(path)}: {node.name}": sum(isinstance(child, Function) for child in node.body)
        for path in python_files(*SOURCES, "tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
    }


def test_no_function_is_longer_than_a_page() -> None:
    too_long = [
        f"{name_of(path)}:{node.lineno}: {node.name} has {lines} lines"
        for path in python_files(*SOURCES, "tests")
        for node in functions(path)
        if (lines := lines_of(node)) > FUNCTION_LINES_MAX
    ]
    assert not too_long, "\n".join(too_long)


def test_no_file_is_too_long() -> None:
    too_long = [
        f"{name_of(path)} has {lines} lines, at most {most}"
        for folders, most in ((SOURCES, SOURCE_LINES_MAX), (("tests",), TEST_LINES_MAX))
        for path in python_files(*folders)
        if (lines := len(text_of(path).splitlines())) > most
    ]
    assert not too_long, "\n".join(too_long)


def test_no_class_has_too_many_methods() -> None:
    too_many = [
        f"{place} has {count} methods, at most {METHODS_MAX}"
        for place, count in methods().items()
        if place not in METHODS_EXEMPT and count > METHODS_MAX
    ]
    assert not too_many, "\n".join(too_many)
