"""What commands print: tables and colours in a terminal, tab-separated plain lines elsewhere, JSON when asked for.

Results go to standard output, everything else to standard error, so that a pipe sees results only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stellwerk.cli.exits import CommandError

_STYLES = {
    "complete": "green",
    "ok": "green",
    "running": "cyan",
    "waiting": "blue",
    "warning": "yellow",
    "errored": "red",
    "failed": "red",
    "error": "red",
    "terminated": "magenta",
}
_UUID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b[0-9]{4}-([0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}:[0-9]{2})\.[0-9]{3}Z")
_CELL_MAX = 60  # characters of a value in a table; --json shows all of it


class Output:
    """Where a command's result goes, and in which form."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, soft_wrap=not self._terminal)

    def json(self, value: Any) -> None:
        """One JSON document on one line."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
        """Rows under their columns. Without a terminal: a line of names, then a line per row, separated by tabs."""
        if not self._terminal:
            for row in (columns, *rows):
                sys.stdout.write("\t".join(_flat(cell) for cell in row) + "\n")
            return
        if not rows:
            self._console.print(Text(empty, style="dim"))
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, no_wrap=not index, overflow="fold")  # what a row is called is never cut
        for name, *cells in rows:
            table.add_row(_styled(name, limit=None), *(_styled(_short(cell)) for cell in cells))
        self._console.print(table)

    def record(self, pairs: Sequence[tuple[str, Any]]) -> None:
        """Named values, one a line; empty ones are left out."""
        shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            if self._terminal:
                self._console.print(Text.assemble((f"{name:<{width}}  ", "bold"), _styled(value, limit=None)))
            else:
                sys.stdout.write(f"{name}\t{_flat(value)}\n")

    def line(self, text: str = "") -> None:
        if self._terminal:
            self._console.print(Text(_printable(text)))
        else:
            sys.stdout.write(_printable(text) + "\n")

    def note(self, text: str) -> None:
        """Something that stops nothing, on standard error."""
        sys.stderr.write(_printable(text) + "\n")


def print_error(error: CommandError, *, as_json: bool) -> None:
    """Cause and cure on standard error."""
    if as_json:
        shown = {"error": {"code": error.code, "message": error.message, "cure": error.cure, "exit": error.exit_code}}
        sys.stderr.write(json.dumps(shown, ensure_ascii=False, separators=(",", ":")) + "\n")
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), _printable(error.message)))
    if error.cure:
        console.print(Text.assemble(("  cure: ", "bold"), _printable(error.cure)))


def _styled(cell: Any, *, limit: int | None = _CELL_MAX) -> Text:
    text = _flat(cell)
    if limit is not None and len(text) > limit:
        text = text[: limit - 3] + "..."
    return Text(text, style=_STYLES.get(text, ""))


def _short(cell: Any) -> Any:
    """For eyes: the first part of a UUID, a time without year and milliseconds. Programs get all of it."""
    if not isinstance(cell, str):
        return cell
    text = _UUID.sub(r"\1", cell)
    return _TIME.sub(r"\1 \2", text)


def _flat(cell: Any) -> str:
    """A value on one line: text as it is without control characters, everything else as JSON."""
    if cell is None:
        return "-"
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    return _printable(text).replace("\n", " ")


def _printable(text: str) -> str:
    """Without control characters: what a node or a Worker says must not drive the operator's terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def elapsed(start: str | None, end: str | None) -> str:
    """The time between two ISO times, short: ``12 ms``, ``3.2 s``, ``4 min``."""
    if not start or not end:
        return "-"
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
