"""Compatibility flags as attributes: part of what Cloudflare's own SDK expects of a runtime."""

from __future__ import annotations

from workers._host import host


def __getattr__(name: str) -> bool:
    if name.startswith("__"):
        raise AttributeError(name)
    return host().compat_flag(name)
