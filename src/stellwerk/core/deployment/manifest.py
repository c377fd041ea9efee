"""The manifest: the declared configuration of one version of a Worker, validated and frozen.

Built by ``core/deployment/parse.py`` from ``wrangler.jsonc|json|toml`` and ``stellwerk.toml``; stored as JSON with the
version (``encode`` and ``decode`` here), so that a version means the same for as long as any run needs it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stellwerk.core import limits


class ServiceBinding(msgspec.Struct, frozen=True, kw_only=True):
    """``services``: ``env.<binding>`` is another Worker's entrypoint."""

    binding: str
    service: str
    entrypoint: str = "Default"
    props: dict[str, Any] | None = None


class WorkflowBinding(msgspec.Struct, frozen=True, kw_only=True):
    """``workflows``: a class of this Worker (or of ``script_name``) whose runs are durable.

    ``binding`` puts it into ``env``. Without ``script_name`` this Worker *defines* the workflow ``name``.
    """

    name: str
    binding: str
    class_name: str
    script_name: str | None = None
    steps_max: int = limits.STEPS_PER_INSTANCE
    concurrency_max: int | None = None  # running instances; further ones stay queued


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """``routes``: Cloudflare's pattern, such as ``example.com/api/*``; or a whole host (``custom_domain``)."""

    pattern: str
    custom_domain: bool = False


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``stellwerk.toml`` and ``limits`` say about the process that runs this Worker."""

    memory_mb: int = 128
    cpu_ms: int = 30_000
    wall_ms: int | None = None  # of a request; None: as long as the client stays
    subrequests_max: int = 10_000
    isolates_max: int = limits.ISOLATES_PER_VERSION_MAX
    isolates_idle_s: int = limits.ISOLATE_IDLE_MS // 1000
    egress_allow: tuple[str, ...] = ()
    isolation_minimum: str = "floor"  # floor, reduced, strict
    python_version: str | None = None
    allow_sdist: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a version of a Worker is, besides its files."""

    name: str
    main: str  # relative to the bundle's root, ends in .py
    compatibility_date: str
    compatibility_flags: tuple[str, ...] = ()
    vars: dict[str, Any] = {}
    secrets: dict[str, str] = {}  # from .dev.vars; never shown, never logged
    services: tuple[ServiceBinding, ...] = ()
    workflows: tuple[WorkflowBinding, ...] = ()
    routes: tuple[Route, ...] = ()
    settings: WorkerSettings = WorkerSettings()
    default: bool = False  # answers requests that no route claims

    def defined_workflows(self) -> tuple[WorkflowBinding, ...]:
        """The workflows whose class is in this Worker."""
        return tuple(w for w in self.workflows if w.script_name in (None, self.name))


_encoder = msgspec.json.Encoder(order="deterministic")
encode = _encoder.encode
decode = msgspec.json.Decoder(Manifest).decode
