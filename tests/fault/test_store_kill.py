"""Acknowledged means on disk: a process that commits is killed again and again, and nothing it said may be missing.

The early-acknowledging child at the end is the control: if the check could not see a lie, it would prove nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import apsw
from tests.fault import store_committer
from tests.fault.store_committer import content

KILLS = 20
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
