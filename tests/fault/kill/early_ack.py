"""SABOTAGE: a node that says "it is on disk" before it is. The checker must catch it, or it would prove nothing.

    python -m tests.fault.kill.early_ack dev FOLDER ...

The very node, with one method replaced: every decision is acknowledged at once, and handed to the writer a moment
later. As long as nothing dies in that moment nobody can tell.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from stellwerk.node.__main__ import main
from stellwerk.store.base import Decision
from stellwerk.store.sqlite.store import SqliteStore

LATE_S = 0.05
honest_submit = SqliteStore.submit


def submit(store: SqliteStore, decisions: Sequence[Decision]) -> None:
    loop = asyncio.get_running_loop()
    acknowledge = [decision.done for decision in decisions]
    for decision in decisions:
        decision.done = lambda error: None
    loop.call_later(LATE_S, honest_submit, store, decisions)  # a constant delay keeps the order
    for done in acknowledge:
        if done is not None:
            loop.call_soon(done, None)


if __name__ == "__main__":
    SqliteStore.submit = submit  # type: ignore[method-assign, assignment]
    sys.exit(main())
