"""Calls that are banned, because each takes away something that the design depends on.

Time, chance and identity are arguments, so that a test can hold a day in its hand: only ``node/clock.py`` asks the
machine. Nothing blocks a loop. Nothing is unpickled. Where an exception stands, its reason stands beside it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.code import PACKAGE, name_of, python_files, tree_of

CLOCK = "node/clock.py"
BANNED: dict[str, dict[str, str]] = {
    "time.sleep": {
        "node/turn.py": "sleep(0) gives the store's writer thread the interpreter, once per turn",
        "store/state_folder.py": "waits for the processes of the node before, when no loop runs yet",
    },
    "time.time": {
        "cli/commands/doctor.py": "compares the machine's clock with the node's",
        "cli/commands/deploy.py": "a command has no clock but the machine's",
    },
    "time.time_ns": {
        CLOCK: "the node's clock",
        "isolate/logs.py": "when the user's program said it; tests pass their own",
        "isolate/workflow/attempts.py": "the time-out of an attempt, which runs on the isolate's loop",
        "sdk/js/_values.py": "Date.now() of the user's program",
        "sdk/workers/blob.py": "lastModified of a file that the user's program makes",
    },
    "time.monotonic": {"store/state_folder.py": "the deadline of the wait above"},
    "time.monotonic_ns": {CLOCK: "the node's clock", "isolate/loader.py": "how long the user's module took"},
    "datetime.now": {},
    "datetime.utcnow": {},
    "datetime.today": {},
    "date.today": {},
    "random.*": {CLOCK: "the node's chance"},
    "secrets.*": {
        "store/state_folder.py": "makes the token of the control plane, by a default argument",
        "sdk/js/__init__.py": "crypto.getRandomValues of the user's program",
        "sdk/workers/_multipart.py": "a boundary that no content contains by accident",
    },
    "uuid.*": {CLOCK: "the node's ids", "sdk/js/__init__.py": "crypto.randomUUID of the user's program"},
    "os.urandom": {},
    "pickle.*": {},
    "marshal.*": {},
    "shelve.*": {},
    "os.system": {},
    "eval": {},
    "exec": {"isolate/loader.py": "runs the user's main module; that is what an isolate is for"},
}


def dotted(node: ast.expr) -> str:
    """``time.sleep`` for the expression of that name; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def uses(path: Path) -> Iterator[tuple[str, int]]:
    """Names that are used, and names that are imported out of a module, with their lines. Own names do not count."""
    modules = {"time", "datetime", "random", "secrets", "uuid", "os", "pickle", "marshal", "shelve"}
    imported: set[str] = set()
    tree = tree_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name for alias in node.names}
            yield from ((f"{alias.name}.*", node.lineno) for alias in node.names if f"{alias.name}.*" in BANNED)
        elif isinstance(node, ast.ImportFrom) and node.module in modules and not node.level:
            imported |= {alias.asname or alias.name for alias in node.names}
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            if name.split(".")[0] in imported:
                yield name, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def matches(used: str, banned: str) -> bool:
    return used == banned or used.endswith(f".{banned}") or (banned.endswith("*") and used.startswith(banned[:-1]))


@pytest.mark.parametrize("banned", BANNED)
def test_nothing_is_called_that_is_banned(banned: str) -> None:
    allowed = {PACKAGE / place for place in BANNED[banned]}
    wrong = [
        f"{name_of(path)}:{line}: {used}"
        for path in python_files("src/stellwerk")
        if path not in allowed
        for used, line in uses(path)
        if matches(used, banned)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_needed() -> None:
    unneeded = [
        f"{banned} in {place}"
        for banned, places in BANNED.items()
        for place in places
        if not (PACKAGE / place).exists() or not any(matches(used, banned) for used, _ in uses(PACKAGE / place))
    ]
    assert not unneeded, f"take them out of the list: {unneeded}"


def test_a_banned_call_would_be_found(tmp_path: Path) -> None:
    program = tmp_path / "bad.py"
    program.write_text(
        "import time, random, pickle\nfrom datetime import datetime\nfrom uuid import uuid4\n"
        "time.sleep(1)\nrandom.random()\ndatetime.now()\nuuid4()\neval('1')\n"
    )
    found = [used for used, _ in uses(program)]
    for banned in ("time.sleep", "random.*", "pickle.*", "datetime.now", "uuid.*", "eval"):
        assert any(matches(used, banned) for used in found), banned
