"""What the engine counts: plain integers on a hot path, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Sequence

from stellwerk.core.workflow import entries as e


class EngineCounters:
    __slots__ = (
        "attempts_failed", "created", "ended", "events_sent", "reports_refused", "runs_interrupted", "steps_completed",
        "steps_errored", "taken_up",
    )  # fmt: skip

    def __init__(self) -> None:
        self.created = 0
        self.ended = 0
        self.taken_up = 0  # times that a run was handed to an isolate
        self.steps_completed = 0
        self.steps_errored = 0
        self.attempts_failed = 0
        self.events_sent = 0
        self.runs_interrupted = 0
        self.reports_refused = 0  # reports of isolates that the machine did not allow

    def count(self, entries: Sequence[e.AnyEntry]) -> None:
        """What was recorded."""
        for entry in entries:
            kind = type(entry)
            if kind is e.StepSucceeded:
                self.steps_completed += 1
            elif kind is e.StepErrored:
                self.steps_errored += 1
            elif kind is e.AttemptFailed:
                self.attempts_failed += 1
