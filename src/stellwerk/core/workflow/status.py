"""Statuses of an instance (Cloudflare's names) and which of them may follow which.

The table is the only place that says what may happen; the documentation's diagram is drawn from it.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"  # accepted, not handed to an isolate yet
    RUNNING = "running"
    WAITING = "waiting"  # nothing to run before a timer fires or an event comes
    PAUSED = "paused"  # an operator, or a divergence, holds it; the reason stands in the journal
    WAITING_FOR_PAUSE = "waitingForPause"  # pause asked for; steps in flight may end first
    COMPLETE = "complete"
    ERRORED = "errored"
    TERMINATED = "terminated"
    UNKNOWN = "unknown"


TERMINAL = frozenset({Status.COMPLETE, Status.ERRORED, Status.TERMINATED})
TAKEN_UP = (Status.QUEUED, Status.RUNNING, Status.WAITING_FOR_PAUSE)
"""By a node that starts: what was under way, or was to be."""

MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset(
        {Status.RUNNING, Status.PAUSED, Status.TERMINATED, Status.ERRORED, Status.COMPLETE, Status.WAITING}
    ),
    Status.RUNNING: frozenset({Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE, *TERMINAL}),
    Status.WAITING: frozenset({Status.RUNNING, Status.PAUSED, *TERMINAL}),
    Status.WAITING_FOR_PAUSE: frozenset({Status.PAUSED, Status.RUNNING, *TERMINAL}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.TERMINATED}),
    Status.COMPLETE: frozenset(),
    Status.ERRORED: frozenset(),
    Status.TERMINATED: frozenset(),
    Status.UNKNOWN: frozenset(),
}
