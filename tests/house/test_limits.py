"""Every number that bounds something stands in ``core/limits.py``, is used, and says why it is what it is."""

from __future__ import annotations

import ast
import re

from tests.house.code import PACKAGE, name_of, python_files, text_of, tree_of

LIMITS = PACKAGE / "core" / "limits.py"
UNITS = {"KIB", "MIB"}
UNIT_IN_NAME = re.compile(r"_(MS|BYTES|MB|CHARS|MAX|COUNT)(_MAX)?$")
COUNTED_WITHOUT_UNIT = {
    # What is counted is the last word, or nothing else could be meant.
    "COLLECT_THRESHOLDS", "STEPS_PER_INSTANCE", "STEP_RETRIES", "ISOLATE_LOAD_SCALE_UP", "VERSIONS_KEPT", "PAGE_SIZE",
}  # fmt: skip


def limits() -> dict[str, str]:
    """The comment of each limit, by its name."""
    lines = text_of(LIMITS).splitlines()
    return {
        node.target.id: lines[(node.end_lineno or node.lineno) - 1].partition("  # ")[2]
        for node in tree_of(LIMITS).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_every_limit_says_why_it_is_what_it_is() -> None:
    found = limits()
    assert len(found) > 80
    assert {name for name, reason in found.items() if not reason} - UNITS == set()


def test_every_limit_is_used() -> None:
    used: set[str] = set()
    for path in python_files("src/stellwerk"):
        if path != LIMITS:
            used |= {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
            used |= {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert set(limits()) - used - UNITS == set()


def test_names_of_limits_carry_their_unit() -> None:
    bare = {name for name in limits() if not UNIT_IN_NAME.search(name)} - UNITS - COUNTED_WITHOUT_UNIT
    endings = {"BYTES", "MS", "CREDIT"}
    assert not {name for name in bare if not endings & set(name.split("_"))}


def test_no_limit_is_defined_twice() -> None:
    names = set(limits())
    twice = [
        f"{name_of(path)}: {target.id}"
        for path in python_files("src/stellwerk")
        if path != LIMITS
        for node in tree_of(path).body
        for target in _targets(node)
        if target.id in names
    ]
    assert not twice


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in targets if isinstance(target, ast.Name)]
