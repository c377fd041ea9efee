"""The parts of the documentation that are drawn from the code: ``make docs``, or ``python -m docs.generate``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything around it is written by
hand. ``tests/docs/test_generated.py`` draws them again and compares, so a table cannot be older than what it shows.
(``docs/cli.md`` is drawn as a whole by ``stellwerk.cli.reference``.)
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute, Mount, Route

import stellwerk.core
import stellwerk.node
import stellwerk.store
import stellwerk.wire
from stellwerk.core import errors, limits
from stellwerk.core.deployment.settings import render_settings_table
from stellwerk.core.deployment.wrangler_keys import render_key_table
from stellwerk.core.workflow.machine import ALLOWED
from stellwerk.core.workflow.status import MOVES, TERMINAL, Status
from stellwerk.node.api.app import build_app
from stellwerk.node.api.auth import OPEN_PATHS
from stellwerk.node.api.ports import Ports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "stellwerk"
PAGES = ("docs/api.md", "docs/configuration.md", "docs/errors.md", "docs/limits.md", "docs/workflows.md")
README = "src/stellwerk/README.md"
MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

WORKFLOW_LIMITS = (
    "STEPS_PER_INSTANCE", "STEPS_PER_INSTANCE_MAX", "STEP_OUTPUT_BYTES_MAX", "EVENT_PAYLOAD_BYTES_MAX",
    "EVENTS_BUFFERED_MAX", "BATCH_CREATE_MAX", "SLEEP_MS_MAX", "STEP_RETRIES", "STEP_RETRY_DELAY_MS",
    "DELAY_FUNCTION_TIMEOUT_MS", "INTERRUPTIONS_MAX", "RUN_INTERRUPTIONS_MAX", "NODE_INTERRUPTIONS_MAX",
    "SETTLE_CALLBACKS_MAX", "SOLO_ISOLATES_MAX", "RUNS_LIVE_MAX", "RUNS_QUEUED_MAX", "PARK_AFTER_MS",
)  # fmt: skip


# -- limits -----------------------------------------------------------------------------------------------------------


def limit_rooms() -> dict[str, list[tuple[str, str]]]:
    """Names and reasons of all limits, by the room that ``core/limits.py`` puts them in."""
    source = (PACKAGE / "core" / "limits.py").read_text("utf-8")
    lines = source.splitlines()
    rooms: dict[str, list[tuple[str, str]]] = {}
    room = ""
    starts = {node.lineno: node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)}
    for number, line in enumerate(lines, 1):
        if found := re.match(r"# -- ([^-]+) -", line):
            room = found[1]
        node = starts.get(number)
        if node is not None and room and isinstance(node.target, ast.Name):
            reason = lines[(node.end_lineno or number) - 1].partition("  # ")[2]
            rooms.setdefault(room, []).append((node.target.id, reason))
    return rooms


def render_limit(name: str) -> str:
    value = getattr(limits, name)
    return ", ".join(f"{one:,}" for one in value) if isinstance(value, tuple) else f"{value:,}"


def limit_table(rows: list[tuple[str, str]]) -> str:
    body = "".join(f"| `{name}` | {render_limit(name)} | {reason} |\n" for name, reason in rows)
    return f"| name | value | why |\n|---|---|---|\n{body}"


def all_limits() -> str:
    return "\n".join(f"## {room.capitalize()}\n\n{limit_table(rows)}" for room, rows in limit_rooms().items())


def workflow_limits() -> str:
    reasons = {name: reason for rows in limit_rooms().values() for name, reason in rows}
    return limit_table([(name, reasons[name]) for name in WORKFLOW_LIMITS])


# -- workflows --------------------------------------------------------------------------------------------------------


def status_diagram() -> str:
    """``core/workflow/status.py: MOVES`` as a diagram."""
    arrows = [f"    [*] --> {Status.QUEUED.value}"]
    for status, following in MOVES.items():
        arrows += [f"    {status.value} --> {other.value}" for other in Status if other in following]
    arrows += [f"    {status.value} --> [*]" for status in Status if status in TERMINAL]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(arrows) + "\n```\n"


def input_table() -> str:
    """``core/workflow/machine.py: ALLOWED``: which input may come in which status."""
    shown = [status for status in Status if any(status in allowed for allowed in ALLOWED.values())]
    head = "| input | " + " | ".join(status.value for status in shown) + " |\n" + "|---" * (len(shown) + 1) + "|\n"
    rows = (
        f"| `{kind.__name__}` | " + " | ".join("yes" if status in allowed else "" for status in shown) + " |\n"
        for kind, allowed in ALLOWED.items()
    )
    return head + "".join(rows)


# -- errors and routes ------------------------------------------------------------------------------------------------


def error_types() -> list[type[errors.StellwerkError]]:
    """The whole tree, whichever package a branch of it stands in."""
    for package in (stellwerk.core, stellwerk.wire, stellwerk.store, stellwerk.node):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(kind: type[errors.StellwerkError]) -> Iterator[type[errors.StellwerkError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    ours = {kind for kind in below(errors.StellwerkError) if kind.__module__.startswith("stellwerk.")}
    return sorted(ours, key=lambda kind: (kind.code, kind.__name__))


def first_sentence(thing: object) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<=[.!?]) (?=[A-Z])", text)[0] if text else ""


def error_table() -> str:
    rows = []
    for kind in error_types():
        own = first_sentence(kind)  # of its parent, when it has none of its own
        number = "" if kind.cloudflare_code is None else str(kind.cloudflare_code)
        again = "yes" if kind.retryable else ""
        rows.append(f"| `{kind.code}` | {kind.fault.value} | {kind.http_status} | {number} | {again} | {own} |\n")
    head = (
        "| code | who has to act | HTTP | Cloudflare's number | repeat may help | when |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(rows)


def routes() -> list[tuple[str, str, str]]:
    """Method, path and one sentence of every route of the control plane."""
    nothing: dict[str, Any] = {field.name: None for field in fields(Ports)}
    app: Any = build_app(Ports(**nothing))

    def walk(found: list[BaseRoute], prefix: str) -> Iterator[tuple[str, str, str]]:
        for route in found:
            if isinstance(route, Mount):
                yield from walk(list(route.routes), prefix + route.path)
            elif isinstance(route, Route):
                said = first_sentence(route.endpoint) or route.endpoint.__name__.replace("_", " ").capitalize() + "."
                for method in sorted((route.methods or set()) - {"HEAD"}):
                    yield method, prefix + route.path, said

    return list(walk(list(app.routes), ""))


def route_table() -> str:
    rows = (
        f"| `{method}` | `{path}` | {'' if path in OPEN_PATHS else 'yes'} | {said} |\n"
        for method, path, said in routes()
    )
    return "| method | path | token | |\n|---|---|---|---|\n" + "".join(rows)


# -- folders ----------------------------------------------------------------------------------------------------------

SDK = {
    "sdk": "AN IMPORT ROOT, not a package: what a user's Worker imports; imports nothing of ours.",
    "sdk/workers": "Cloudflare's SDK for Python Workers: Request, Response, fetch, entrypoints, bindings.",
    "sdk/js": "The part of Pyodide's `js` module that Workers use.",
    "sdk/pyodide": "The part of `pyodide` that Workers use.",
}


def folder_table() -> str:
    """A line per package, which is what its ``__init__.py`` says of itself."""
    lines = dict(SDK)
    for init in PACKAGE.rglob("__init__.py"):
        folder = init.parent.relative_to(PACKAGE).as_posix()
        if folder != "." and not folder.startswith("sdk"):
            lines[folder] = (ast.get_docstring(ast.parse(init.read_text("utf-8"))) or "").split("\n")[0]
    rows = "".join(f"| `{folder}/` | {line} |\n" for folder, line in sorted(lines.items()))
    return "| folder | its one job |\n|---|---|\n" + rows


PARTS: dict[str, Callable[[], str]] = {
    "errors": error_table,
    "folders": folder_table,
    "limits": all_limits,
    "routes": route_table,
    "settings": render_settings_table,
    "workflow-inputs": input_table,
    "workflow-limits": workflow_limits,
    "workflow-statuses": status_diagram,
    "wrangler-keys": render_key_table,
}


def refresh(page: str) -> str:
    """The page with its generated parts drawn anew. Raises ``KeyError`` for a part that nobody draws."""
    return MARKED.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", page)


def main() -> int:
    for name in (*PAGES, README):
        path = ROOT / name
        before = path.read_text("utf-8")
        after = refresh(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(f"drawn anew: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
