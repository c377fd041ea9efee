"""A node for a benchmark: started on a fresh state folder, asked over its control plane, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

WORKERS = Path(__file__).parent / "workers"
READY_S = 30


class Caller:
    """Calls of the control plane over one connection that stays open, one at a time.

    On a bare socket, because what is timed is the platform: the standard library's client reads the headers of an
    answer as those of a mail, which takes longer (0.3 ms) than the node needs for a call; httpx takes twice that.
    """

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n".encode()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The result of a call below the account's workflows. Raises ``RuntimeError`` for any answer but 200."""
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads(self.ask(method, f"/client/v4/accounts/local/workflows{path}", data))["result"]

    def ask(self, method: str, path: str, data: bytes = b"") -> bytes:
        """The body of any answer of the control plane."""
        line = f"{method} {path} HTTP/1.1\r\n".encode()
        self._socket.sendall(b"%b%bContent-Length: %d\r\n\r\n%b" % (line, self._headers, len(data), data))
        head, _, text = self._read().partition(b"\r\n\r\n")
        left = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1]) - len(text)  # type: ignore[index]
        while left > 0:
            more = self._read()
            text, left = text + more, left - len(more)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{method} {path}: {head[:20]!r} {text.decode()}")
        return text

    def _read(self) -> bytes:
        """What has come. The node writes the head of an answer in one piece, with the body or before it."""
        data = self._socket.recv(1024 * 1024)
        if not data:
            raise RuntimeError("the node has closed the connection")
        return data

    def close(self) -> None:
        self._socket.close()


class Node:
    """A running node; ``api`` talks to its workflows, ``url`` is where Workers answer."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "stellwerk.node", "dev", str(WORKERS), "--state", str(self.state)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--control-port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Ready on "):
                break
        else:
            raise RuntimeError("the node did not start")
        facts = json.loads((self.state / "node.json").read_text())
        self.url = f"http://127.0.0.1:{facts['ingress_port']}"
        self.control = f"http://127.0.0.1:{facts['control_port']}"
        token = (self.state / "token").read_text().strip()
        self.api = Caller(facts["control_port"], token)

    def stop(self) -> None:
        self.api.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def create_many(self, workflow: str, count: int) -> None:
        """``count`` instances, a hundred per call."""
        while count > 0:
            size = min(100, count)
            self.api.call("POST", f"/{workflow}/instances/batch", [{}] * size)
            count -= size

    def create_and_wait(self, workflow: str) -> None:
        """One instance, seen complete."""
        status = self.api.call("POST", f"/{workflow}/instances?wait_ms=30000", {})["status"]
        if status != "complete":
            raise RuntimeError(f"{workflow} ended {status}")

    def metric(self, name: str) -> float:
        for line in httpx.get(f"{self.control}/metrics").text.splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Reads the node's database from outside."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/stellwerk.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    @property
    def rss_mib(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    @property
    def tree_rss_mib(self) -> float:
        process = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 2**20


@contextlib.contextmanager
def a_node() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="stellwerk-bench-"))
    node = Node(folder / "state")
    try:
        yield node
    finally:
        with contextlib.suppress(Exception):
            node.stop()
        if node.process.poll() is None:
            node.process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def circumstances() -> dict[str, Any]:
    """What a figure needs to be worth anything: machine, commit, load of others."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=True,
    ).stdout.strip()
    return {
        "commit": commit,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }
