"""What is being done right now: the invocation that the running code belongs to.

Carried by a context variable, so it follows tasks that a handler starts. Logs take their names from it, calls to the
outside their trace, their depth, and the run whose manifest decides which versions they reach.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from stellwerk.isolate.logs import Scope

if TYPE_CHECKING:
    from stellwerk.isolate.workflow.run import Run


_LOOK_THROUGH_EVERY = 16


class Booked(Protocol):
    """What an invocation has got from others: the body of an answer, stubs. It ends with the invocation."""

    @property
    def ended(self) -> bool: ...

    def close(self) -> None: ...


class Invocation(Scope):
    """One request, RPC call, run, or step of a run."""

    __slots__ = ("depth", "live", "over", "pending", "scope", "traceparent", "unread")

    def __init__(
        self,
        invocation: str,
        *,
        traceparent: str = "",
        depth: int = 0,
        scope: int = 0,
        instance: str = "",
        step: str = "",
        live: Run | None = None,
    ) -> None:
        super().__init__(invocation, instance, step, traceparent[3:35])
        self.traceparent = traceparent
        self.depth = depth
        self.scope = scope  # on whose behalf: selects the run manifest at the node
        self.live = live
        self.pending: set[asyncio.Future[Any]] | None = None  # what waitUntil keeps alive, and streams that it lent
        self.unread: list[Booked] | None = None
        self.over = False


NOBODY = Invocation("")
"""What runs outside of every request and run: a module's top level, a forgotten task."""


def is_workflow_code(invocation: Invocation) -> bool:
    """Whether this is a run outside of its steps: what it calls may be called again, and has no end of its own."""
    return invocation.live is not None and not invocation.step


def book(invocation: Invocation, booked: Booked) -> bool:
    """``booked`` ends with the request or step that asked for it, used or not: its sender would wait for ever.

    False for what belongs to nobody, or to workflow code outside of steps: these have no such end."""
    if invocation is NOBODY or is_workflow_code(invocation):
        return False
    if invocation.unread is None:
        invocation.unread = []
    elif len(invocation.unread) % _LOOK_THROUGH_EVERY == 0:
        invocation.unread = [other for other in invocation.unread if not other.ended]
    invocation.unread.append(booked)
    return True
