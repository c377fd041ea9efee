"""What is being done right now: the invocation that the running code belongs to.

Carried by a context variable, so it follows tasks that a handler starts. Logs take their names from it, calls to the
outside their trace, their depth, and the run whose manifest decides which versions they reach.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stellwerk.isolate.logs import Scope

if TYPE_CHECKING:
    from stellwerk.isolate.bodies import BodyReader
    from stellwerk.isolate.workflow.run import Run


class Invocation(Scope):
    """One request, RPC call, run, or step of a run."""

    __slots__ = ("depth", "live", "pending", "scope", "traceparent", "unread")

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
        self.pending: set[asyncio.Task[Any]] | None = None  # what waitUntil keeps alive
        self.unread: list[BodyReader] | None = None  # bodies of answers that it got; they end with it


NOBODY = Invocation("")
"""What runs outside of every request and run: a module's top level, a forgotten task."""
