"""What can be set about isolates, node-wide. What one Worker may say for itself is in its manifest."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from stellwerk.core import limits
from stellwerk.wire.zygote import ENTRY


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSettings:
    """What the zygote is made of. ``paths`` stand on its ``sys.path`` before our own."""

    interpreter: str = sys.executable
    preload: tuple[str, ...] = ("stellwerk.isolate.isolate",)
    entry: str = ENTRY
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    isolates_max: int = limits.ISOLATES_MAX
    start_timeout_ms: int = limits.ISOLATE_START_TIMEOUT_MS
    drain_ms: int = limits.ISOLATE_DRAIN_MS
    stop_grace_ms: int = limits.ISOLATE_STOP_GRACE_MS
    sweep_ms: int = limits.ISOLATE_SWEEP_MS
    blocked_ms_max: int = limits.ISOLATE_BLOCKED_MS_MAX
    scale_load: int = limits.ISOLATE_LOAD_SCALE_UP
    zygote: ZygoteSettings = field(default_factory=ZygoteSettings)
