"""Each case of Cloudflare's suite is covered by a test, or stands in ``exclusions.toml`` with a reason: never both."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

CASES = range(1, 133)
HERE = Path(__file__).parent


def covered() -> set[int]:
    """The numbers in ``@covers(...)`` of every test in this folder."""
    numbers: set[int] = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "covers":
                numbers |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}  # type: ignore[misc]
    return numbers


def test_every_case_is_covered_or_excluded_with_a_reason_and_never_both() -> None:
    groups = tomllib.loads((HERE / "exclusions.toml").read_text())["excluded"]
    assert all(len(group["reason"]) > 20 for group in groups)
    excluded = Counter(number for group in groups for number in group["cases"])
    assert not [number for number, times in excluded.items() if times > 1]
    assert not covered() & set(excluded)
    assert covered() | set(excluded) == set(CASES)
