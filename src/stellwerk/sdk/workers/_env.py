"""The module-level ``env`` and ``waitUntil``, and what may stand in for them for a while."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from workers._host import Host, host
from workers.rpc import _EnvWrapper, wrap_env

_overlay: ContextVar[_EnvWrapper | None] = ContextVar("workers.env", default=None)
_base: tuple[Host, _EnvWrapper] | None = None


def current_env() -> _EnvWrapper:
    """The ``env`` that holds here and now. Raises ``RuntimeError`` outside a Worker."""
    global _base
    overlay = _overlay.get()
    if overlay is not None:
        return overlay
    current = host()
    if _base is None or _base[0] is not current:
        _base = (current, wrap_env(current.env()))
    return _base[1]


def _merged(given: Any, named: dict[str, Any]) -> _EnvWrapper:
    try:
        under = dict(current_env()._env)
    except RuntimeError:  # a test without a host may still say what env is
        under = {}
    return wrap_env({**under, **dict(given or {}), **named})


@contextmanager
def patch_env(env: Any = None, /, **named: Any) -> Iterator[None]:
    """Lays ``env`` (a mapping or pairs) over the bindings while the block runs, in this task and those it starts."""
    token = _overlay.set(_merged(env, named))
    try:
        yield
    finally:
        _overlay.reset(token)


def with_env(env: Any, function: Callable[[], Any]) -> Any:
    """Runs ``function`` with ``env`` in the place of the bindings and returns what it returns, as Cloudflare's
    ``withEnv`` does: an async function keeps it until it ends."""
    token = _overlay.set(wrap_env(env if isinstance(env, _EnvWrapper) else dict(env)))
    try:
        answer = function()
        return _within(answer, _overlay.get()) if inspect.isawaitable(answer) else answer
    finally:
        _overlay.reset(token)


async def _within(work: Awaitable[Any], env: _EnvWrapper | None) -> Any:
    token = _overlay.set(env)
    try:
        return await work
    finally:
        _overlay.reset(token)


def wait_until(awaitable: Awaitable[Any]) -> None:
    """Keeps the invocation alive until ``awaitable`` settles, at most 30 s after its answer."""
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"waitUntil needs a coroutine or another awaitable, not {type(awaitable).__name__}")
    host().wait_until(awaitable)
