"""The Python that a version runs on, as far as its dependencies depend on it."""

from __future__ import annotations

import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """An installed Python. Two with equal ``abi`` and ``platform`` can share installed packages."""

    executable: Path
    version: str  # "3.11.7"
    abi: str  # "cpython-311-x86_64-linux-gnu"
    platform: str  # "linux-x86_64"


def this_interpreter() -> Interpreter:
    """The Python that the node itself runs on, and with it every isolate that asks for no other."""
    return Interpreter(
        executable=Path(sys.executable),
        version=platform.python_version(),
        abi=str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
        platform=sysconfig.get_platform(),
    )
