"""The SQLite back end of the store."""

from stellwerk.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
