"""What Cloudflare's own SDK expects of a runtime, for programs that bring it along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workers._env import patch_env
from workers.utils import import_from_javascript

cloudflareWorkersModule = import_from_javascript("cloudflare:workers")
cloudflareSocketsModule = import_from_javascript("cloudflare:sockets")


async def doAnImport(name: str) -> Any:
    return import_from_javascript(name)


def patch_env_helper(env: Any) -> Iterator[None]:
    with patch_env(env):
        yield


def patchWaitUntil(_ctx: Any) -> None:
    """``ctx.waitUntil`` takes coroutines here already."""
