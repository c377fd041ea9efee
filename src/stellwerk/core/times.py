"""Durations and times. Everywhere inside: integer milliseconds; points in time since the epoch, UTC.

The duration grammar is Cloudflare's: a number is milliseconds, a string is ``"<n> second|minute|hour|day|week|month|
year"`` with an optional ``s``. A month is 30 days and a year 365, as in the ``ms`` grammar that its engine uses.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
MONTH_MS = 30 * DAY_MS
YEAR_MS = 365 * DAY_MS
DURATION_MS_MAX = 1 << 53  # 285,000 years: longer ones count as this, so that sums of times stay exact and storable

_UNITS = {
    "millisecond": 1,
    "second": SECOND_MS,
    "minute": MINUTE_MS,
    "hour": HOUR_MS,
    "day": DAY_MS,
    "week": WEEK_MS,
    "month": MONTH_MS,
    "year": YEAR_MS,
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(millisecond|second|minute|hour|day|week|month|year)s?\s*", re.IGNORECASE)


def parse_duration_ms(value: object) -> int:
    """A duration in milliseconds, from a number (milliseconds) or a string such as ``"30 seconds"``.

    Raises ``ValueError`` for anything else, for a negative number and for one that is not finite.
    """
    if isinstance(value, bool):
        raise ValueError(f"not a duration: {value!r}")
    if isinstance(value, int | float):
        if not 0 <= value < math.inf:
            raise ValueError(f"not a duration: {value!r}")
        return math.ceil(min(value, DURATION_MS_MAX))
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found:
            return math.ceil(min(float(found[1]) * _UNITS[found[2].lower()], DURATION_MS_MAX))
    raise ValueError(f'not a duration: {value!r}; expected milliseconds, or a string such as "30 seconds"')


def iso_from_ms(at_ms: int) -> str:
    """``2026-11-24T23:15:28.123Z`` for a point in time, as Cloudflare's API writes it."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
