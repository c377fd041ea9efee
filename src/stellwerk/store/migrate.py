"""Numbered migrations: which there are, and which a database still needs.

A migration is a file ``NNNN_what_it_does.sql``, numbered from 1 without a gap, never changed once released. The
number of the last one applied is the schema version of the database. A store applies each in one transaction together
with the new version, so that a crash leaves either the old schema or the new one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stellwerk.core.errors import StateFolderError

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step from schema version ``number - 1`` to ``number``."""

    number: int
    name: str
    sql: str


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """The migrations of a store, in order. Raises ``ValueError`` for a stray file or a gap in the numbers."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        named = _FILE.fullmatch(path.name)
        if named is None:
            raise ValueError(f"not a migration's name: {path.name}; expected 0001_what_it_does.sql")
        found.append(Migration(number=int(named[1]), name=named[2], sql=path.read_text("utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations in {folder.name} are not numbered 1, 2, ... without a gap")
    return tuple(found)


def pending_migrations(
    migrations: Sequence[Migration], *, applied: int, where: str, written_by: str = ""
) -> Sequence[Migration]:
    """What must be applied to a database whose schema version is ``applied``.

    Raises ``StateFolderError`` when the database is newer than this release: older code must not write into it.
    ``where`` and ``written_by`` (the release that wrote it, if known) go into the message.
    """
    if applied > len(migrations):
        release = f"Stellwerk {written_by}" if written_by else "a newer release of Stellwerk"
        raise StateFolderError(
            f"{where} has schema version {applied}, this release knows {len(migrations)}: it was written by {release}.",
            cure=f"Run {release} or newer on it; going back needs a backup from before the upgrade.",
        )
    return migrations[applied:]
