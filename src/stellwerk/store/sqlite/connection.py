"""Opening the database file: ours or not, how durable, which schema, and whose.

Order matters. Nothing is written before the file has proved to be ours and not newer than this code. Then the settings
that the promise "acknowledged means on disk" rests on are made *and read back*: SQLite ignores a pragma that it cannot
honour, and a store that is quietly less durable than it says is worse than none.

The numbers were measured (``bench/store_commit.py``): 1,000 pages between checkpoints keep the worst commit at 3 to 4
ms, ten thousand make it 14; larger pages and mmap gain nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from stellwerk import __version__
from stellwerk.core.errors import StateFolderError, StorageError
from stellwerk.store.migrate import load_migrations, pending_migrations

APPLICATION_ID: Final = 0x53744C77  # "StLw": says to file(1), and to us, whose file it is
MIGRATIONS: Final = load_migrations(Path(__file__).with_name("migrations"))

PAGE_BYTES: Final = 4096
CHECKPOINT_PAGES: Final = 1000
CACHE_KIB: Final = 16 * 1024  # SQLite walks all of it once per commit; what it does not hold, the kernel does
STATEMENTS_CACHED = 256  # one per number of rows that a group has, besides the named ones
BUSY_TIMEOUT_MS: Final = 5_000  # only a foreign process (a backup) can hold the write lock
WAL_FILLER_BYTES: Final = CHECKPOINT_PAGES * PAGE_BYTES

_WANTED: Final[dict[str, str | int]] = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: an fsync per commit
    "page_size": PAGE_BYTES,
    "wal_autocheckpoint": CHECKPOINT_PAGES,
    "cache_size": -CACHE_KIB,
    "mmap_size": 0,
    "foreign_keys": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The two connections of an open store, and what was found out on the way."""

    writer: apsw.Connection
    reader: apsw.Connection
    epoch: int
    settings: dict[str, str | int]


def open_database(path: Path, *, owner: str, now_ms: int) -> Opened:
    """Opens or creates the file, migrates it, makes ``owner`` its holder with a new epoch, and grows the WAL.

    Raises ``StateFolderError`` for a file that is not ours, is damaged, or is newer than this release, and
    ``StorageError`` when the machine fails or does not honour a durability setting. Blocks for some milliseconds.
    """
    created = not path.exists()
    writer = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    reader: apsw.Connection | None = None
    try:
        _refuse_foreign(writer, path)
        settings = _configure(writer)
        _migrate(writer, path)
        epoch = _take_over(writer, owner, now_ms)
        _grow_wal(writer)
        if created:
            _sync_folder(path.parent)
        reader = open_reader(path)
    except BaseException as error:
        writer.close()
        if reader is not None:
            reader.close()
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            raise _not_ours(path, f"is damaged or not a database ({error})") from error
        if isinstance(error, apsw.Error):
            raise StorageError(
                f"{path} cannot be opened: {error}.", cure="Check the disk and its free space."
            ) from error
        raise
    return Opened(writer=writer, reader=reader, epoch=epoch, settings=settings)


def reopen_writer(path: Path) -> apsw.Connection:
    """A fresh connection after a failed commit. The epoch stays: the holder is the same. Raises ``apsw.Error``."""
    writer = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        _configure(writer)
    except BaseException:
        writer.close()
        raise
    return writer


def open_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write. Each of its transactions sees everything committed before it began."""
    reader = _connect(path, apsw.SQLITE_OPEN_READONLY)
    reader.pragma("cache_size", -CACHE_KIB)
    reader.pragma("mmap_size", 0)
    return reader


def _connect(path: Path, flags: int) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), flags=flags, statementcachesize=STATEMENTS_CACHED)
    except apsw.Error as error:
        raise StorageError(
            f"{path} cannot be opened: {error}.", cure="Check that the folder exists and belongs to this user."
        ) from error
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _number(connection: apsw.Connection, pragma: str) -> int:
    value = connection.pragma(pragma)
    if not isinstance(value, int):
        raise StorageError(f"SQLite answers {value!r} for {pragma}.")
    return value


def _not_ours(path: Path, what: str) -> StateFolderError:
    return StateFolderError(
        f"{path} {what}.", cure="Name another state folder, or restore this one from a backup; nothing was changed."
    )


def _refuse_foreign(writer: apsw.Connection, path: Path) -> None:
    """Reads only. A file without any table is new: a crash may have left it before its first migration."""
    application_id = _number(writer, "application_id")
    tables = writer.execute("SELECT count(*) FROM sqlite_schema").get
    if application_id != APPLICATION_ID and (application_id or tables):
        raise _not_ours(path, f"is a SQLite database of another program (application id {application_id:#x})")
    version = _number(writer, "user_version")
    if version > len(MIGRATIONS):
        pending_migrations(MIGRATIONS, applied=version, where=str(path), written_by=_release(writer))


def _release(writer: apsw.Connection) -> str:
    """The release that wrote the file, or "" when that cannot be read in a schema we do not know."""
    try:
        return str(writer.execute("SELECT value FROM meta WHERE key = 'release'").get or "")
    except apsw.Error:
        return ""


def _configure(writer: apsw.Connection) -> dict[str, str | int]:
    """Makes the settings and reads them back. Page size first: it is fixed once WAL has written a page."""
    for pragma in ("page_size", "journal_mode", "synchronous", "wal_autocheckpoint", "cache_size", "mmap_size"):
        writer.pragma(pragma, _WANTED[pragma])
    writer.pragma("foreign_keys", 1)
    found = {pragma: writer.pragma(pragma) for pragma in _WANTED}
    for pragma, wanted in _WANTED.items():
        if found[pragma] != wanted:
            raise StorageError(
                f"SQLite does not honour {pragma} = {wanted}; it says {found[pragma]!r}.",
                cure="The state folder must be on a local file system with shared memory and locks.",
            )
    return {**_WANTED, "sqlite_version": apsw.sqlite_lib_version(), "engine": "sqlite"}


def _migrate(writer: apsw.Connection, path: Path) -> None:
    applied = _number(writer, "user_version")
    for migration in pending_migrations(MIGRATIONS, applied=applied, where=str(path)):
        writer.execute("BEGIN IMMEDIATE")
        try:
            writer.execute(migration.sql)
            writer.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('release', ?)", (__version__,))
            writer.pragma("application_id", APPLICATION_ID)
            writer.pragma("user_version", migration.number)
        except BaseException:
            writer.execute("ROLLBACK")
            raise
        writer.execute("COMMIT")


def _take_over(writer: apsw.Connection, owner: str, now_ms: int) -> int:
    epoch = writer.execute(
        "INSERT INTO holder (id, owner, epoch, held_since) VALUES (1, ?1, 1, ?2) "
        "ON CONFLICT (id) DO UPDATE SET owner = ?1, epoch = epoch + 1, lease_expires_at = NULL, held_since = ?2 "
        "RETURNING epoch",
        (owner, now_ms),
    ).get
    if not isinstance(epoch, int):
        raise StorageError("The holder's row could not be written.")
    return epoch


def _grow_wal(writer: apsw.Connection) -> None:
    """Writes the WAL to its working size once and resets it. Random, since SQLite skips pages that do not change."""
    writer.execute(
        "INSERT INTO wal_filler (id, filler) VALUES (1, randomblob(?1)) "
        "ON CONFLICT (id) DO UPDATE SET filler = excluded.filler",
        (WAL_FILLER_BYTES,),
    )
    writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _sync_folder(folder: Path) -> None:
    """Makes the new file's name durable; SQLite does that for its journals only."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
