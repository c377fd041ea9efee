"""What only the node's code can say of a machine: its SQLite, its event loop, the kernel's means to wall Workers in.

``python -m stellwerk.node doctor --json`` prints what ``checks`` answers; the command line adds its own. Kernel
facilities are *tried*, not looked up in a version number: containers and distributions switch them off.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import apsw

Level = Literal["ok", "warning", "error"]

SQLITE_MIN = (3, 51, 3)
"""The WAL-reset bug that can corrupt a database is in 3.7.0 to 3.51.2."""

_SYS_LANDLOCK_CREATE_RULESET = 444  # the same on x86-64 and aarch64
_LANDLOCK_VERSION = 1
_PROBE_TIMEOUT_S = 10
_UNSHARE_PROBE = (
    "import ctypes, os, sys\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "sys.exit(0 if libc.unshare(int(sys.argv[1])) == 0 else ctypes.get_errno())\n"
)
_CLONE_NEWUSER, _CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x00020000, 0x20000000, 0x40000000


@dataclass(slots=True, frozen=True, kw_only=True)
class Check:
    """One finding. ``cure`` is empty when it is ok."""

    name: str
    level: Level
    found: str
    cure: str = ""


def checks() -> list[Check]:
    """All findings; takes some tens of milliseconds."""
    found = [_sqlite(), _uvloop()]
    if platform.system() == "Linux":
        found += [_seccomp(), _landlock(), _namespaces()]
    else:
        cure = "Workers run without walls here; use Linux for anything that strangers can reach."
        found.append(Check(name="isolation", level="warning", found=f"no walls on {platform.system()}", cure=cure))
    return found


def render(*, as_json: bool) -> str:
    """The findings as JSON, or a line each."""
    if as_json:
        return json.dumps([asdict(check) for check in checks()])
    return "\n".join(f"{check.level:<8}{check.name}: {check.found} {check.cure}".rstrip() for check in checks())


def _sqlite() -> Check:
    text = apsw.sqlite_lib_version()
    found = f"{text} (apsw {apsw.apsw_version()})"
    if tuple(int(part) for part in text.split(".")[:3]) < SQLITE_MIN:
        cure = "Install apsw from its wheel: older SQLite can corrupt a write-ahead log."
        return Check(name="sqlite", level="error", found=found, cure=cure)
    return Check(name="sqlite", level="ok", found=found)


def _uvloop() -> Check:
    if importlib.util.find_spec("uvloop") is None:
        cure = "Install uvloop; without it the node works, with fewer requests a second."
        return Check(name="uvloop", level="warning", found="not installed", cure=cure)
    return Check(name="uvloop", level="ok", found="installed")


def _seccomp() -> Check:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    try:
        available = actions.read_text("ascii").split()
    except OSError:
        available = []
    if not available:
        cure = "Use a kernel with CONFIG_SECCOMP_FILTER; without it system calls of Workers cannot be limited."
        return Check(name="seccomp", level="warning", found="not available", cure=cure)
    if "user_notif" not in available:
        cure = "Use Linux 5.9 or newer; until then connections of C libraries in Workers fail."
        return Check(name="seccomp", level="warning", found="filters, no user notification", cure=cure)
    return Check(name="seccomp", level="ok", found="filters and user notification")


def _landlock() -> Check:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_VERSION))
    if version < 1:
        reason = os.strerror(ctypes.get_errno())
        cure = "Use Linux 5.13 or newer with Landlock enabled, so that Workers see their own files only."
        return Check(name="landlock", level="warning", found=f"not available ({reason})", cure=cure)
    return Check(name="landlock", level="ok", found=f"ABI {version}")


def _namespaces() -> Check:
    """Made in a child of its own: unshare changes the process that calls it."""
    if not Path("/proc/self/ns/user").exists():
        return Check(name="namespaces", level="warning", found="no user namespaces", cure=_NAMESPACE_CURE)
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _UNSHARE_PROBE, str(flags)],
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            capture_output=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="namespaces", level="warning", found=f"could not be tried: {error}", cure=_NAMESPACE_CURE)
    if done.returncode:
        reason = os.strerror(done.returncode)
        return Check(name="namespaces", level="warning", found=f"refused ({reason})", cure=_NAMESPACE_CURE)
    return Check(name="namespaces", level="ok", found="user, mount, pid and network")


_NAMESPACE_CURE = "Allow unprivileged user namespaces; without them the isolation level is reduced."
