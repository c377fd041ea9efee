"""Actions: everything the node may have to do after a decision is on disk. Each is safe to repeat."""

from __future__ import annotations

import msgspec

from stellwerk.core.workflow.entries import AnyEntry, ErrorValue, Value


class Completion(msgspec.Struct, frozen=True, array_like=True):
    """One completion of a delivery group, as it goes to the program.

    ``value`` None without ``error``: the isolate still holds the result that it reported.
    """

    key: str
    value: Value | None = None
    error: ErrorValue | None = None
    at: int = 0  # when the event was sent, for a wait


class Grant(msgspec.Struct, frozen=True):
    """Let the isolate begin this attempt."""

    key: str
    attempt: int


class Decision(msgspec.Struct):
    """What one or several inputs of one run lead to: entries for the journal, then actions, in this order.

    ``delivery`` is the number of the delivery group that ``completions`` form (0: none). ``ahead``: that of a group
    which the program has been given already; what completes after it belongs to the next. ``stop`` not empty: the
    isolate has to forget the run, for this reason. ``take_up``: the run needs an isolate again.
    """

    entries: list[AnyEntry] = []
    completions: list[Completion] = []
    grants: list[Grant] = []
    delivery: int = 0
    ahead: int = 0
    stop: str = ""
    take_up: bool = False
