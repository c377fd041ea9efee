"""Calling a handler with as many arguments as it takes: ``fetch(self)``, ``fetch(self, request)`` and
``fetch(self, request, env, ctx)`` are all right, as on Cloudflare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_ANY = 1 << 30
_ARITIES_MAX = 4096  # functions remembered; then the table starts anew, since a program may make them without end
_arities: dict[Any, int] = {}


def positional_count(function: Callable[..., Any]) -> int:
    """How many positional arguments ``function`` can take (not counting a bound ``self``)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return _ANY
    count = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return _ANY
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
    return count


def relaxed_call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls ``function`` and drops the arguments that it has no place for."""
    key = getattr(function, "__func__", function)  # a bound method is made anew on each access, its function is not
    count = _arities.get(key)
    if count is None:
        count = positional_count(function)
        if len(_arities) >= _ARITIES_MAX:
            _arities.clear()
        _arities[key] = count
    return function(*args) if count >= len(args) else function(*args[:count])
