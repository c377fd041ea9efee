"""How many isolates a version should have, which of them goes, and when a failed start may be repeated. Pure.

One isolate is one thread of Python, and one serves most Workers: it waits more than it computes. So another is started
only when every one there is carries a real load, one at a time, up to the Worker's own limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from stellwerk.core import limits


def wants_another(loads: Sequence[int], *, starting: int, isolates_max: int, scale_load: int) -> bool:
    """Whether to start one more isolate of a version whose ready ones have these ``loads``.

    The first one is the caller's business (somebody waits for it); this is about the second and later ones.
    """
    if starting or len(loads) >= isolates_max:
        return False
    return all(load >= scale_load for load in loads)


def may_start(loads: Sequence[int], *, starting: int, isolates_max: int) -> bool:
    """Whether an invocation that found no room may start an isolate rather than wait for one."""
    return starting == 0 and len(loads) < max(isolates_max, 1)


def is_idle(*, load: int, quiet_ms: int, idle_ms: int) -> bool:
    """Whether an isolate has had nothing to do for so long that its memory is better given back."""
    return load == 0 and quiet_ms >= idle_ms


def backoff_ms(failures: int) -> int:
    """The pause before the next start, after so many starts in a row that failed."""
    table = limits.CRASHES_BACKOFF_MS
    return table[min(failures, len(table) - 1)]
