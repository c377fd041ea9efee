"""The command line against a real node with real isolates: deploy, trigger, describe, send an event, stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from stellwerk.cli.exits import Exit

from .test_cli import DEADLINE_S, Ended, stellwerk

WRANGLER = {
    "name": "orders",
    "main": "src/entry.py",
    "compatibility_date": "2026-01-01",
    "compatibility_flags": ["python_workers"],
    "workflows": [{"name": "pipeline", "binding": "FLOW", "class_name": "Pipeline"}],
}
SOURCE = """
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("asked")
        return Response("hi")


class Pipeline(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("charge")
        async def charge():
            return {"paid": event["payload"]["amount"]}

        paid = await charge()
        shipped = await step.wait_for_event("shipping", "shipped", timeout="1 hour")
        return {"paid": paid["paid"], "by": shipped["payload"]}
"""


def worker_folder(root: Path) -> Path:
    folder = root / "orders"
    (folder / "src").mkdir(parents=True)
    (folder / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (folder / "src" / "entry.py").write_text(SOURCE)
    return folder


@asynccontextmanager
async def running(*arguments: str, cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A node that is ready; it is asked to stop at the end and must stop with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stellwerk.cli",
        *arguments,
        *("--port", "0", "--control-port", "0", "--force"),
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not (line := await process.stdout.readline()).startswith(b"Ready on "):
                assert line, "the node ended before it was ready"
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def described(cwd: Path, *, until: str) -> Ended:
    """The latest instance once it has the status."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        ended = await stellwerk("workflows", "instances", "describe", "pipeline", "--json", cwd=cwd)
        if ended.code == Exit.OK and ended.json()["status"] == until:
            return ended
        assert time.monotonic() < deadline, ended


def test_a_worker_is_deployed_to_a_served_node_and_its_run_is_steered_to_its_end(tmp_path: Path) -> None:
    worker_folder(tmp_path)
    state = tmp_path / ".stellwerk" / "state"

    async def scenario() -> None:
        async with running("serve", "--state", str(state), cwd=tmp_path) as process:
            assert json.loads((state / "node.json").read_text())["pid"] == process.pid  # the command *is* the node
            ended = await stellwerk("deploy", "orders", "--json", cwd=tmp_path)
            assert ended.code == Exit.OK, ended.err
            ended = await stellwerk("workflows", "trigger", "pipeline", '{"amount": 7}', "--id", "o-1", cwd=tmp_path)
            assert ended.out == "o-1\n", ended.err
            waiting = (await described(tmp_path, until="waiting")).json()
            assert waiting["stellwerk"]["why"].startswith('waits for the event "shipped" until ')
            assert [step["name"] for step in waiting["steps"]] == ["charge-1", "shipping-1"]
            ended = await stellwerk(
                *("workflows", "instances", "send-event", "pipeline", "latest"),
                *("--type", "shipped", "--payload", '{"carrier": "x"}'),
                cwd=tmp_path,
            )
            assert ended.code == Exit.OK, ended.err
            complete = (await described(tmp_path, until="complete")).json()
            assert complete["output"] == {"paid": 7, "by": {"carrier": "x"}}
            assert all(step.get("success") or step.get("finished") for step in complete["steps"])
            ended = await stellwerk("workflows", "trigger", "pipeline", "--id", "o-1", cwd=tmp_path)
            assert ended.code == Exit.REFUSED
            ended = await stellwerk("workflows", "instances", "terminate", "pipeline", "o-1", cwd=tmp_path)
            assert ended.code == Exit.REFUSED
        ended = await stellwerk("workflows", "list", cwd=tmp_path)
        assert ended.code == Exit.UNREACHABLE

    asyncio.run(scenario())


def test_dev_serves_its_workspace_and_doctor_knows_that_the_ports_are_its_own(tmp_path: Path) -> None:
    worker_folder(tmp_path)
    state = tmp_path / ".stellwerk" / "state"

    async def scenario() -> None:
        async with running("dev", cwd=tmp_path):
            node = json.loads((state / "node.json").read_text())
            control, port = node["control_port"], node["ingress_port"]
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"http://127.0.0.1:{port}/")).text == "hi"
                assert (await http.get(f"http://127.0.0.1:{control}/readyz")).json() == {"ready": True}
                metrics = (await http.get(f"http://127.0.0.1:{control}/metrics")).text
                assert 'stellwerk_requests_total{status="2xx"} 1.0' in metrics
                token = (state / "token").read_text().strip()
                headers = {"Authorization": f"Bearer {token}"}
                facts = (await http.get(f"http://127.0.0.1:{control}/v1/system", headers=headers)).json()["result"]
                assert facts["store"]["synchronous"]
            ended = await stellwerk(
                *("doctor", "--json", "--port", str(port), "--control-port", str(control)), cwd=tmp_path
            )
            found = {check["name"]: check for check in ended.json()}
            for held in (port, control):
                assert found[f"port {held}"]["found"].startswith("held by the node")
            assert {"python", "sqlite", "seccomp", "landlock", "namespaces", "state folder", "clock"} <= set(found)
            assert found["sqlite"]["level"] == "ok"

    asyncio.run(scenario())


def test_a_taken_port_is_an_error_of_doctor(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            ended = await stellwerk("doctor", "--json", "--port", str(port), "--control-port", "0", cwd=tmp_path)
            found = {check["name"]: check for check in ended.json()}
            assert (found[f"port {port}"]["level"], ended.code) == ("error", Exit.FAILED)
            assert "--port" in found[f"port {port}"]["cure"]

    asyncio.run(scenario())
