"""How long a connection may wait for its client: one coarse look per second instead of a timer per request.

Each look asks what the connection waits for and takes a number that changes when that moves. A connection whose pair
stays the same for the limit of its kind is ended. Nothing is noted per request, so an exchange pays nothing for it;
a deadline is up to one sweep late and never early.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stellwerk.node.ingress.strict import IngressLimits


class Awaited(Enum):
    """What must move next. The first five have a limit; a handler may take its time."""

    HEAD = "head"  # the rest of a request head
    BODY = "body"  # more of a request body
    READER = "reader"  # the client takes what was written
    NEXT = "next"  # another request on a kept-alive connection
    END = "end"  # the client closes, after our side was closed
    HANDLER = "handler"


@dataclass(slots=True)
class Deadline:
    """What one connection was seen waiting for, and since when."""

    awaited: Awaited = Awaited.NEXT
    progress: int = -1
    since_ms: int = 0

    def passed(self, awaited: Awaited, progress: int, now_ms: int, limits: IngressLimits) -> bool:
        """Notes what is awaited now; true when it has not moved for as long as it may take."""
        if awaited is not self.awaited or progress != self.progress:
            self.awaited, self.progress, self.since_ms = awaited, progress, now_ms
            return False
        limit_ms = _limit_ms(awaited, limits)
        return limit_ms is not None and now_ms - self.since_ms >= limit_ms


def _limit_ms(awaited: Awaited, limits: IngressLimits) -> int | None:
    match awaited:
        case Awaited.HEAD:
            return limits.head_timeout_ms
        case Awaited.BODY | Awaited.READER:
            return limits.body_stall_timeout_ms
        case Awaited.NEXT:
            return limits.keepalive_timeout_ms
        case Awaited.END:
            return limits.linger_ms
        case Awaited.HANDLER:
            return None
