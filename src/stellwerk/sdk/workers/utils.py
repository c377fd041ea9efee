"""Small functions that Cloudflare's SDK has under this name, and its way to JavaScript's modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from workers._env import current_env, wait_until, with_env
from workers._host import host
from workers._js import JsProxy, NotBuiltError
from workers.entrypoints import DurableObject, WorkerEntrypoint, WorkflowEntrypoint
from workers.request import JsRequest, Request
from workers.rpc import RpcTarget, wrap_env


def get_compat_flag(name: str) -> bool:
    """Whether the compatibility flag holds for this Worker."""
    return host().compat_flag(name)


class _CloudflareWorkers(JsProxy):
    """The module ``cloudflare:workers``."""

    WorkerEntrypoint = WorkerEntrypoint
    WorkflowEntrypoint = WorkflowEntrypoint
    DurableObject = DurableObject
    RpcTarget = RpcTarget
    waitUntil = staticmethod(wait_until)
    withEnv = staticmethod(with_env)

    @property
    def env(self) -> Any:
        return current_env()


class _CloudflareSockets(JsProxy):
    """The module ``cloudflare:sockets``."""

    def connect(self, *_args: Any, **_options: Any) -> Any:
        raise NotBuiltError("connect() of cloudflare:sockets is not built yet. Use asyncio.open_connection instead.")


_MODULES = {"cloudflare:workers": _CloudflareWorkers(), "cloudflare:sockets": _CloudflareSockets()}


def import_from_javascript(module_name: str) -> Any:
    """``cloudflare:workers`` and ``cloudflare:sockets``. Raises ``ImportError`` for every other."""
    module = _MODULES.get(module_name)
    if module is None:
        raise ImportError(
            f"There is no JavaScript module {module_name!r} here. There are: {', '.join(sorted(_MODULES))}."
        )
    return module


def handler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of old-style global handlers: gives them a ``Request`` and a wrapped ``env``."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        if given and isinstance(given[0], JsRequest):
            given[0] = Request(given[0])
        if len(given) > 1 and isinstance(given[1], dict):
            given[1] = wrap_env(given[1])
        return function(*given, **kwargs)

    return call
