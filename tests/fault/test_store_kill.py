"""Acknowledged means on disk: a process that commits is killed again and again, and nothing it said may be missing.

The early-acknowledging child is the control: if the check could not see a lie, it would prove nothing. At the end the
process that writes is killed alone, and the node that it wrote for lives on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.conformance.store.kit import ACCOUNT, WORKFLOW, an_entry, an_instance, outcomes, record
from tests.fault import store_committer
from tests.fault.store_committer import content

from stellwerk.core.errors import StorageError
from stellwerk.store.base import Decision
from stellwerk.store.sqlite.store import SqliteStore

KILLS = 20
WRITER_KILLS = 8
WAVE = 50  # entries under way when the process dies
CHILD = Path(store_committer.__file__)


def killed_after(database: Path, round_: int, acks: int, *flags: str) -> set[tuple[str, int]]:
    """Lets a child commit until it has acknowledged ``acks`` entries, kills it, and returns all that it said."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(database), str(round_), *flags], stdout=subprocess.PIPE, bufsize=0
    )
    assert child.stdout is not None
    said = b""
    with child.stdout:
        while said.count(b"\n") < acks:
            piece = child.stdout.read(65_536)
            assert piece, "the child ended by itself"
            said += piece
        child.kill()
        while piece := child.stdout.read(65_536):
            said += piece
    assert child.wait() == -signal.SIGKILL
    whole = said[: said.rfind(b"\n") + 1].decode().splitlines()
    return {(instance_id, int(seq)) for instance_id, seq in (line.split() for line in whole)}


def stored(database: Path) -> dict[tuple[str, int], bytes]:
    """What is there, read by SQLite alone, without the store."""
    connection = apsw.Connection(str(database))
    try:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        rows = connection.execute("SELECT instance_id, seq, entry FROM journal JOIN instance USING (account_id, run)")
        return {(str(instance_id), int(str(seq))): bytes(entry) for instance_id, seq, entry in rows}
    finally:
        connection.close()


def test_twenty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    database = tmp_path / "stellwerk.db"
    acknowledged: set[tuple[str, int]] = set()

    for round_ in range(KILLS):
        said = killed_after(database, round_, 50 + 137 * round_ % 900)
        found = stored(database)
        acknowledged |= said
        assert acknowledged - found.keys() == set(), f"lost after kill {round_}"

    assert len(acknowledged) > 50 * KILLS
    assert all(entry == content(instance_id, seq) for (instance_id, seq), entry in found.items())
    # Every journal is a whole beginning: no entry without the one before it, not even among unacknowledged ones.
    assert all(seq == 0 or (instance_id, seq - 1) in found for instance_id, seq in found)


def test_a_store_that_acknowledged_before_the_commit_would_be_caught(tmp_path: Path) -> None:
    database = tmp_path / "stellwerk.db"
    lost: set[tuple[str, int]] = set()

    for round_ in range(KILLS):
        lost |= killed_after(database, round_, 200, "early") - stored(database).keys()
        if lost:
            break

    assert lost


async def outcome_of_waves(store: SqliteStore, waves: int) -> tuple[set[int], set[int]]:
    """Commits entry after entry of one run; after each wave its writing process is killed with entries under way."""
    acknowledged: set[int] = set()
    refused: set[int] = set()
    for _ in range(waves):
        run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
        assert run is not None
        first = len(run.journal)
        assert acknowledged <= set(range(first))
        assert store.writer_pid is not None
        waiting = asyncio.ensure_future(outcomes(store, [Decision([an_entry(first + n)]) for n in range(WAVE)]))
        await asyncio.sleep(0)  # one turn: they have been sent
        os.kill(store.writer_pid, signal.SIGKILL)
        for number, error in enumerate(await waiting):
            (acknowledged if error is None else refused).add(first + number)
            assert error is None or (type(error) is StorageError and error.retryable)
        await written_again(store)
    return acknowledged, refused


async def written_again(store: SqliteStore) -> None:
    """Until another process writes. Each round is a decision that is refused, or waits for the disk; the wait is
    bounded by the pause before another process is started."""
    while True:
        try:
            await record(store, Decision())
            return
        except StorageError:
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_when_the_process_that_writes_is_killed_its_node_is_told_and_goes_on(
    tmp_path: Path, anyio_backend: str
) -> None:
    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=0)
    await record(store, Decision(create=an_instance()))

    acknowledged, refused = await outcome_of_waves(store, WRITER_KILLS)
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert refused, "no kill came while something waited: this proves nothing"
    assert run is not None
    assert acknowledged <= set(range(len(run.journal)))
    assert run.journal == [b"entry %d" % seq for seq in range(len(run.journal))]


@pytest.mark.anyio
async def test_a_machine_that_refuses_the_process_that_writes_is_an_error_at_the_start_and_waited_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    interpreter = sys.executable
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="refuses the process"):
        await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=0)

    monkeypatch.setattr(sys, "executable", interpreter)
    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=0)
    await record(store, Decision(create=an_instance()))
    assert store.writer_pid is not None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    waiting = asyncio.ensure_future(outcomes(store, [Decision([an_entry(0)])]))
    await asyncio.sleep(0)  # one turn: it has been sent
    os.kill(store.writer_pid, signal.SIGKILL)
    await waiting
    with pytest.raises(StorageError, match="started again"):
        store.submit([Decision()])
    monkeypatch.setattr(sys, "executable", interpreter)
    await written_again(store)
    await store.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
