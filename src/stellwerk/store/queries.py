"""Named queries: SQL is source, kept in ``.sql`` files beside the store that speaks it, one file per room.

A query starts with ``-- name: some_name``; the comment lines right below it say what it does and why it is written
so. Both are required: a query without a reason does not load. The files are read once, at import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$")


class QueryFileError(ValueError):
    """A ``.sql`` file does not keep to the form. Ours to mend, never the user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One statement with its name and its reason."""

    name: str
    why: str
    sql: str


def load_queries(path: Path) -> Mapping[str, Query]:
    """All queries of one file by name. Raises ``QueryFileError`` for a double name, a missing reason or no SQL."""
    return parse_queries(path.read_text("utf-8"), source=path.name)


def parse_queries(text: str, *, source: str = "") -> Mapping[str, Query]:
    """As ``load_queries``, from text. ``source`` names the file in errors."""
    queries: dict[str, Query] = {}
    name, lines = "", list[str]()
    for line in [*text.splitlines(), "-- name: end"]:
        found = _NAME.match(line)
        if found is None:
            lines.append(line)
            continue
        if name:
            if name in queries:
                raise QueryFileError(f"{source}: the query {name} is there twice")
            queries[name] = _query(name, lines, source)
        name, lines = found[1], []
    return queries


def _query(name: str, lines: list[str], source: str) -> Query:
    reason = 0
    while reason < len(lines) and lines[reason].startswith("--"):
        reason += 1
    why = " ".join(line.removeprefix("--").strip() for line in lines[:reason]).strip()
    sql = "\n".join(lines[reason:]).strip().removesuffix(";")
    if not why:
        raise QueryFileError(f"{source}: the query {name} has no comment that says what it does and why")
    if not sql:
        raise QueryFileError(f"{source}: the query {name} has no SQL")
    return Query(name=name, why=why, sql=sql)
