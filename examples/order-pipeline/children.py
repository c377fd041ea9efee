"""The processes that the demo starts: the outside server and the node. None of them outlives the demo.

Each child leads a process group of its own, so that Ctrl-C in the terminal reaches only the demo, which then ends its
children in order; and the kernel kills a child whose parent dies without doing that (PDEATHSIG, Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
STOP_S = 10.0  # a node may finish what it has in hand; then it is killed


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One program under our control; its output goes to a file."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.argv, self.log = name, list(argv), log
        self.env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def exit_code(self) -> int | None:
        """None while it runs (or was never started)."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up. What it has started has to end by itself."""
        if self._process is None:
            return
        self._note_family()
        self._process.kill()
        self._process.wait()

    def stop(self) -> list[int]:
        """Asks politely, then kills. Returns the ids of descendants that were still there and had to be killed."""
        if self._process is None:
            return []
        self._note_family()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self.kill()
        _, left = psutil.wait_procs(self._family, timeout=2)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process = None
        return [process.pid for process in left]

    def _note_family(self) -> None:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            known = set(self._family)
            self._family += [p for p in psutil.Process(self._process.pid).children(recursive=True) if p not in known]

    def last_words(self, lines: int = 25) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()
