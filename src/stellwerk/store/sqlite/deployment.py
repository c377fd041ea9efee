"""The deployment room: its reads, and its writes as commands for the writer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import apsw

from stellwerk.core.errors import InvalidRequestError
from stellwerk.store.base import DeploymentRow, VersionRow
from stellwerk.store.queries import load_queries

_QUERIES: Final = load_queries(Path(__file__).with_name("queries") / "deployment.sql")
_SQL: Final = {name: query.sql for name, query in _QUERIES.items()}

VERSIONS_SERVING_MAX: Final = 2  # Cloudflare: a deployment splits traffic between at most two versions


# -- writes: run by the writing process, inside its transaction -------------------------------------------------------


def add_version(db: apsw.Connection, row: VersionRow) -> VersionRow:
    same = _versions(db, "same_version", (row.account_id, row.worker, row.config_hash))
    if same:
        return same[0]
    return _versions(
        db,
        "add_version",
        (
            row.account_id,
            row.worker,
            row.version_id,
            row.created_at,
            row.source,
            row.bundle,
            row.config,
            row.config_hash,
            row.message,
        ),
    )[0]


def add_deployment(db: apsw.Connection, row: DeploymentRow) -> None:
    check_split(row)
    number = db.execute(
        _SQL["add_deployment"],
        (row.account_id, row.worker, row.deployment_id, row.created_at, row.source, row.message),
    ).get
    if not isinstance(number, int):
        raise TypeError(f"a deployment got the number {number!r}")
    for position, (version_id, percentage) in enumerate(row.versions):
        db.execute(
            _SQL["add_deployment_version"],
            (row.account_id, row.worker, number, position, version_id, float(percentage)),
        )


def remove_worker(db: apsw.Connection, account_id: str, worker: str) -> bool:
    db.execute(_SQL["remove_deployments"], (account_id, worker))
    return db.changes() > 0


def check_split(row: DeploymentRow) -> None:
    """Raises ``InvalidRequestError`` unless one or two versions share 100 percent."""
    total = math.fsum(percentage for _, percentage in row.versions)
    if not 1 <= len(row.versions) <= VERSIONS_SERVING_MAX or not math.isclose(total, 100, abs_tol=0.01):
        raise InvalidRequestError(
            f"A deployment of {row.worker} names {len(row.versions)} versions with {total:g} percent.",
            cure="Name one or two versions whose percentages add up to 100.",
        )


# -- reads ------------------------------------------------------------------------------------------------------------


def version(db: apsw.Connection, version_id: str) -> VersionRow | None:
    rows = _versions(db, "version", (version_id,))
    return rows[0] if rows else None


def versions(db: apsw.Connection, account_id: str, worker: str) -> list[VersionRow]:
    return _versions(db, "versions", (account_id, worker))


def deployments(db: apsw.Connection, account_id: str, worker: str) -> list[DeploymentRow]:
    return _deployments(db.execute(_SQL["deployments"], (account_id, worker)).fetchall())


def current_deployments(db: apsw.Connection) -> list[DeploymentRow]:
    return _deployments(db.execute(_SQL["current_deployments"]).fetchall())


def _versions(db: apsw.Connection, query: str, bindings: tuple[str | int | bytes, ...]) -> list[VersionRow]:
    rows: list[Any] = db.execute(_SQL[query], bindings).fetchall()
    return [
        VersionRow(
            account_id=row[0],
            worker=row[1],
            version_id=row[2],
            number=row[3],
            created_at=row[4],
            source=row[5],
            bundle=row[6],
            config=row[7],
            config_hash=row[8],
            message=row[9],
        )
        for row in rows
    ]


def _deployments(rows: Iterable[Any]) -> list[DeploymentRow]:
    """One row per version comes in, the rows of a deployment next to each other."""
    found = []
    for head, lines in groupby(rows, key=lambda row: row[:6]):
        account_id, worker, deployment_id, created_at, source, message = head
        found.append(
            DeploymentRow(
                account_id=account_id,
                worker=worker,
                deployment_id=deployment_id,
                created_at=created_at,
                versions=tuple((line[6], line[7]) for line in lines),
                source=source,
                message=message,
            )
        )
    return found
