"""A program against its journal: what it has asked for, what was recorded of that, and where the two disagree.

Every life of a run begins with a replay, if only of an empty journal. While it lasts, the program is handed what was
recorded, group by group, and nothing leaves the isolate: what it begins for the first time waits until the replay is
over. A completion that a settled program has not asked for is a divergence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from stellwerk.core.workflow import entries
from stellwerk.core.workflow.replay import Group, ReplayCursor, divergence_text
from stellwerk.core.workflow.steps import step_key
from stellwerk.isolate.workflow.calls import Call


class DivergenceError(Exception):
    """Program and journal disagree."""


class Replay:
    """What a program has asked for, under the keys by which the journal knows it, and what the journal knows."""

    def __init__(self, journal: Iterable[bytes]) -> None:
        self.cursor = ReplayCursor(map(entries.decode, journal))
        self.over = False
        self.behind = True  # there are groups, or may be some, that the program has not seen
        self.asked: dict[str, Call] = {}  # and not answered yet
        self.counts: dict[str | tuple[str, str], int] = {}  # steps by name, everything else by kind and name
        self._let_go: set[str] = set()  # timers that the program cancelled; one may have fired at the same moment
        self._deferred: list[Callable[[], None]] = []
        self._backlog: deque[Group] = deque()  # what the node delivered during the replay

    @property
    def first_life(self) -> bool:
        return not (self.cursor.groups or self.cursor.attempts or self.cursor.started)

    def forget(self) -> None:
        """The run has left. What it asked for leads back to it."""
        self.asked.clear()
        self._deferred.clear()

    # -- the program asks ---------------------------------------------------------------------------------------------

    def next_key(self, kind: str, name: str) -> tuple[str, int]:
        """The identity of the next call of this kind and name: counts go up in the order of calls."""
        counts = self.counts
        count = counts.get((kind, name), 0) + 1
        counts[kind, name] = count
        return step_key(kind, name, count), count

    def next_has_begun(self, kind: str, name: str) -> bool:
        """Whether the next call of this kind and name has begun in an earlier life of the run."""
        return step_key(kind, name, self.counts.get((kind, name), 0) + 1) in self.cursor.started

    def wait(self, key: str, call: Call, begin: Callable[[], None]) -> None:
        """The program waits for time, or for an event. ``begin`` tells the node, unless an earlier life has."""
        self.asked[key] = call
        if key not in self.cursor.started:
            self.when_live(begin)

    def let_go(self, key: str, release: Callable[[], None]) -> None:
        """The program waits no longer. ``release`` tells the node, if it knows of the wait and not yet of its end."""
        if not self.over:
            self._let_go.add(key)
        self.asked.pop(key, None)
        if key not in self.cursor.cancelled and (self.over or key in self.cursor.started):
            self.when_live(release)

    def when_live(self, act: Callable[[], None]) -> None:
        """Does it at once, or when the replay is over: before that nothing may leave the isolate."""
        if self.over:
            act()
        else:
            self._deferred.append(act)

    # -- the journal answers ------------------------------------------------------------------------------------------

    def hold_back(self, group: Group) -> None:
        """A group that the node delivers before the program has caught up."""
        self._backlog.append(group)

    def next_group(self, *, patient: bool) -> Group | None:
        """What a settled program gets next. None: nothing yet, or the journal has no more (then see ``end``).

        ``patient``: the program waits for the outside world, so that what it has not asked for may still come.
        """
        if self.over:
            group = self._backlog.popleft()
            self.behind = bool(self._backlog)
            return group
        groups = self.cursor.groups
        if not groups or not self._has_asked(groups[0], patient):
            return None
        return groups.popleft()

    def end(self, *, patient: bool) -> bool:
        """Live operation begins, and with it what has waited for that. False: there are groups left."""
        if self.cursor.groups:
            return False
        for key in () if patient else self.cursor.begun():
            if self._is_missing(key):
                raise DivergenceError(divergence_text(key, self.asked, "began"))
        self.over, self.behind = True, bool(self._backlog)
        deferred, self._deferred = self._deferred, []
        for act in deferred:
            act()
        return True

    def check_ended(self) -> None:
        """The program has ended. Groups may be left of steps that nobody awaited, and of nothing else."""
        for group in self.cursor.groups:
            for completion in group.completions:
                if self._is_missing(completion.key):
                    raise DivergenceError(divergence_text(completion.key, ["nothing: it has ended"]))

    def _has_asked(self, group: Group, patient: bool) -> bool:
        for completion in group.completions:
            if self._is_missing(completion.key):
                if patient:
                    return False
                raise DivergenceError(divergence_text(completion.key, self.asked))
        return True

    def _is_missing(self, key: str) -> bool:
        return key not in self.asked and key not in self._let_go
