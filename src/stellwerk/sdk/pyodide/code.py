"""``pyodide.code``: calling functions with as many arguments as they take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from workers._js import NotBuiltError
from workers._relaxed import relaxed_call as _relaxed_call


def relaxed_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Drops positional and keyword arguments that ``function`` has no place for."""
    if kwargs:
        parameters = inspect.signature(function).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            kwargs = {name: value for name, value in kwargs.items() if name in parameters}
        return _relaxed_call(functools.partial(function, **kwargs), *args)
    return _relaxed_call(function, *args)


def relaxed_wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return relaxed_call(function, *args, **kwargs)

    return wrapped


def run_js(_code: str, /) -> Any:
    raise NotBuiltError("run_js(): there is no JavaScript here.")
