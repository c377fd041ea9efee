"""One group of writes in one transaction: what is written, in which order, and who fails for what.

Two ways to write the same thing. The *fast* way gathers the rows of all decisions and binds them with one
``executemany`` per statement: per row Python does next to nothing. It is taken when the order of statements cannot
matter. The *careful* way writes decision by decision, each under its own savepoint: after a constraint violation (to
find the guilty one), for restarts (the old life must end before the new one begins) and for commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import apsw
import msgspec

from stellwerk.core import limits
from stellwerk.core.errors import InstanceExistsError, StellwerkError, StorageError
from stellwerk.store.base import InstanceRow, VersionRow
from stellwerk.store.queries import load_queries
from stellwerk.store.sqlite import deployment
from stellwerk.store.sqlite.messages import (
    AddDeployment,
    AddVersion,
    FencedError,
    Record,
    RemoveWorker,
    Unsendable,
    Write,
)

_SQL: Final = load_queries(Path(__file__).with_name("queries") / "workflow.sql")
_APPEND: Final = _SQL["append_entry"].sql
_FIND_RUN: Final = _SQL["find_run"].sql
_LAST_RUN: Final = _SQL["last_run"].sql
_ADD_MANIFEST: Final = _SQL["add_manifest"].sql
_CREATE: Final = _SQL["create_instance"].sql
_SUPERSEDE: Final = _SQL["supersede_incarnation"].sql
_UPDATE: Final = _SQL["update_instance"].sql
_ADD_BLOB: Final = _SQL["add_blob"].sql

GUILTY: Final = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.BindingsError,
    TypeError,
    ValueError,
    OverflowError,
)
"""Errors that lie in one decision's data. Everything else is the machine's, and the whole group fails."""

MANIFESTS_REMEMBERED_MAX: Final = 10_000  # distinct sets of versions; then the memory starts anew
RUNS_REMEMBERED_MAX: Final = 2 * limits.RUNS_LIVE_MAX  # likewise; a run looked up again costs one index probe
RUNS_PER_EPOCH_BITS: Final = 40  # a run's number is the holder's epoch and a counter: in order, unique, never asked for

RunKey = tuple[str, str, str, int]
Row = Sequence[Any]  # as it came from the node, to be bound; SQLite looks at its types


class _Run:
    """A run whose journal grows. ``seq`` is the number of its next entry."""

    __slots__ = ("number", "seq")

    def __init__(self, number: int, seq: int) -> None:
        self.number, self.seq = number, seq


Failures = dict[int, StellwerkError]
"""Place in the group -> why that one failed."""
Results = dict[int, VersionRow | bool | None]
"""Place in the group -> what a command answers."""
Latecomers = Callable[[], list[Record]]
"""Plain decisions (``is_plain``) that may join a group which is about to be committed."""


class GroupWriter:
    """Writes groups over one connection."""

    def __init__(self, *, epoch: int) -> None:
        self._epoch = epoch
        self._manifest_ids: dict[tuple[str, tuple[str, ...]], str] = {}
        self._manifests_stored: set[tuple[str, str]] = set()
        self._runs: dict[RunKey, _Run] = {}
        self._next_run = (epoch << RUNS_PER_EPOCH_BITS) + 1

    def number_after(self, db: apsw.Connection) -> None:
        """Numbers further runs behind those that are in the file: a writer before this one may have had the epoch."""
        last = db.execute(_LAST_RUN).get
        if isinstance(last, int):
            self._next_run = max(self._next_run, last + 1)

    def write(self, db: apsw.Connection, group: list[Write], latecomers: Latecomers = list) -> tuple[Failures, Results]:
        """Writes and commits. Returns who failed alone, and what commands answer; the others are on disk.

        ``latecomers`` tells, just before the commit, which decisions have come meanwhile: they join ``group``, and so
        are spared a commit of their own. Raises when nothing of the group is on disk, or nobody can know: then the
        connection must not be used again.
        """
        db.execute("BEGIN IMMEDIATE")
        self._check_fence(db)
        results: Results = {}
        if is_plain(group):
            try:
                failures = self._write_fast(db, cast(list[Record], group), 0)
                if late := latecomers():
                    place = len(group)
                    group += late
                    failures |= self._write_fast(db, late, place)
            except GUILTY:
                db.execute("ROLLBACK")
                self.forget()
                db.execute("BEGIN IMMEDIATE")
                self._check_fence(db)
                failures = self._write_carefully(db, group, results)
        else:
            failures = self._write_carefully(db, group, results)
        db.execute("COMMIT")
        return failures, results

    def forget(self) -> None:
        """After a rollback: what was believed to be stored may not be."""
        self._manifests_stored.clear()
        self._runs.clear()

    def _check_fence(self, db: apsw.Connection) -> None:
        """In the same transaction as the writes, so no other holder can come between."""
        epoch = db.execute("SELECT epoch FROM holder WHERE id = 1").get
        if epoch != self._epoch:
            raise FencedError(
                f"Another node has taken this state over (epoch {epoch}, ours is {self._epoch}).",
                cure="Stop this node: whatever it still does is not recorded.",
            )

    # -- fast ---------------------------------------------------------------------------------------------------------

    def _write_fast(self, db: apsw.Connection, group: Sequence[Record], first_place: int) -> Failures:
        failures: Failures = {}
        rows: list[Row] = []
        updates: list[Row] = []
        for place, record in enumerate(group, first_place):
            if record.create is not None and not self._create(db, record.create):
                failures[place] = InstanceExistsError(record.create.instance_id)
                continue
            rows += record.journal
            if record.update is not None:
                updates.append(record.update)
            if record.blobs:
                db.executemany(_ADD_BLOB, record.blobs)
        if rows:
            db.executemany(_APPEND, self._entries(db, rows))
        if updates:
            before = db.total_changes()
            db.executemany(_UPDATE, [self._numbered(db, update) for update in updates])
            if db.total_changes() - before != len(updates):
                raise ValueError("an update found no row")  # found again, by name, the careful way
            self._forget_ended(updates)
        return failures

    # -- careful ------------------------------------------------------------------------------------------------------

    def _write_carefully(self, db: apsw.Connection, group: Sequence[Write], results: Results) -> Failures:
        failures: Failures = {}
        for place, write in enumerate(group):
            db.execute("SAVEPOINT one")
            try:
                if isinstance(write, Record):
                    self._write_one(db, write)
                else:
                    results[place] = _apply(db, write)
            except (*GUILTY, StellwerkError) as error:
                db.execute("ROLLBACK TO one")
                self.forget()
                failures[place] = _named(error)
            db.execute("RELEASE one")
        return failures

    def _write_one(self, db: apsw.Connection, record: Record) -> None:
        if record.blobs:
            db.executemany(_ADD_BLOB, record.blobs)
        if record.update is not None:
            db.execute(_UPDATE, self._numbered(db, record.update))
            if db.changes() != 1:
                raise StorageError(
                    f"Instance {record.update[7]} of {record.update[6]} has no unfinished incarnation "
                    f"{record.update[8]} to update.",
                    cure="Load the run again; its status is terminal, or it was never created.",
                )
        if record.create is not None:
            self._supersede(db, record.create)
            if not self._create(db, record.create):
                raise InstanceExistsError(record.create.instance_id)
        if record.journal:
            db.executemany(_APPEND, self._entries(db, record.journal))

    def _supersede(self, db: apsw.Connection, row: InstanceRow) -> None:
        if row.incarnation == 1:
            return
        db.execute(_SUPERSEDE, (row.account_id, row.workflow, row.instance_id, row.incarnation - 1))
        if db.changes() != 1:
            raise StorageError(
                f"Instance {row.instance_id} of {row.workflow} has no incarnation {row.incarnation - 1} to follow.",
            )

    # -- both ---------------------------------------------------------------------------------------------------------

    def _create(self, db: apsw.Connection, row: InstanceRow) -> bool:
        """False when the id is taken."""
        epoch = row.epoch or (self._epoch if row.owner else 0)
        run = self._next_run
        db.execute(
            _CREATE,
            (
                run,
                row.account_id,
                row.workflow,
                row.instance_id,
                row.incarnation,
                row.status,
                row.worker,
                row.version_id,
                row.class_name,
                self._manifest(db, row),
                row.created_at,
                row.modified_at,
                row.started_at,
                row.ended_at,
                row.wake_at,
                row.owner,
                epoch,
                row.lease_expires_at,
            ),
        )
        if db.changes() != 1:
            return False
        self._next_run += 1
        self._remember(row.account_id, row.workflow, row.instance_id, row.incarnation, _Run(run, 0))
        return True

    def _remember(self, account_id: str, workflow: str, instance_id: str, incarnation: int, run: _Run) -> None:
        if len(self._runs) >= RUNS_REMEMBERED_MAX:
            self._runs.clear()
        self._runs[account_id, workflow, instance_id, incarnation] = run

    def _entries(self, db: apsw.Connection, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        """The rows as the journal keeps them: under the number of their run. Hot: once per entry.

        Raises ``_HoleError`` for an entry that does not follow the last one. An owner may have handed over its next
        decision before it hears that the one before was not written; that next one must fail as well, or the journal
        would have a hole that no later node can read or fill.
        """
        runs, found = self._runs, []
        for account_id, workflow, instance_id, incarnation, seq, at, entry in rows:
            run = runs.get((account_id, workflow, instance_id, incarnation))
            if run is None:
                run = self._find_run(db, account_id, workflow, instance_id, incarnation)
            if seq != run.seq:
                raise _HoleError(f"entry {seq} of instance {instance_id} of {workflow} comes where {run.seq} is next")
            run.seq = seq + 1
            found.append((account_id, run.number, seq, at, entry))
        return found

    def _numbered(self, db: apsw.Connection, update: Row) -> tuple[Any, ...]:
        """The update with its run's number in place of its key."""
        status, modified_at, started_at, ended_at, wake_at, account_id, workflow, instance_id, incarnation = update
        run = self._runs.get((account_id, workflow, instance_id, incarnation))
        if run is None:
            run = self._find_run(db, account_id, workflow, instance_id, incarnation)
        return (status, modified_at, started_at, ended_at, wake_at, run.number)

    def _find_run(
        self, db: apsw.Connection, account_id: str, workflow: str, instance_id: str, incarnation: int
    ) -> _Run:
        found = db.execute(_FIND_RUN, (account_id, workflow, instance_id, incarnation)).get
        if not isinstance(found, tuple):
            raise ValueError(f"there is no incarnation {incarnation} of instance {instance_id} of {workflow}")
        run = _Run(*found)
        self._remember(account_id, workflow, instance_id, incarnation, run)
        return run

    def _forget_ended(self, updates: Sequence[Row]) -> None:
        """So that the memory holds live runs, not all that ever were."""
        for update in updates:
            if update[3] is not None:
                self._runs.pop(cast(RunKey, tuple(update[5:])), None)

    def _manifest(self, db: apsw.Connection, row: InstanceRow) -> str:
        """The id of the row's set of versions; stored if this writer has not stored it yet."""
        versions = row.versions or (row.version_id,)
        manifest_id = self._manifest_ids.get((row.account_id, versions))
        if manifest_id is None:
            text = msgspec.json.encode(sorted(set(versions)))
            manifest_id = hashlib.sha256(text).hexdigest()[:32]
            if len(self._manifest_ids) >= MANIFESTS_REMEMBERED_MAX:
                self._manifest_ids.clear()
                self._manifests_stored.clear()
            self._manifest_ids[row.account_id, versions] = manifest_id
        if (row.account_id, manifest_id) not in self._manifests_stored:
            text = msgspec.json.encode(sorted(set(versions)))
            db.execute(_ADD_MANIFEST, (row.account_id, manifest_id, text.decode()))
            self._manifests_stored.add((row.account_id, manifest_id))
        return manifest_id


class _HoleError(ValueError):
    """An entry does not follow the last one of its journal."""


def is_plain(group: Iterable[Write]) -> bool:
    """Whether it may be written the fast way: no command, no restart. A plain loop: this is the hot path."""
    for write in group:
        if type(write) is not Record or (write.create is not None and write.create.incarnation != 1):
            return False
    return True


def _apply(db: apsw.Connection, write: Write) -> VersionRow | bool | None:
    match write:
        case AddVersion(row=version):
            return deployment.add_version(db, version)
        case AddDeployment(row=split):
            deployment.add_deployment(db, split)
        case RemoveWorker(account_id=account_id, worker=worker):
            return deployment.remove_worker(db, account_id, worker)
        case Unsendable(reason=reason):
            raise ValueError(reason)
    return None


def _named(error: Exception) -> StellwerkError:
    if isinstance(error, StellwerkError):
        return error
    failed = StorageError(
        f"The store refused this write alone: {error}.", cure="Load the run again, then decide again."
    )
    failed.__cause__ = error
    failed.retryable = isinstance(error, _HoleError)  # what it was to follow may be written the next time
    return failed
