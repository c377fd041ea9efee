"""A process that commits without end and says what was acknowledged, until somebody kills it.

    python store_committer.py DATABASE ROUND [early]

Writes a line ``instance seq`` for each acknowledged entry, straight to the pipe. ``early`` says it before the commit:
the sabotage that the test must see.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision, InstanceRow
from stellwerk.store.sqlite.store import SqliteStore

IN_FLIGHT = 16
ENTRIES_PER_RUN = 5


def content(instance_id: str, seq: int) -> bytes:
    return f"{instance_id}/{seq}/".encode() * 20


def say(instance_id: str, seq: int) -> None:
    os.write(1, f"{instance_id} {seq}\n".encode())


def committing(store: SqliteStore, round_: str, slot: int, *, early: bool) -> Callable[[], None]:
    run, seq = 0, -1

    def step() -> None:
        nonlocal run, seq
        seq += 1
        if seq == ENTRIES_PER_RUN:
            run, seq = run + 1, 0
        instance_id = f"{round_}-{slot}-{run}"
        row = ("local", "orders", instance_id, 1, seq, run, content(instance_id, seq))
        create = an_instance(instance_id) if seq == 0 else None

        def done(error: Exception | None) -> None:
            if error is not None:
                raise SystemExit(f"not stored: {error}")
            if not early:
                say(instance_id, seq)
            step()

        if early:
            say(instance_id, seq)
        store.submit([Decision([row], create=create, done=done)])

    return step


def an_instance(instance_id: str) -> InstanceRow:
    return InstanceRow(
        account_id="local",
        workflow="orders",
        instance_id=instance_id,
        incarnation=1,
        status=Status.RUNNING,
        worker="orders",
        version_id="version-1",
        class_name="Orders",
        created_at=0,
        modified_at=0,
    )


async def main(database: Path, round_: str, *, early: bool) -> None:
    store = await SqliteStore.open(database, owner=f"node-{round_}", now_ms=0)
    for slot in range(IN_FLIGHT):
        committing(store, round_, slot, early=early)()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], early="early" in sys.argv[3:]))
