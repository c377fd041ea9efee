"""Replay: what a journal says to a program that runs from the top again.

The cursor answers three questions. What has ended, and how (``results``)? In which groups did completions reach the
program (``groups``)? And what had begun and not ended (``attempts``, ``started``)? The isolate hands over one group at
a time, the next only when the program has settled. When a group names something that a settled program has not asked
for, program and journal disagree: a *divergence*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.actions import Completion
from stellwerk.core.workflow.steps import StepConfig


@dataclass(slots=True)
class OpenAttempt:
    """A step that has no result yet."""

    failures: int = 0
    retry_pending: bool = False  # the node owns the timer and will grant the next attempt
    config: StepConfig | None = None
    nested: bool = False


@dataclass(slots=True)
class Group:
    """One delivery group: what reached the program together, and when."""

    number: int
    at: int
    completions: list[Completion] = field(default_factory=list)


class ReplayCursor:
    """A journal, seen from the program."""

    def __init__(self, entries: Iterable[e.AnyEntry]) -> None:
        self.results: dict[str, Completion] = {}
        self.groups: deque[Group] = deque()
        self.attempts: dict[str, OpenAttempt] = {}
        self.started: dict[str, int] = {}  # sleeps and waits that have begun: key -> wake_at or timeout_at
        self.cancelled: set[str] = set()  # hidden timers that the program let go
        for entry in entries:
            self._read(entry)

    def _read(self, entry: e.AnyEntry) -> None:
        match entry:
            case e.Created():  # in every journal, and often alone
                pass
            case e.StepSucceeded():
                self._ended(Completion(entry.key, entry.value), entry.delivery, entry.at)
            case e.StepErrored() | e.WaitTimedOut():
                self._ended(Completion(entry.key, None, entry.error), entry.delivery, entry.at)
            case e.SleepCompleted():
                self._ended(Completion(entry.key), entry.delivery, entry.at)
            case e.WaitCompleted():
                self._ended(Completion(entry.key, entry.payload, None, entry.event_at), entry.delivery, entry.at)
            case e.AttemptFailed():
                self.attempts[entry.key] = OpenAttempt(entry.attempt, True, entry.config, entry.nested)
            case e.AttemptStarted():
                attempt = self.attempts.setdefault(entry.key, OpenAttempt(config=entry.config, nested=entry.nested))
                attempt.retry_pending = False
            case e.SleepStarted():
                self.started[entry.key] = entry.wake_at
            case e.WaitStarted():
                self.started[entry.key] = entry.timeout_at
            case e.SleepCancelled():
                self.cancelled.add(entry.key)
            case _:
                pass

    def _ended(self, completion: Completion, delivery: int, at: int) -> None:
        self.results[completion.key] = completion
        self.attempts.pop(completion.key, None)
        if not delivery:
            return
        if not self.groups or self.groups[-1].number != delivery:
            self.groups.append(Group(delivery, at))
        self.groups[-1].completions.append(completion)

    def begun(self) -> Iterator[str]:
        """What has begun and not ended: the program, once it has seen all groups, has to have asked for each of it."""
        for key in self.started:
            if key not in self.results and key not in self.cancelled:
                yield key
        for key, attempt in self.attempts.items():
            if not attempt.nested:
                yield key


def divergence_text(key: str, asked: Iterable[str], what: str = "ended") -> str:
    """What a divergence tells: what the journal has and nobody asked for, and what was asked for instead."""
    waiting = ", ".join(sorted(asked)) or "nothing"
    return (
        f"The journal says that {key} {what} here, but the program has not asked for it; it waits for {waiting}. "
        "The code of this Worker does not take the path that this run took before: run it on its own version again, "
        "or keep names and order of its steps."
    )
