"""The node's configuration: read once from the command line, then one frozen value."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stellwerk.core import limits
from stellwerk.wire.api import STATE_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How this node runs. ``workspace`` is empty for ``serve``."""

    state: Path
    workspace: tuple[Path, ...] = ()
    environment: str | None = None
    ip: str = "127.0.0.1"
    port: int = 8787
    control_port: int = 8788
    as_json: bool = False
    force: bool = False
    drain_ms: int = limits.NODE_DRAIN_MS


def parse(arguments: Sequence[str]) -> Config | None:
    """The configuration that ``python -m stellwerk.node`` was called with; None for ``doctor``, which runs no node."""
    parser = argparse.ArgumentParser(prog="python -m stellwerk.node")
    verbs = parser.add_subparsers(dest="verb", required=True)
    dev = verbs.add_parser("dev")
    dev.add_argument("folders", nargs="*", type=Path, default=[Path()])
    dev.add_argument("--env")
    dev.add_argument("--state", type=Path)
    serve = verbs.add_parser("serve")
    serve.add_argument("--state", type=Path, required=True)
    for verb in (dev, serve):
        verb.add_argument("--port", type=int, default=8787)
        verb.add_argument("--control-port", type=int, default=8788)
        verb.add_argument("--ip", default="127.0.0.1")
        verb.add_argument("--json", action="store_true")
        verb.add_argument("--force", action="store_true", help="run on a file system that cannot keep the promise")
    verbs.add_parser("doctor").add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.verb == "doctor":
        return None
    folders = tuple(given.folders) if given.verb == "dev" else ()
    return Config(
        state=given.state or folders[0].joinpath(*STATE_FOLDER),
        workspace=folders,
        environment=getattr(given, "env", None),
        ip=given.ip,
        port=given.port,
        control_port=given.control_port,
        as_json=given.json,
        force=given.force,
    )
