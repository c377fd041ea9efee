"""How a node ends and begins again, who may have its state folder, and the command line against it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.node.kit import DEADLINE_S, ANode, Output, a_worker, until

SHOP = """
import asyncio

from js import ReadableStream
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint

opened = asyncio.Event()


async def numbers():
    yield b"first "
    await opened.wait()
    yield b"last"


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if "hold" in request.url:
            print("holding")
            await asyncio.sleep(0.3)  # bounded; what a request under way may take while the node drains
            return Response("finished")
        if "stream" in request.url:
            return Response(ReadableStream.from_(numbers()))
        if "open" in request.url:
            opened.set()
        if "later" in request.url:
            async def work():
                await asyncio.sleep(0.2)  # bounded
                print("finished later")
            self.ctx.waitUntil(work())
        return Response("hello")


class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("before")
        async def before():
            print("before ran")
            return 1
        first = await before()
        got = await step.wait_for_event("wait", "go", timeout="1 hour")
        return [first, got.payload]


class Busy(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("busy")
        async def busy():
            print("busy began")
            await asyncio.sleep(0 if event["payload"] == "quick" else 3600)  # bounded by the node's end
        await busy()
        return "done"
"""


def write_shop(workspace: Path) -> Path:
    return a_worker(
        workspace,
        "shop",
        SHOP,
        workflows=[
            {"name": "flow", "binding": "FLOW", "class_name": "Flow"},
            {"name": "busy", "binding": "BUSY", "class_name": "Busy"},
        ],
    )


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_finished_then_the_node_ends_with_0_and_nothing_is_left(
    tmp_path: Path, by: signal.Signals
) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE_S)
        connection.request("GET", "/hold", headers={"Host": "shop.localhost"})
        node.record(text="holding")
        children = node.descendants()
        assert len(children) >= 3  # the zygote, an isolate, and the process that writes
        os.kill(node.pid, by)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"finished")
        assert answer.headers["connection"] == "close"
        connection.close()
        port, state = node.port, node.state
        assert node.stop(by=by) == 0
        assert all_gone(children)
        assert not (state / "node.json").exists()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_work_after_an_answer_is_finished_too(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        assert node.ask("shop", "/later").text == "hello"
        output = node.output
        assert node.stop() == 0
        assert any("finished later" in line for line in output.lines)


def test_a_killed_node_takes_its_processes_with_it_and_its_runs_go_on_in_the_next(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        waiting = node.create("flow", {})
        node.ended("flow", waiting, "waiting")
        busy = node.create("busy", "slow")
        node.record(text="busy began", instance=busy)
        children = node.descendants()
        assert node.stop(by=signal.SIGKILL) == -signal.SIGKILL
        until(lambda: all_gone(children), "zygote and isolates have gone")
    with ANode(tmp_path) as node:
        node.record(text="busy began", instance=busy)  # a step that had not ended is run again
        assert node.send_event("flow", waiting, "go", "on").is_success
        assert node.ended("flow", waiting)["output"] == [1, "on"]
        assert not any("before ran" in line for line in node.output.lines)  # one that had ended is not


def test_what_runs_was_on_a_node_that_ended_politely_goes_on_in_the_next(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        busy = node.create("busy", "slow")
        node.record(text="busy began", instance=busy)
        assert node.stop() == 0
    with ANode(tmp_path) as node:
        node.record(text="busy began", instance=busy)
        assert node.instance("busy", busy)["status"] == "running"
        assert node.api(
            f"/workflows/busy/instances/{busy}/status", method="PATCH", json={"status": "terminate"}
        ).is_success
        assert node.ended("busy", busy)["status"] == "terminated"


def test_a_second_node_on_the_same_state_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        second = subprocess.run(
            ANode(tmp_path).command(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert second.returncode == 1
        assert str(node.state) in second.stderr
        assert str(node.pid) in second.stderr
        assert "Traceback" not in second.stderr
        assert node.ask("shop").text == "hello"


def test_a_port_that_is_taken_is_named_and_everything_is_put_back(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = subprocess.run(
            [*ANode(tmp_path).command(), "--port", str(port)],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert failed.returncode == 1
    assert str(port) in failed.stderr
    assert "Traceback" not in failed.stderr
    with ANode(tmp_path) as node:
        assert node.ask("shop").text == "hello"


def test_an_empty_workspace_says_what_a_worker_is(tmp_path: Path) -> None:
    failed = subprocess.run(ANode(tmp_path).command(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert failed.returncode == 1
    assert "wrangler.jsonc" in failed.stderr


# -- the command line -------------------------------------------------------------------------------------------------


def stellwerk(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "stellwerk.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def test_a_worker_is_deployed_to_a_serving_node_and_replaced_there(tmp_path: Path) -> None:
    project, state = tmp_path / "project", tmp_path / "state"
    entry = write_shop(project)
    with ANode(tmp_path, verb="serve", state=state) as node:
        assert node.ask("shop").status_code == 404
        deployed = stellwerk("deploy", str(project / "shop"), "--state", str(state), cwd=tmp_path)
        assert deployed.returncode == 0, deployed.stderr
        assert node.ask("shop").text == "hello"
        waiting = node.create("flow", {})
        node.ended("flow", waiting, "waiting")
        entry.write_text(SHOP.replace('Response("hello")', 'Response("hello again")').replace("[first", "[7, first"))
        deployed = stellwerk("deploy", str(project / "shop"), "--state", str(state), cwd=tmp_path)
        assert deployed.returncode == 0, deployed.stderr
        assert node.ask("shop").text == "hello again"
        assert node.send_event("flow", waiting, "go").is_success
        assert node.ended("flow", waiting)["output"] == [1, {}]
        assert node.stop() == 0
    with ANode(tmp_path, verb="serve", state=state) as node:  # what was deployed serves on, without any files
        assert node.ask("shop").text == "hello again"


def test_runs_are_listed_described_sent_events_and_terminated_from_the_command_line(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:

        def command(*arguments: str) -> Any:
            done = stellwerk("workflows", *arguments, "--json", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert {each["name"] for each in command("list")} == {"flow", "busy"}
        made = [node.create("flow", {}, instance_id=f"run-{n}") for n in range(3)]
        for each in made:
            node.ended("flow", each, "waiting")
        listed = command("instances", "list", "flow")
        assert [each["id"] for each in listed] == ["run-2", "run-1", "run-0"]
        assert {each["status"] for each in listed} == {"waiting"}
        command("instances", "terminate", "flow", "run-0")
        assert command("instances", "describe", "flow", "run-0")["status"] == "terminated"
        command("instances", "send-event", "flow", "run-1", "--type", "go", "--payload", '"here"')
        node.ended("flow", "run-1", "complete")
        assert command("instances", "describe", "flow", "run-1")["output"] == [1, "here"]
        unknown = stellwerk("workflows", "instances", "describe", "flow", "nobody", cwd=tmp_path)
        assert unknown.returncode != 0
        assert "instance.not_found" in unknown.stderr
        assert "Traceback" not in unknown.stderr


def test_the_control_plane_demands_its_token(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        assert (node.state / "token").stat().st_mode & 0o777 == 0o600
        url = f"http://127.0.0.1:{node.control_port}/client/v4/accounts/local/workflows"
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = node.http.get(url, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["success"] is False
        assert node.http.get(f"http://127.0.0.1:{node.control_port}/healthz").text == "ok\n"


def test_the_output_ends_with_the_node(tmp_path: Path) -> None:
    """No process of the node holds its output open: who reads it to the end gets there."""
    write_shop(tmp_path)
    with ANode(tmp_path) as node:
        node.ask("shop")
        output: Output = node.output
        node.stop(by=signal.SIGKILL)
        assert output.ended
