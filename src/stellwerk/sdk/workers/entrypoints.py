"""The classes that a Worker's program derives from, and how the isolate finds them."""

from __future__ import annotations

from collections.abc import Awaitable
from types import FunctionType, ModuleType
from typing import Any, Literal, Protocol

from workers._env import wait_until
from workers._js import JsDict
from workers.rpc import wrap_env

Kind = Literal["entrypoint", "workflow", "object"]


class Context(Protocol):
    """What handlers get as ``ctx``."""

    def waitUntil(self, awaitable: Awaitable[Any]) -> None: ...


class ExecutionContext:
    """``ctx`` of an invocation. ``props`` are what the caller's binding declares."""

    def __init__(self, props: Any = None) -> None:
        self.props = JsDict(props) if type(props) is dict else props

    def waitUntil(self, awaitable: Awaitable[Any]) -> None:
        """Keeps the invocation alive until ``awaitable`` settles, at most 30 s after its answer."""
        wait_until(awaitable)

    wait_until = waitUntil

    def passThroughOnException(self) -> None:
        """There is no origin behind a self-hosted Worker to pass a request to: no effect."""


class DurableObjectContext:
    """``ctx`` of a durable object; wrapping twice gives the same object."""

    _ctx: Any

    def __new__(cls, ctx: Any) -> DurableObjectContext:
        if isinstance(ctx, DurableObjectContext):
            return ctx
        made = super().__new__(cls)
        made._ctx = ctx
        return made

    def __getattr__(self, name: str) -> Any:
        if name == "_ctx":
            raise AttributeError(name)
        return getattr(self._ctx, name)


class WorkerEntrypoint:
    """Base of the classes that answer requests and RPC calls. A new one is made for each invocation."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = wrap_env(env)


class WorkflowEntrypoint:
    """Base of workflows: ``async def run(self, event, step)``."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = wrap_env(env)


class DurableObject:
    """Base of durable objects."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = DurableObjectContext(ctx)
        self.env = wrap_env(env)


_BASES: tuple[tuple[type, Kind], ...] = (
    (WorkerEntrypoint, "entrypoint"),
    (WorkflowEntrypoint, "workflow"),
    (DurableObject, "object"),
)


def exported_classes(module: ModuleType) -> dict[str, tuple[type, Kind]]:
    """The classes that a Worker's main module exports, by class name: what ``__all__`` names, else every name without a
    leading underscore; imported classes count. A name under which a class is exported finds it too."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    found: dict[str, tuple[type, Kind]] = {}
    aliases: dict[str, tuple[type, Kind]] = {}
    for name in names:
        value = getattr(module, name)
        kind = _kind(value)
        if kind is not None:
            found[value.__name__] = aliases[name] = (value, kind)
    return {**aliases, **found}


def _kind(value: Any) -> Kind | None:
    if not isinstance(value, type):
        return None
    return next((kind for base, kind in _BASES if issubclass(value, base) and value is not base), None)


def rpc_methods(cls: type) -> list[str]:
    """The methods that another Worker may call: public plain functions anywhere in the class's ancestry."""
    names: dict[str, bool] = {}
    for ancestor in cls.__mro__:
        if ancestor is object:
            continue
        for name, value in vars(ancestor).items():
            if not name.startswith("_"):
                names.setdefault(name, isinstance(value, FunctionType))  # the nearest definition decides
    return sorted(name for name, callable_remotely in names.items() if callable_remotely)
