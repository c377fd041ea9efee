"""``doctor``: whether this machine can run a node well. Each check says ok, warning or error, and what to do.

What only the node's own code can tell (its SQLite, uvloop, the kernel's walls) is asked of a child process,
``python -m stellwerk.node doctor --json``: the command line never imports the node.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from stellwerk.cli.commands.node import ControlPort, Ip, Port, node_command
from stellwerk.cli.exits import CommandError
from stellwerk.cli.options import JsonOption, StateOption
from stellwerk.cli.place import find_state, read_node_file
from stellwerk.cli.render import Output

Level = Literal["ok", "warning", "error"]
PYTHON_MIN = (3, 11)
DISK_FREE_MIN_BYTES = 1024**3  # a journal, its write-ahead log and the dependencies of a few Workers
NODE_CHECKS_TIMEOUT_S = 30
_EPOCH_MIN_S = 1_767_225_600  # 2026-01-01: a clock before this release's year has lost its battery


@dataclass(slots=True, frozen=True, kw_only=True)
class Check:
    """One finding. ``cure`` is empty when it is ok."""

    name: str
    level: Level
    found: str
    cure: str = ""


def doctor(
    *,
    state: StateOption = None,
    port: Port = 8787,
    control_port: ControlPort = 8788,
    ip: Ip = "127.0.0.1",
    json: JsonOption = False,
    strict: Annotated[bool, Parameter(help="Exit with 1 on warnings too.", negative=())] = False,
) -> None:
    """Check Python, kernel, SQLite, ports, state folder and clock, and say what to do about each finding."""
    folder = find_state(state, cwd=Path.cwd())
    checks = [
        _python(),
        _system(),
        *_node_checks(),
        *_ports(folder, ((ip, port, "--port"), ("127.0.0.1", control_port, "--control-port"))),
        _state_folder(folder),
        _clock(),
    ]
    output = Output(as_json=json)
    if output.as_json:
        output.json([asdict(check) for check in checks])
    else:
        rows = [(check.name, check.level, check.found, check.cure) for check in checks]
        output.table(("CHECK", "LEVEL", "FOUND", "CURE"), rows, empty="")
    failed = [check for check in checks if check.level == "error" or (strict and check.level == "warning")]
    if failed:
        raise CommandError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(check.name for check in failed)}.",
            cure="Each failed check names its cure.",
            code="doctor.failed",
        )


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info < PYTHON_MIN or platform.python_implementation() != "CPython":
        return Check(name="python", level="error", found=found, cure="Install CPython 3.11 or newer.")
    return Check(name="python", level="ok", found=found)


def _system() -> Check:
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() == "Linux":
        return Check(name="system", level="ok", found=found)
    cure = "Good for `stellwerk dev` without walls around Workers; use Linux for anything that strangers can reach."
    return Check(name="system", level="warning", found=found, cure=cure)


def _node_checks() -> list[Check]:
    """The checks of the node's own code. A node that cannot even start is a finding, not a crash of ``doctor``."""
    try:
        done = subprocess.run(
            node_command("doctor", ["--json"]),
            capture_output=True,
            text=True,
            timeout=NODE_CHECKS_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return [Check(**item) for item in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        found = f"no answer within {NODE_CHECKS_TIMEOUT_S} s"
    except (OSError, ValueError, TypeError):
        lines = done.stderr.strip().splitlines()
        found = f"exit code {done.returncode}: {lines[-1] if lines else 'no message'}"
    return [Check(name="node", level="error", found=found, cure="Install stellwerk again, with its dependencies.")]


def _ports(folder: Path | None, wanted: Iterable[tuple[str, int, str]]) -> list[Check]:
    """Whether each port can be had; one that the node of this state folder has itself is in good hands."""
    own: set[int] = set()
    if folder is not None:
        try:
            node = read_node_file(folder)
            own = {node.control_port, node.ingress_port} if _alive(node.pid) else set()
        except CommandError:
            own = set()
    return [_port(ip, port, option, own=port in own) for ip, port, option in wanted]


def _port(ip: str, port: int, option: str, *, own: bool) -> Check:
    name = f"port {port}"
    if own:
        return Check(name=name, level="ok", found=f"held by the node of this state folder on {ip}")
    try:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ip, port))
    except OSError as error:
        cure = f"Stop the program that has it, or name another port with {option}."
        return Check(name=name, level="error", found=f"cannot be had on {ip}: {error.strerror}", cure=cure)
    return Check(name=name, level="ok", found=f"free on {ip}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _state_folder(folder: Path | None) -> Check:
    name = "state folder"
    if folder is None:
        return Check(name=name, level="ok", found="none yet; the node makes it")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        cure = "Make it writable for this user, or name another folder with --state."
        return Check(name=name, level="error", found=f"{existing} cannot be written", cure=cure)
    stat = os.statvfs(existing)
    free = stat.f_bavail * stat.f_frsize
    found = f"{folder}, {free / 1024**3:.1f} GiB free"
    if free < DISK_FREE_MIN_BYTES:
        return Check(name=name, level="warning", found=found, cure="Free some disk space: a full disk stops all runs.")
    return Check(name=name, level="ok", found=found)


def _clock() -> Check:
    now = time.time()
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < _EPOCH_MIN_S:
        return Check(name="clock", level="error", found=found, cure="Set the clock and run a time service (NTP).")
    return Check(name="clock", level="ok", found=found)
