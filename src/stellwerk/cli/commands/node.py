"""``dev`` and ``serve``: this process becomes the node, so that a signal to the command is a signal to the node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter
from cyclopts.types import UInt16

from stellwerk.cli.options import JsonOption

Ip = Annotated[str, Parameter(help="Address to listen on.")]
Port = Annotated[UInt16, Parameter(help="Port of the Workers; 0 takes a free one.")]
Force = Annotated[
    bool, Parameter(help="Run on a file system that cannot keep what is acknowledged (tmpfs, NFS).", negative=())
]
ControlPort = Annotated[UInt16, Parameter(help="Port of the control plane (loopback only); 0 takes a free one.")]


def dev(
    *folders: Annotated[Path, Parameter(help="Workspace, or folders of Workers; without any: the current folder.")],
    port: Port = 8787,
    control_port: ControlPort = 8788,
    ip: Ip = "127.0.0.1",
    state: Annotated[
        Path | None, Parameter(help="State folder; without it `.stellwerk/state` in the workspace.")
    ] = None,
    env: Annotated[str | None, Parameter(help="Environment of the configuration files (`env.<name>`).")] = None,
    force: Force = False,
    json: JsonOption = False,
) -> NoReturn:
    """Run the Workers of a workspace, watch their files, and redeploy what changes."""
    arguments = [str(folder) for folder in folders or (Path(),)]
    arguments += _listening(port, control_port, ip)
    if state is not None:
        arguments += ["--state", str(state)]
    if env is not None:
        arguments += ["--env", env]
    _become_node("dev", arguments, force=force, json=json)


def serve(
    *,
    state: Annotated[Path, Parameter(help="State folder; made when it is missing.")],
    port: Port = 8787,
    control_port: ControlPort = 8788,
    ip: Ip = "127.0.0.1",
    force: Force = False,
    json: JsonOption = False,
) -> NoReturn:
    """Run a node on a state folder, without watching files: Workers come by `stellwerk deploy`."""
    _become_node("serve", ["--state", str(state), *_listening(port, control_port, ip)], force=force, json=json)


def node_command(verb: str, arguments: list[str]) -> list[str]:
    """How the node is run. ``-P``: a file of the workspace named like a module of ours must not take its place."""
    return [sys.executable, "-P", "-m", "stellwerk.node", verb, *arguments]


def _listening(port: int, control_port: int, ip: str) -> list[str]:
    return ["--port", str(port), "--control-port", str(control_port), "--ip", ip]


def _become_node(verb: str, arguments: list[str], *, force: bool, json: bool) -> NoReturn:
    flags = [name for name, given in (("--force", force), ("--json", json)) if given]
    command = node_command(verb, [*arguments, *flags])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)
