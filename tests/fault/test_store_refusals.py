"""What the store will not open: files of others, damaged ones, newer ones, settings that were not honoured."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import apsw
import pytest
from tests.conformance.store.kit import NOW, an_entry, an_instance, record

from stellwerk import __version__
from stellwerk.core.errors import StateFolderError, StorageError
from stellwerk.store.base import Decision
from stellwerk.store.sqlite import connection as connection_module
from stellwerk.store.sqlite.connection import MIGRATIONS, WAL_FILLER_BYTES
from stellwerk.store.sqlite.store import SqliteStore

COMMIT_P99_MAX_S = 0.050
BUSY_S = 1.0
TURN_S = 0.0001
ROWS_PER_S = 10_000


def opened_and_closed(path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(path, owner="node-1", now_ms=NOW)
        await record(store, Decision([an_entry(0)], create=an_instance()))
        await store.close()

    asyncio.run(scenario())


def refusal(path: Path) -> StateFolderError:
    before = path.read_bytes()
    with pytest.raises(StateFolderError) as caught:
        opened_and_closed(path)
    assert path.read_bytes() == before, "a refused file must not be touched"
    return caught.value


def test_a_file_of_a_newer_release_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "stellwerk.db"
    opened_and_closed(path)
    database = apsw.Connection(str(path))
    database.pragma("user_version", len(MIGRATIONS) + 1)
    database.execute("UPDATE meta SET value = '99.1' WHERE key = 'release'")
    database.close()

    error = refusal(path)

    assert "99.1" in str(error)
    assert f"knows {len(MIGRATIONS)}" in str(error)


def test_a_newer_file_without_a_readable_release_is_refused_as_well(tmp_path: Path) -> None:
    path = tmp_path / "stellwerk.db"
    opened_and_closed(path)
    database = apsw.Connection(str(path))
    database.pragma("user_version", len(MIGRATIONS) + 1)
    database.execute("DROP TABLE meta")
    database.close()

    assert "newer release" in str(refusal(path))


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stellwerk.db"
    database = apsw.Connection(str(path))
    database.execute("CREATE TABLE theirs (a INTEGER)")
    database.close()

    assert "another program" in str(refusal(path))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stellwerk.db"
    path.write_bytes(b"This is a letter, not a database. " * 1_000)

    assert "not a database" in str(refusal(path))


def test_a_file_with_a_damaged_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stellwerk.db"
    opened_and_closed(path)
    with path.open("r+b") as file:
        file.seek(100)  # right behind the header: the root of the schema
        file.write(os.urandom(400))

    assert "damaged" in str(refusal(path))


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    """A crash between the making of the file and its first migration leaves one."""
    path = tmp_path / "stellwerk.db"
    path.touch()

    opened_and_closed(path)

    database = apsw.Connection(str(path))
    assert database.execute("SELECT value FROM meta WHERE key = 'release'").get == __version__
    assert database.pragma("application_id") == connection_module.APPLICATION_ID
    database.close()


def test_a_folder_that_is_not_there_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Check that the folder exists"):
        opened_and_closed(tmp_path / "nowhere" / "stellwerk.db")


@pytest.mark.parametrize(("pragma", "impossible"), [("synchronous", 9), ("page_size", 1000), ("journal_mode", "off")])
def test_a_setting_that_is_not_honoured_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, impossible: int | str
) -> None:
    """Asked for something that SQLite quietly ignores or answers otherwise, reading back must notice."""
    path = tmp_path / "stellwerk.db"
    opened_and_closed(path)
    wanted = {**connection_module._WANTED, pragma: impossible}
    honoured = apsw.Connection.pragma

    class Stubborn(apsw.Connection):
        def pragma(self, name: str, *args: object, **kwargs: object) -> object:
            return None if args and name == pragma else honoured(self, name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(connection_module, "_WANTED", wanted)
    monkeypatch.setattr(apsw, "Connection", Stubborn)

    with pytest.raises(StorageError, match=f"does not honour {pragma}"):
        opened_and_closed(path)


def test_the_settings_are_the_durable_ones(tmp_path: Path) -> None:
    async def scenario() -> dict[str, str | int]:
        store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
        log_bytes = (tmp_path / "stellwerk.db-wal").stat().st_size
        settings = store.settings
        await store.close()
        assert log_bytes >= WAL_FILLER_BYTES, "the log must have its size before the first commit"
        return settings

    settings = asyncio.run(scenario())

    assert (settings["journal_mode"], settings["synchronous"], settings["page_size"]) == ("wal", 2, 4096)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stellwerk.db"], "closing folds the log into the file"


def test_commits_stay_quick_while_the_event_loop_is_fully_busy(tmp_path: Path) -> None:
    """A loop that never idles would starve a thread for seconds: what writes is a process."""
    times: list[float] = []

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
        await record(store, Decision(create=an_instance()))
        begun, seq = time.perf_counter(), 0
        while (now := time.perf_counter()) < begun + BUSY_S:
            due = int((now - begun) * ROWS_PER_S)
            store.submit([Decision([an_entry(number)], done=noting(now)) for number in range(seq, due)])
            seq = due
            while time.perf_counter() < now + TURN_S:
                pass
            await asyncio.sleep(0)
        await record(store, Decision([an_entry(seq)]))
        await store.close()

    def noting(submitted: float):  # type: ignore[no-untyped-def]
        return lambda error: times.append(time.perf_counter() - submitted if error is None else 60.0)

    asyncio.run(scenario())
    times.sort()

    assert len(times) > ROWS_PER_S * BUSY_S / 2
    assert times[int(len(times) * 0.99)] < COMMIT_P99_MAX_S
