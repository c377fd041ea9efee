"""``dev``: what it says at the start, and what an edit does to a Worker that serves and to runs that are under way."""

from __future__ import annotations

from pathlib import Path

from tests.integration.node.kit import ANode, a_worker, until

HELLO = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("{}")
"""

FLOW = """
from workers import WorkflowEntrypoint
class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("before")
        async def before():
            return [await self.env.HELPER.version(), "flow {0}"]
        @step.do("after")
        async def after():
            return [await self.env.HELPER.version(), "flow {0}"]
        first = await before()
        await step.wait_for_event("go on", "go")
        return [first, await after()]
"""

HELPER = """
from workers import WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def version(self):
        return "helper {}"
"""


def test_a_module_that_does_not_import_is_told_and_an_edit_cures_it(tmp_path: Path) -> None:
    entry = a_worker(tmp_path, "shop", "import wrokers\n")
    with ANode(tmp_path) as node:
        answer = node.ask("shop")
        assert (answer.status_code, answer.json()["code"]) == (500, "isolate.start_failed")
        assert "wrokers" not in answer.text  # a stranger learns only that something is wrong
        told = node.record(level="error", text=lambda text: "wrokers" in text)
        assert told["worker"] == "shop"
        entry.write_text("def broken(:\n")
        node.record(worker="shop", event=lambda text: "version 2 serves now" in text)
        assert node.ask("shop").status_code == 500
        node.record(level="error", text=lambda text: "SyntaxError" in text)
        entry.write_text(HELLO.format("cured"))
        node.record(worker="shop", event=lambda text: "version 3 serves now" in text)
        assert node.ask("shop").text == "cured"


def test_the_table_at_the_start_shows_what_is_not_connected(tmp_path: Path) -> None:
    services = [{"binding": "BACK", "service": "back"}, {"binding": "GONE", "service": "no-such-worker"}]
    a_worker(tmp_path, "front", HELLO.format("front"), services=services)
    a_worker(tmp_path, "back", HELLO.format("back"))
    with ANode(tmp_path, as_json=False) as node:
        table = "\n".join(node.output.lines)
        (back,) = (line for line in table.splitlines() if "BACK" in line)
        (gone,) = (line for line in table.splitlines() if "GONE" in line)
        assert "connected" in back
        assert "NOT" not in back
        assert "NOT CONNECTED" in gone
        assert "no-such-worker" in gone
        assert "front.localhost" in table


def test_without_a_default_worker_what_no_route_claims_is_a_404(tmp_path: Path) -> None:
    a_worker(tmp_path, "one", HELLO.format("one"))
    a_worker(tmp_path, "two", HELLO.format("two"))
    with ANode(tmp_path) as node:
        answer = node.ask("", "/", headers={"host": "example.com"})
        assert (answer.status_code, answer.json()["code"]) == (404, "route.not_found")
        assert node.ask("two").text == "two"


def test_a_worker_that_was_missing_is_found_when_it_comes(tmp_path: Path) -> None:
    source = """
    from workers import Response, WorkerEntrypoint
    class Default(WorkerEntrypoint):
        async def fetch(self, request):
            return await self.env.BACK.fetch(request)
    """
    a_worker(tmp_path, "front", source, services=[{"binding": "BACK", "service": "back"}])
    with ANode(tmp_path) as node:
        assert node.ask("front").status_code == 500
        a_worker(tmp_path, "back", HELLO.format("here now"))
        node.record(worker="back", event=lambda text: "deployed version" in text)
        assert node.ask("front").text == "here now"


def test_runs_under_way_stay_on_every_version_that_they_reach(tmp_path: Path) -> None:
    flow = a_worker(
        tmp_path,
        "flow",
        FLOW.format(1),
        services=[{"binding": "HELPER", "service": "helper"}],
        workflows=[{"name": "flow", "binding": "FLOW", "class_name": "Flow"}],
    )
    helper = a_worker(tmp_path, "helper", HELPER.format(1))
    with ANode(tmp_path) as node:
        old = node.create("flow")
        node.ended("flow", old, "waiting")
        helper.write_text(HELPER.format(2))
        node.record(worker="helper", event=lambda text: "1 live runs stay on version 1" in text)
        flow.write_text(FLOW.format(2))
        node.record(worker="flow", event=lambda text: "1 live runs stay on version 1" in text)
        new = node.create("flow")
        node.ended("flow", new, "waiting")
        for instance in (old, new):
            assert node.send_event("flow", instance, "go").is_success
        assert node.ended("flow", old)["output"] == [["helper 1", "flow 1"]] * 2
        assert node.ended("flow", new)["output"] == [["helper 2", "flow 2"]] * 2


def test_the_last_isolate_of_a_replaced_version_goes(tmp_path: Path) -> None:
    entry = a_worker(tmp_path, "shop", HELLO.format(1))
    with ANode(tmp_path) as node:
        assert node.ask("shop").text == "1"
        before = {process.pid for process in node.descendants()}
        entry.write_text(HELLO.format(2))
        node.record(worker="shop", event=lambda text: "version 2 serves now" in text)
        assert node.ask("shop").text == "2"
        until(lambda: len(before - {process.pid for process in node.descendants()}) == 1, "the old isolate has gone")
