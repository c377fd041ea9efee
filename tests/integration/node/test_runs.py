"""Durable runs through the real node: large values, many steps, children, replaced versions, restarts, concurrency."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.node.kit import ANode, a_node, a_worker, until

FLOWS = '''
import asyncio
import hashlib

from workers import Response, WorkerEntrypoint, WorkflowEntrypoint

notes = []
gate = {"open": asyncio.Event(), "running": 0, "most": 0}


def digest(value):
    return hashlib.sha256(bytes(value)).hexdigest()


class Large(WorkflowEntrypoint):
    """Large params, a large result, a large event: all of them seen again after a restart."""

    async def run(self, event, step):
        @step.do("large")
        async def large():
            notes.append("large")
            return b"r" * 500_000
        made = await large()
        got = await step.wait_for_event("large event", "large", timeout="1 hour")
        await step.wait_for_event("once more", "more", timeout="1 hour")
        return {
            "params": [len(event["payload"]["text"]), event["payload"]["text"][:3]],
            "result": [len(made), digest(made)],
            "event": [len(got.payload["text"]), got.payload["text"][:3]],
            "again": "y" * 200_000,
        }


class Parallel(WorkflowEntrypoint):
    async def run(self, event, step):
        together = asyncio.Barrier(100)
        def one(n):
            @step.do(f"step {n}")
            async def work():
                await together.wait()
                return n
            return work
        return sum(await asyncio.gather(*(one(n)() for n in range(100))))


class Long(WorkflowEntrypoint):
    """A thousand steps, then a wait: what wakes it must replay them all, and run none again."""

    async def run(self, event, step):
        total = 0
        for n in range(event["payload"]["steps"]):
            @step.do("count")
            async def count():
                notes.append(n)
                return n
            total += await count()
        await step.wait_for_event("wait", "go", timeout="1 hour")
        return total


class Parent(WorkflowEntrypoint):
    async def run(self, event, step):
        await step.wait_for_event("wait", "go", timeout="1 hour")
        @step.do("child")
        async def child():
            made = await self.env.CHILD.create(id="child-of-" + event["instanceId"])
            return made.id
        return [await child(), await self.helper(step)]

    async def helper(self, step):
        @step.do("ask")
        async def ask():
            return await self.env.HELPER.version()
        return await ask()


class Child(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("ask")
        async def ask():
            return await self.env.HELPER.version()
        return await ask()


class One(WorkflowEntrypoint):
    """``concurrency.limit`` 1."""

    async def run(self, event, step):
        @step.do("alone")
        async def alone():
            gate["running"] += 1
            gate["most"] = max(gate["most"], gate["running"])
            await gate["open"].wait()
            gate["running"] -= 1
            notes.append(event["instanceId"])
        await alone()


class Sleeper(WorkflowEntrypoint):
    async def run(self, event, step):
        await step.sleep("nap", event["payload"])
        return "awake"


class Step(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("only")
        async def only():
            return event["payload"]
        return await only()


class Asks(WorkflowEntrypoint):
    """Uses what a handler may use, inside of steps: other Workers, answers that are not read."""

    async def run(self, event, step):
        @step.do("unread")
        async def unread():
            return (await self.env.HELPER.fetch("http://helper/endless")).status
        @step.do("read")
        async def read():
            return await (await self.env.HELPER.fetch("http://helper/text")).text()
        @step.do("raises", config={"retries": {"limit": 0, "delay": 0}})
        async def raises():
            await self.env.HELPER.fail()
        try:
            await raises()
        except Exception as error:
            caught = [type(error).__name__, str(error)]
        return [await unread(), await read(), caught]


class Heavy(WorkflowEntrypoint):
    """More state than one frame holds."""

    async def run(self, event, step):
        total = 0
        for n in range(40):
            @step.do("heavy")
            async def heavy():
                notes.append("heavy")
                return bytes([n]) * 1_000_000
            total += len(await heavy())
        await step.wait_for_event("wait", "go", timeout="1 hour")
        return total


class Returns(WorkflowEntrypoint):
    async def run(self, event, step):
        match event["payload"]:
            case "too much":
                return b"x" * 40_000_000
            case "a large error":
                raise ValueError(b"x" * 40_000_000)


class Crowd(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("one")
        async def one():
            return event["payload"]
        @step.do("two")
        async def two(one):
            return one * 2
        await step.sleep("a moment", 20)
        return await two()


class Talks(WorkflowEntrypoint):
    async def run(self, event, step):
        print("in run")
        @step.do("talk")
        async def talk():
            print("in step")
        await talk()


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if "open" in request.url:
            gate["open"].set()
        return Response.json({"notes": notes, "running": gate["running"], "most": gate["most"]})
'''

HELPER = """
from js import ReadableStream
from workers import Response, WorkerEntrypoint


async def endless():
    try:
        while True:
            yield bytes(65536)
    finally:
        print("endless was ended")


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if "endless" in request.url:
            return Response(ReadableStream.from_(endless()))
        return Response("some text")

    async def version(self):
        return "version {}"

    async def fail(self):
        raise LookupError("not there")
"""


def write_flows(workspace: Path) -> None:
    def workflow(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "binding": name.upper(), "class_name": name.capitalize(), **more}

    names = "large parallel long parent child sleeper step asks talks heavy returns crowd"
    a_worker(
        workspace,
        "flows",
        FLOWS,
        toml="[limits]\nisolates_max = 1\n",  # so that what a run notes and what a request reads is one memory
        workflows=[*map(workflow, names.split()), workflow("one", concurrency={"limit": 1})],
        services=[{"binding": "HELPER", "service": "helper"}],
    )
    write_helper(workspace, 1)


def write_helper(workspace: Path, number: int) -> None:
    a_worker(workspace, "helper", HELPER.replace("version {}", f"version {number}"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("runs")
    write_flows(workspace)
    yield from a_node(workspace)


def notes(node: ANode, path: str = "/") -> dict[str, Any]:
    found: dict[str, Any] = node.ask("flows", path).json()
    return found


def test_values_over_64_kib_survive_restarts(tmp_path: Path) -> None:
    write_flows(tmp_path)
    with ANode(tmp_path) as node:
        instance = node.create("large", {"text": "p" * 300_000})
        node.ended("large", instance, "waiting")
        assert notes(node)["notes"] == ["large"]
    with ANode(tmp_path) as node:
        described = node.instance("large", instance)
        assert described["params"] == {"text": "p" * 300_000}
        assert node.send_event("large", instance, "large", {"text": "e" * 400_000}).is_success
        until(lambda: len(node.instance("large", instance)["steps"]) == 3, "the second wait began")
    with ANode(tmp_path) as node:
        assert node.send_event("large", instance, "more").is_success
        ended = node.ended("large", instance)
        assert ended["output"] == {
            "params": [300_000, "ppp"],
            "result": [500_000, hashlib.sha256(b"r" * 500_000).hexdigest()],
            "event": [400_000, "eee"],
            "again": "y" * 200_000,
        }
        assert notes(node)["notes"] == []  # the step was not run again in any of the three lives


def test_a_large_event_reaches_a_live_run_without_costing_its_isolate(node: ANode) -> None:
    crashed = node.metric("stellwerk_isolates_crashed_total")
    instance = node.create("large", {"text": "ppp"})
    node.ended("large", instance, "waiting")  # it lingers in its isolate now
    assert node.send_event("large", instance, "large", {"text": "e" * 400_000}).is_success
    assert node.send_event("large", instance, "more").is_success
    assert node.ended("large", instance)["output"]["event"] == [400_000, "eee"]

    early = node.create("large", {"text": "ppp"})
    assert node.send_event("large", early, "more", {"text": "m" * 100_000}).is_success  # buffered: nobody waits yet
    assert node.send_event("large", early, "large", {"text": "f" * 100_000}).is_success
    assert node.ended("large", early)["output"]["event"] == [100_000, "fff"]

    assert node.metric("stellwerk_isolates_crashed_total") == crashed


def test_a_hundred_steps_run_at_once(node: ANode) -> None:
    instance = node.create("parallel", {})
    assert node.ended("parallel", instance)["output"] == sum(range(100))


def test_a_thousand_steps_are_replayed_and_none_runs_again(node: ANode) -> None:
    instance = node.create("long", {"steps": 1000})
    node.ended("long", instance, "waiting")
    until(lambda: live_runs(node) == 0, "the waiting run has left its isolate")
    assert node.send_event("long", instance, "go").is_success
    assert node.ended("long", instance)["output"] == sum(range(1000))
    assert notes(node)["notes"].count(999) == 1


def test_more_state_than_a_frame_holds_is_replayed(node: ANode) -> None:
    instance = node.create("heavy", {})
    node.ended("heavy", instance, "waiting")
    until(lambda: live_runs(node) == 0, "the waiting run has left its isolate")
    assert node.send_event("heavy", instance, "go").is_success
    assert node.ended("heavy", instance)["output"] == 40_000_000
    assert notes(node)["notes"].count("heavy") == 40


@pytest.mark.parametrize(
    ("payload", "name", "message"),
    [
        ("too much", "WorkflowInternalError", "The output of the instance is too large. Maximum allowed size is 1MiB."),
        ("a large error", "ValueError", str(b"x" * 4000)[:4000]),
    ],
)
def test_an_end_too_large_to_be_told_is_an_error_and_hurts_nobody(
    node: ANode, payload: str, name: str, message: str
) -> None:
    start = len(node.output.lines)
    ended = node.ended("returns", node.create("returns", payload))
    assert ended["error"] == {"name": name, "message": message}
    assert not any("isolate crashed" in line for line in node.output.lines[start:])


def test_three_hundred_runs_at_once_all_end_well(node: ANode) -> None:
    items = [{"instance_id": f"crowd-{n}", "params": n} for n in range(300)]
    for first in range(0, 300, 100):
        node.result("/workflows/crowd/instances/batch", method="POST", json=items[first : first + 100])
    for n in range(300):
        assert node.ended("crowd", f"crowd-{n}")["output"] == 2 * n


def live_runs(node: ANode) -> int:
    """What the isolates work on: with no request under way, that is runs."""
    answer = node.http.get(
        f"http://127.0.0.1:{node.control_port}/v1/system", headers={"authorization": f"Bearer {node.token}"}
    )
    return sum(isolate["load"] for isolate in json.loads(answer.text)["result"]["isolates"])


def test_a_child_reaches_the_versions_that_its_parent_froze(tmp_path: Path) -> None:
    write_flows(tmp_path)
    with ANode(tmp_path) as node:
        parent = node.create("parent", {})
        node.ended("parent", parent, "waiting")
        write_helper(tmp_path, 2)
        node.record(worker="helper", event=lambda text: "version 2 serves now" in text)
        assert node.send_event("parent", parent, "go").is_success
        child, seen_by_parent = node.ended("parent", parent)["output"]
        assert seen_by_parent == "version 1"
        assert node.ended("child", child)["output"] == "version 1"
        old, new = (node.instance(*each)["stellwerk"]["manifest"] for each in (("parent", parent), ("child", child)))
        assert old == new
        alone = node.create("child", {})
        assert node.ended("child", alone)["output"] == "version 2"


def test_runs_over_the_limit_of_a_workflow_wait_their_turn_in_order(node: ANode) -> None:
    ids = [node.create("one", {}, instance_id=f"turn-{n}") for n in range(4)]
    until(lambda: notes(node)["running"] == 1, "the first one runs")
    assert [node.instance("one", each)["status"] for each in ids[1:]] == ["queued"] * 3
    notes(node, "/open")
    for each in ids:
        node.ended("one", each, "complete")
    seen = notes(node)
    assert seen["most"] == 1
    assert [each for each in seen["notes"] if str(each).startswith("turn-")] == ids


def test_sleeping_runs_leave_memory_and_wake_after_a_restart(tmp_path: Path) -> None:
    write_flows(tmp_path)
    with ANode(tmp_path) as node:
        sleepers = [node.create("sleeper", "2 seconds") for _ in range(20)]
        for sleeper in sleepers:
            node.ended("sleeper", sleeper, "waiting")
        until(lambda: live_runs(node) == 0, "no isolate holds a sleeping run")
    with ANode(tmp_path) as node:
        for sleeper in sleepers:
            assert node.ended("sleeper", sleeper)["output"] == "awake"


def test_a_step_may_ask_other_workers_and_leave_answers_unread(node: ANode) -> None:
    instance = node.create("asks", {})
    assert node.ended("asks", instance)["output"] == [200, "some text", ["LookupError", "not there"]]
    until(lambda: live_runs(node) == 0, "nothing of it is left over")
    until(lambda: not any(isolate["load"] for isolate in node.system()["isolates"]), "the unread answer was ended")


def test_what_a_run_prints_names_its_instance_and_step(node: ANode) -> None:
    start = len(node.output.lines)
    instance = node.create("talks", {})
    assert node.ended("talks", instance)["status"] == "complete"
    assert node.record(since=start, text="in run")["instance"] == instance
    said = node.record(since=start, text="in step")
    assert (said["instance"], said["step"], said["worker"]) == (instance, "talk-1", "flows")


def test_a_run_of_one_step_needs_two_commits(node: ANode) -> None:
    """From create to completed, on a node with nothing else to do: what a client waits for are two fsyncs."""
    node.ended("step", node.create("step", 1))  # its isolate is there
    counts = []
    for number in range(5):
        before = commits(node)
        node.ended("step", node.create("step", number), "complete")
        counts.append(commits(node) - before)
    assert counts == [2] * 5


def commits(node: ANode) -> int:
    return int(node.metric("stellwerk_commits_total"))


def test_a_binding_to_a_worker_that_is_missing_is_an_error_at_create(tmp_path: Path) -> None:
    a_worker(
        tmp_path,
        "flows",
        FLOWS,
        workflows=[{"name": "step", "binding": "STEP", "class_name": "Step"}],
        services=[{"binding": "HELPER", "service": "gone"}],
    )
    with ANode(tmp_path) as node:
        answer = node.api("/workflows/step/instances", method="POST", json={})
        assert answer.status_code == 404
        assert '"gone"' in answer.json()["errors"][0]["message"]
