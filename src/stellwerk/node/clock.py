"""Time, chance and identity of the node: the only place that asks the machine for them.

Everything else takes them as arguments or gets this object, so a test can hold a day in its hand.
"""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """What the node knows of time, chance and identity."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC: for what is stored."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never jump: for time-outs."""

    def new_uuid(self) -> str: ...

    def new_trace_id(self) -> str:
        """32 hex digits, never all zero. Not a secret."""

    def new_span_id(self) -> str:
        """16 hex digits, never all zero. Not a secret."""


class SystemClock:
    """The machine's own."""

    def __init__(self) -> None:
        self._random = random.Random()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def new_uuid(self) -> str:
        return str(uuid.uuid4())

    def new_trace_id(self) -> str:
        return f"{self._random.getrandbits(128) | 1:032x}"

    def new_span_id(self) -> str:
        return f"{self._random.getrandbits(64) | 1:016x}"
