"""A node as a child process that may be killed at any moment and started again, and the ledger beside it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.fault.kill.worker import write_workspace

READY_S = 30.0
LOG_LINES = 400
ACCOUNT = "/client/v4/accounts/local/workflows"
UNFINISHED = ("queued", "running", "waiting", "paused")


class EndedEarlyError(AssertionError):
    """The node ended before it was ready."""


class NodeProcess:
    """``start`` returns when the node is ready, ``kill`` when it is gone. ``module`` may name a sabotaged build."""

    def __init__(self, workspace: Path, state: Path, *, module: str = "stellwerk.node") -> None:
        self.workspace, self.state, self.module = workspace, state, module
        self.process: asyncio.subprocess.Process | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.starts = 0
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.up = asyncio.Event()  # clients wait for it before they repeat a call
        self._http: httpx.AsyncClient | None = None
        root = Path(__file__).resolve().parents[3]
        self._environment = {**os.environ, "PYTHONPATH": str(root)}

    async def start(self) -> None:
        """Raises ``EndedEarlyError`` when it ended before it was ready."""
        self._ready.clear()
        self.starts += 1
        self.process = await self._spawn()
        self._reading = asyncio.create_task(self._read(self.process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._reading}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            error = EndedEarlyError if self._reading.done() else AssertionError
            raise error("the node did not get ready:\n" + "\n".join(self.log))
        await self._connect()
        self.up.set()

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self.module, "dev", str(self.workspace), "--state", str(self.state)),
            *("--port", "0", "--control-port", "0", "--force"),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def fails_to_start(self) -> str:
        """For a node that must be refused: what it says, once it has ended with 1."""
        process = await self._spawn()
        out, _ = await asyncio.wait_for(process.communicate(), READY_S)
        assert process.returncode == 1, out.decode()
        return out.decode()

    async def _connect(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        facts = json.loads((self.state / "node.json").read_text())
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{facts['control_port']}",
            headers={"Authorization": f"Bearer {(self.state / 'token').read_text().strip()}"},
            trust_env=False,
            timeout=20,
        )

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.log.append(line.decode(errors="replace").rstrip())
            if line.startswith(b"Ready on "):
                self._ready.set()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def ended(self) -> int:
        """Waits until the process is gone."""
        assert self.process is not None and self._reading is not None
        code = await self.process.wait()
        await self._reading
        return code

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    def signal(self, number: signal.Signals) -> None:
        """``up`` follows: a node that is stopped or ended answers nobody."""
        assert self.process is not None
        if number is signal.SIGCONT:
            self.up.set()
        else:
            self.up.clear()
        self.process.send_signal(number)

    async def close(self) -> None:
        """Ends it as an operator would; a node that does not end is killed, and that is an error."""
        if self._http is not None:
            await self._http.aclose()
        if self.process is None or self.process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self.ended(), READY_S)
        except TimeoutError:
            await self.kill()
            raise AssertionError("the node did not end:\n" + "\n".join(self.log)) from None
        assert code == 0, "\n".join(self.log)

    # -- the control API ----------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One call; raises ``httpx.TransportError`` when no whole answer came: the outcome is unknown."""
        assert self._http is not None
        try:
            return await self._http.request(method, path, json=body)
        except RuntimeError as error:  # the client of the node before, closed under a call that was on its way
            raise httpx.TransportError(str(error)) from error

    async def create(self, workflow: str, items: list[tuple[str, Any]]) -> None:
        """Instances that must be accepted."""
        batch = [{"instance_id": instance, "params": params} for instance, params in items]
        for begin in range(0, len(batch), 100):
            answer = await self.call("POST", f"{ACCOUNT}/{workflow}/instances/batch", batch[begin : begin + 100])
            assert answer.status_code == 200, answer.text

    async def describe(self, workflow: str, instance: str) -> dict[str, Any]:
        answer = await self.call("GET", f"{ACCOUNT}/{workflow}/instances/{instance}")
        assert answer.status_code == 200, answer.text
        return {**answer.json()["result"], "id": instance}

    async def count(self, workflow: str, status: str = "") -> int:
        answer = await self.call("GET", f"{ACCOUNT}/{workflow}/instances?per_page=1&status={status}")
        assert answer.status_code == 200, answer.text
        total: int = answer.json()["result_info"]["total_count"]
        return total

    async def instances(self, workflow: str) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            answer = await self.call("GET", f"{ACCOUNT}/{workflow}/instances?per_page=1000&cursor={cursor}")
            assert answer.status_code == 200, answer.text
            body = answer.json()
            found += [row["id"] for row in body["result"]]
            cursor = body["result_info"]["cursor"]
            if not cursor or not body["result"]:
                return found

    async def isolates(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", "/v1/system")).json()["result"]["isolates"]
        return found

    async def until_ended(self, workflow: str, within_s: float) -> dict[str, int]:
        """Returns when no instance is on its way any more; or, after ``within_s``, how many still are.

        The ended ones are counted, since those stay: one that goes from ``waiting`` to ``running`` between two looks
        would be in neither."""
        deadline = time.monotonic() + within_s
        while True:
            ended = [await self.count(workflow, status) for status in ("complete", "errored", "terminated")]
            if sum(ended) == await self.count(workflow):
                return {}
            if time.monotonic() > deadline:
                left = {status: await self.count(workflow, status) for status in UNFINISHED}
                return {status: count for status, count in left.items() if count}
            await asyncio.sleep(0.05)  # bounded


class LedgerProcess:
    """The ledger, for as long as the test lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._http = httpx.AsyncClient(trust_env=False, timeout=20)

    async def __aenter__(self) -> LedgerProcess:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("ledger.py")), str(self.path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        self.url = f"http://127.0.0.1:{int(line.split()[1])}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()
        assert self._process is not None
        await self._process.communicate(b"")  # closes its input: it ends

    async def count(self) -> int:
        return int((await self._http.get(self.url + "/count")).json())

    async def reaches(self, count: int, within_s: float = 30.0) -> None:
        """Returns when the ledger has ``count`` effects."""
        deadline = time.monotonic() + within_s
        while int((await self._http.get(f"{self.url}/wait?count={count}")).json()) < count:
            assert time.monotonic() < deadline, f"the ledger did not reach {count} effects within {within_s} s"

    def effects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@asynccontextmanager
async def a_node_and_a_ledger(
    folder: Path, *, module: str = "stellwerk.node"
) -> AsyncIterator[tuple[NodeProcess, LedgerProcess]]:
    """A ready node with the Worker of ``worker.py`` in ``folder``; its last words are shown when the test fails."""
    async with LedgerProcess(folder / "ledger.jsonl") as ledger:
        write_workspace(folder / "workspace", ledger.url)
        node = NodeProcess(folder / "workspace", folder / "state", module=module)
        try:
            await node.start()
            yield node, ledger
        except BaseException:
            print("\n".join(node.log))
            raise
        finally:
            await node.close()


async def kill_process(pid: int, within_s: float = 10.0) -> tuple[float, float]:
    """SIGKILL to a process that is nobody's child here; the moments between which it died."""
    descriptor = os.pidfd_open(pid)
    try:
        begun = time.monotonic()
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        ready, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], within_s)
        assert ready, f"process {pid} did not die within {within_s} s"
        return begun, time.monotonic()
    finally:
        os.close(descriptor)
