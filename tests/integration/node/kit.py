"""A real node for tests: its process, its state folder, its ports, and Workers written into a workspace.

Nothing here imports the node: what these tests see is what a user sees, over sockets, files and output.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

T = TypeVar("T")
DEADLINE_S = 20.0
POLL_S = 0.01
TERMINAL = ("complete", "errored", "terminated")


def a_worker(workspace: Path, name: str, source: str, *, toml: str = "", **config: Any) -> Path:
    """A folder with a Worker: ``wrangler.jsonc``, ``src/entry.py``, and ``toml`` as its ``stellwerk.toml``.

    Returns the path of the program.
    """
    folder = workspace / name
    (folder / "src").mkdir(parents=True, exist_ok=True)
    wrangler = {
        "name": name,
        "main": "src/entry.py",
        "compatibility_date": "2026-06-01",
        "compatibility_flags": ["python_workers"],
        **config,
    }
    (folder / "wrangler.jsonc").write_text(json.dumps(wrangler, indent=2))
    if toml:
        (folder / "stellwerk.toml").write_text(toml)
    entry = folder / "src" / "entry.py"
    entry.write_text(textwrap.dedent(source))
    return entry


def until(look: Callable[[], T | None], what: object, *, deadline_s: float = DEADLINE_S) -> T:
    """The first answer of ``look`` that is neither None nor False."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < end, f"after {deadline_s:g} s still not: {what() if callable(what) else what}"
        select.select((), (), (), POLL_S)


class Output:
    """What a process writes, line by line as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._changed = threading.Condition()
        assert process.stdout is not None
        self._stream = process.stdout
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def close(self) -> None:
        self._thread.join(DEADLINE_S)
        self._stream.close()

    def wait_for(self, match: Callable[[str], T | None], *, since: int = 0, deadline_s: float = DEADLINE_S) -> T:
        """The first answer of ``match`` to a line from number ``since`` on that is neither None nor False."""
        end = time.monotonic() + deadline_s
        with self._changed:
            while True:
                while since < len(self.lines):
                    found = match(self.lines[since])
                    if found is not None and found is not False:
                        return found
                    since += 1
                left = end - time.monotonic()
                if self.ended or left <= 0 or not self._changed.wait(left):
                    raise AssertionError("no such line in:\n" + "\n".join(self.lines[-60:]))


class ANode:
    """One node process. ``with ANode(workspace) as node: ...``"""

    def __init__(
        self,
        workspace: Path,
        *,
        verb: str = "dev",
        state: Path | None = None,
        as_json: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.workspace = workspace
        self.state = state or workspace / ".stellwerk" / "state"
        self._verb, self._as_json, self._env = verb, as_json, dict(env or {})
        self._process: subprocess.Popen[str] | None = None
        self._http: httpx.Client | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def command(self, *more: str) -> list[str]:
        folders = [str(self.workspace)] if self._verb == "dev" else []
        return [
            *(sys.executable, "-P", "-m", "stellwerk.node", self._verb, *folders, "--state", str(self.state)),
            *("--port", "0", "--control-port", "0", "--force", *more),
        ]

    def start(self) -> ANode:
        self._process = subprocess.Popen(
            self.command(*(["--json"] if self._as_json else [])),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self._env},
        )
        self.output = Output(self._process)
        self.ingress = self.output.wait_for(lambda line: line.partition("Ready on ")[2])
        facts = json.loads((self.state / "node.json").read_text())
        self.port, self.control_port = facts["ingress_port"], facts["control_port"]
        self.token = (self.state / "token").read_text().strip()
        self._http = httpx.Client(trust_env=False, timeout=DEADLINE_S, limits=httpx.Limits(max_connections=300))
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def http(self) -> httpx.Client:
        assert self._http is not None
        return self._http

    def descendants(self) -> list[psutil.Process]:
        """The zygote, its isolates, and whatever else this node has started."""
        return psutil.Process(self.pid).children(recursive=True)

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """Asks the node to end and waits for that; its exit code. Stopping twice is harmless."""
        if self._http is not None:
            self._http.close()
            self._http = None
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(by)
        try:
            return process.wait(DEADLINE_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self.output.close()

    def __enter__(self) -> ANode:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- requests -----------------------------------------------------------------------------------------------------

    def ask(self, worker: str, path: str = "/", *, method: str = "GET", **more: Any) -> httpx.Response:
        """A request to ``<worker>.localhost``."""
        headers = httpx.Headers(more.pop("headers", None))
        headers.setdefault("host", f"{worker}.localhost")
        return self.http.request(method, f"{self.ingress}{path}", headers=headers, **more)

    def api(self, path: str, *, method: str = "GET", **more: Any) -> httpx.Response:
        """A call of the control plane, with the token; ``path`` is what follows the account."""
        return self.http.request(
            method,
            f"http://127.0.0.1:{self.control_port}/client/v4/accounts/local{path}",
            headers={"authorization": f"Bearer {self.token}", **more.pop("headers", {})},
            **more,
        )

    def result(self, path: str, *, method: str = "GET", **more: Any) -> Any:
        """``result`` of a call that must succeed."""
        answer = self.api(path, method=method, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()["result"]

    def system(self) -> dict[str, Any]:
        """What ``/v1/system`` tells of the node."""
        answer = self.http.get(
            f"http://127.0.0.1:{self.control_port}/v1/system", headers={"authorization": f"Bearer {self.token}"}
        )
        found: dict[str, Any] = answer.json()["result"]
        return found

    def metric(self, name: str) -> float:
        """The value of a line of ``/metrics``."""
        text = self.http.get(f"http://127.0.0.1:{self.control_port}/metrics").text
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))

    # -- runs ---------------------------------------------------------------------------------------------------------

    def create(self, workflow: str, params: Any = None, *, instance_id: str | None = None) -> str:
        """A new instance, by the control plane; its id."""
        body: dict[str, Any] = {} if params is None else {"params": params}
        if instance_id is not None:
            body["instance_id"] = instance_id
        made: str = self.result(f"/workflows/{workflow}/instances", method="POST", json=body)["id"]
        return made

    def instance(self, workflow: str, instance_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.result(f"/workflows/{workflow}/instances/{instance_id}")
        return found

    def ended(self, workflow: str, instance_id: str, *statuses: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The instance once its status is one of ``statuses`` (any terminal one if none is named)."""
        wanted = statuses or TERMINAL
        seen: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            seen.update(self.instance(workflow, instance_id))
            if not statuses or seen["status"] in wanted or seen["status"] not in TERMINAL:
                return dict(seen) if seen["status"] in wanted else None
            raise AssertionError(f"{instance_id} ended otherwise: {seen}")

        return until(look, lambda: f"{wanted}: {seen}", deadline_s=deadline_s)

    def send_event(self, workflow: str, instance_id: str, event_type: str, payload: Any = None) -> httpx.Response:
        return self.api(
            f"/workflows/{workflow}/instances/{instance_id}/events/{event_type}", method="POST", json=payload
        )

    # -- the log ------------------------------------------------------------------------------------------------------

    def record(self, *, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first record of the log (JSON) whose fields have these values, or fulfil these functions."""

        def match(line: str) -> dict[str, Any] | None:
            with contextlib.suppress(ValueError):
                record: dict[str, Any] = json.loads(line)
                if all(_fits(record.get(name), wanted) for name, wanted in fields.items()):
                    return record
            return None

        return self.output.wait_for(match, since=since)


def _fits(value: Any, wanted: Any) -> bool:
    return bool(value is not None and wanted(value)) if callable(wanted) else value == wanted


def a_node(workspace: Path, **options: Any) -> Iterator[ANode]:
    """Body of a module's fixture: a node on the Workers in ``workspace``."""
    with ANode(workspace, **options) as node:
        yield node
