"""SQL as source: every query has a name and a reason, uses the index it was written for, and migrations only grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import apsw.ext
import pytest
from tests.conformance.store.kit import NOW

from stellwerk.core.errors import StateFolderError
from stellwerk.store import sqlite
from stellwerk.store.migrate import Migration, load_migrations, pending_migrations
from stellwerk.store.queries import Query, QueryFileError, load_queries, parse_queries
from stellwerk.store.sqlite.connection import MIGRATIONS, open_database

ROOMS = sorted((Path(sqlite.__file__).parent / "queries").glob("*.sql"))
QUERIES = [query for room in ROOMS for query in load_queries(room).values()]
READ_WHOLE = {  # tables that stay small
    "live_versions": ["SCAN m"],
    "unfinished_on": ["SCAN m"],
    "current_deployments": ["SCAN d"],
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[apsw.Connection]:
    opened = open_database(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
    yield opened.writer
    opened.reader.close()
    opened.writer.close()


def plan(database: apsw.Connection, sql: str) -> list[str]:
    rows = database.execute(f"EXPLAIN QUERY PLAN {sql}", bindings=_nulls(database, sql)).fetchall()
    return [str(row[3]) for row in rows]


def _nulls(database: apsw.Connection, sql: str) -> tuple[None, ...]:
    """As many bindings as the statement has."""
    return (None,) * apsw.ext.query_info(database, sql).bindings_count


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_query_fits_the_schema_and_walks_no_large_table(database: apsw.Connection, query: Query) -> None:
    scans = [line for line in plan(database, query.sql) if line.startswith("SCAN")]
    tables = [line for line in scans if "VIRTUAL TABLE" not in line and "CONSTANT ROW" not in line]

    assert tables == READ_WHOLE.get(query.name, [])


@pytest.mark.parametrize("name", ["instances_of_status", "unfinished", "due", "next_wake_at", "journal"])
def test_what_is_read_in_order_is_stored_in_order(database: apsw.Connection, name: str) -> None:
    [query] = [query for query in QUERIES if query.name == name]

    assert [line for line in plan(database, query.sql) if "TEMP B-TREE" in line] == []


def test_appending_an_entry_touches_no_index_besides_the_key(database: apsw.Connection) -> None:
    indexes = database.execute("SELECT origin FROM pragma_index_list('journal')").fetchall()

    assert indexes == [("pk",)]


def test_all_tables_are_strict_and_user_data_is_keyed_by_account(database: apsw.Connection) -> None:
    tables = database.execute(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    of_the_node = {"meta", "holder", "wal_filler"}

    assert {name for name, strict in tables if not strict} == set()
    for name, _ in tables:
        if name in of_the_node:
            continue
        keys = database.execute(
            "SELECT i.name FROM pragma_index_list(?) AS l, pragma_index_info(l.name) AS i "
            "WHERE l.origin IN ('pk', 'u') AND i.seqno = 0",
            (name,),
        ).fetchall()
        assert ("account_id",) in keys, name


def test_a_query_needs_a_name_a_reason_and_sql() -> None:
    parsed = parse_queries(
        "-- Head.\n\n-- name: one\n-- What and\n-- why.\nSELECT 1;\n\n-- name: two\n-- Why.\nSELECT 2\n"
    )

    assert {name: (query.why, query.sql) for name, query in parsed.items()} == {
        "one": ("What and why.", "SELECT 1"),
        "two": ("Why.", "SELECT 2"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "-- name: one\nSELECT 1",
        "-- name: one\n-- Why.\n",
        "-- name: one\n-- Why.\nSELECT 1;\n-- name: one\n-- Why.\nSELECT 1;",
    ],
    ids=["no reason", "no sql", "twice"],
)
def test_a_query_file_that_does_not_keep_to_the_form_does_not_load(text: str) -> None:
    with pytest.raises(QueryFileError):
        parse_queries(text, source="room.sql")


def test_migrations_are_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_text("SELECT 1")
    (tmp_path / "0003_third.sql").write_text("SELECT 3")

    with pytest.raises(ValueError, match="without a gap"):
        load_migrations(tmp_path)


def test_a_stray_file_among_migrations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1_first.sql").write_text("SELECT 1")

    with pytest.raises(ValueError, match="1_first"):
        load_migrations(tmp_path)


def test_only_migrations_that_were_not_applied_are_pending() -> None:
    all_of_them = [Migration(number=number, name="x", sql="") for number in (1, 2, 3)]

    assert [m.number for m in pending_migrations(all_of_them, applied=1, where="db")] == [2, 3]
    assert list(pending_migrations(all_of_them, applied=3, where="db")) == []
    with pytest.raises(StateFolderError, match=r"9\.9\.9"):
        pending_migrations(all_of_them, applied=4, where="db", written_by="9.9.9")


def test_a_failed_migration_leaves_the_schema_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stellwerk.db"
    broken = Migration(number=2, name="broken", sql="CREATE TABLE halfway (a INTEGER) STRICT; SELECT no_such_column;")
    monkeypatch.setattr("stellwerk.store.sqlite.connection.MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(Exception, match="no_such_column"):
        open_database(path, owner="node-1", now_ms=NOW)
    monkeypatch.undo()

    opened = open_database(path, owner="node-1", now_ms=NOW)  # not refused as newer

    assert not opened.writer.table_exists("main", "halfway")
    opened.reader.close()
    opened.writer.close()
