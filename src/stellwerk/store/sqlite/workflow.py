"""Reading the workflow room: rows of the database to the types of ``store/base.py``."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from stellwerk.core.errors import InvalidRequestError
from stellwerk.core.workflow.status import TAKEN_UP, Status
from stellwerk.store.base import InstanceRow, StoredRun
from stellwerk.store.queries import load_queries

_QUERIES: Final = load_queries(Path(__file__).with_name("queries") / "workflow.sql")
_SQL: Final = {name: query.sql for name, query in _QUERIES.items()}
_END: Final = 2**63 - 1  # later than every created_at: the first page begins here


def load_run(db: apsw.Connection, account_id: str, workflow: str, instance_id: str) -> StoredRun | None:
    row = instance(db, account_id, workflow, instance_id)
    if row is None:
        return None
    entries = db.execute(_SQL["journal"], (account_id, workflow, instance_id, row.incarnation))
    return StoredRun(row=row, journal=[_bytes(entry) for (entry,) in entries])


def instance(db: apsw.Connection, account_id: str, workflow: str, instance_id: str) -> InstanceRow | None:
    rows = _instances(db, "newest_instance", (account_id, workflow, instance_id))
    return rows[0] if rows else None


def instances(
    db: apsw.Connection, account_id: str, workflow: str, status: Status | None, limit: int, cursor: str
) -> tuple[list[InstanceRow], str]:
    """One more row than asked for tells whether there is a next page."""
    after = _parse_cursor(cursor)
    with db:  # all statuses as they are at one moment: what moves from one to another is seen once
        pages: list[list[Any]] = [
            db.execute(_SQL["instances_of_status"], (account_id, workflow, each, *after, limit + 1)).fetchall()
            for each in ((status,) if status else Status)
        ]
    newest = heapq.merge(*pages, key=lambda row: (row[8], row[2]), reverse=True)
    rows = [_instance(row) for row in islice(newest, limit + 1)]
    if len(rows) <= limit:
        return rows, ""
    last = rows[limit - 1]
    return rows[:limit], f"{last.created_at}.{last.instance_id}"


def unfinished(db: apsw.Connection, limit: int, cursor: str) -> tuple[list[InstanceRow], str]:
    """The cursor is where the last row stands in the index: status, account, manifest, number of the run."""
    status, account_id, manifest_id, run = cursor.split("\t") if cursor else (TAKEN_UP[0].value, "", "", "0")
    found: list[Any] = []
    for each in TAKEN_UP[TAKEN_UP.index(Status(status)) :]:
        left = limit - len(found)
        found += db.execute(_SQL["unfinished"], (each.value, account_id, manifest_id, int(run), left)).fetchall()
        if len(found) == limit:
            last = found[-1]
            return [_instance(row) for row in found], "\t".join((last[4], last[0], last[17], str(last[18])))
        account_id, manifest_id, run = "", "", "0"
    return [_instance(row) for row in found], ""


def due(db: apsw.Connection, now_ms: int, limit: int) -> list[InstanceRow]:
    return _instances(db, "due", (now_ms, limit))


def next_wake_at(db: apsw.Connection) -> int | None:
    found: int | None = db.execute(_SQL["next_wake_at"]).get  # a column with NOT NULL in its index, STRICT integer
    return found


def status_counts(db: apsw.Connection, account_id: str) -> dict[tuple[str, Status], int]:
    rows: list[Any] = db.execute(_SQL["status_counts"], (account_id,)).fetchall()
    return {(workflow, Status(status)): count for workflow, status, count in rows}


def unfinished_on(db: apsw.Connection, version_id: str) -> int:
    return int(db.execute(_SQL["unfinished_on"], (version_id,)).get)


def live_versions(db: apsw.Connection) -> set[str]:
    rows: list[Any] = db.execute(_SQL["live_versions"]).fetchall()
    return {version_id for (version_id,) in rows}


def blobs(db: apsw.Connection, account_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
    wanted = msgspec.json.encode(list(hashes)).decode()
    rows: list[Any] = db.execute(_SQL["blobs"], (account_id, wanted)).fetchall()
    return {sha256: _bytes(data) for sha256, data in rows}


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes in the database, found {type(value).__name__}")
    return value


def _parse_cursor(cursor: str) -> tuple[int, str]:
    if not cursor:
        return _END, ""
    created_at, dot, instance_id = cursor.partition(".")
    if not dot or not created_at.isascii() or not created_at.isdigit() or len(created_at) > 18:
        raise InvalidRequestError(f"{cursor!r} is not a cursor.", cure="Take it from the answer of the page before.")
    return int(created_at), instance_id


def _instances(db: apsw.Connection, query: str, bindings: tuple[str | int, ...]) -> list[InstanceRow]:
    rows: list[Any] = db.execute(_SQL[query], bindings).fetchall()
    return [_instance(row) for row in rows]


def _instance(row: Any) -> InstanceRow:
    """STRICT tables have checked every column's type when it was written."""
    return InstanceRow(
        account_id=row[0],
        workflow=row[1],
        instance_id=row[2],
        incarnation=row[3],
        status=Status(row[4]),
        worker=row[5],
        version_id=row[6],
        class_name=row[7],
        created_at=row[8],
        modified_at=row[9],
        started_at=row[10],
        ended_at=row[11],
        wake_at=row[12],
        owner=row[13],
        epoch=row[14],
        lease_expires_at=row[15],
        versions=msgspec.json.decode(row[16], type=tuple[str, ...]) if row[16] else (),
    )
