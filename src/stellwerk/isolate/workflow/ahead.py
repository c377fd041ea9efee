"""What a program knows ahead of the record: that its run exists, or a step's result.

A run is started while its creation is on its way to the disk. A program that waits for one step, and that nothing
else can reach before it, is given the step's result while that is being written: what it asks for then, or its end, is
recorded together with the result. Whatever would act outside of this isolate is held back until what the program knows
is on disk: the next attempts, and calls of workflow code. Should it never get there, this life of the run is thrown
away, and nobody has heard of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.calls import StepCall


CREATION: Final = "creation"  # no step has this key: theirs begin with "do:"


class Ahead:
    """At most one thing that the program knows: while it is not on disk, no further step begins."""

    __slots__ = ("_held", "calls", "key")

    def __init__(self, key: str = "") -> None:
        self.key = key  # of the step, or ``CREATION``; empty: all that the program knows is on disk
        self.calls: list[StepCall] = []  # whose first attempts are held back
        self._held: list[tuple[Callable[[], None], Callable[[], None]]] = []

    @property
    def holds(self) -> bool:
        """Whether something was asked for that has to be done once the record is on disk."""
        return bool(self._held)

    def when_recorded(self, act: Callable[[], None], otherwise: Callable[[], None] = lambda: None) -> None:
        """Does it when all that the program knows is on disk; ``otherwise``, if the run leaves before."""
        if self.key:
            self._held.append((act, otherwise))
        else:
            act()

    def recorded(self, begin: Callable[[StepCall, int], None]) -> None:
        """It is on disk."""
        self.key = ""
        calls, self.calls = self.calls, []
        for call in calls:
            begin(call, 1)
        if self._held:
            held, self._held = self._held, []
            for act, _ in held:
                act()

    def forget(self) -> None:
        """The run has left: what is held back never begins."""
        self.calls.clear()
        held, self._held = self._held, []
        for _, otherwise in held:
            otherwise()
