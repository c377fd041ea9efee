"""Compatibility flags: which behaviours a version asked for, by date or by name.

Dates are those of workerd's ``compatibility-date.capnp`` (read August 2026).
"""

from __future__ import annotations

from collections.abc import Iterable

_ON_BY_DATE = {
    "python_no_global_handlers": "2025-08-14",
    "python_workflows": "2025-09-20",
    "python_workflows_implicit_dependencies": "2026-02-25",
    "python_request_headers_preserve_commas": "2026-02-17",
    "workflows_preserve_non_retryable_error_message": "2026-05-14",
}
_OFF = {
    "disable_python_no_global_handlers": "python_no_global_handlers",
    "disable_python_workflows": "python_workflows",
    "no_python_workflows_implicit_dependencies": "python_workflows_implicit_dependencies",
}


def enabled_flags(date: str, flags: Iterable[str]) -> frozenset[str]:
    """The flags that are on for a compatibility date and an explicit list."""
    explicit = list(flags)
    on = {flag for flag, since in _ON_BY_DATE.items() if date >= since}
    on.update(flag for flag in explicit if flag not in _OFF)
    on.difference_update(_OFF[flag] for flag in explicit if flag in _OFF)
    return frozenset(on)
