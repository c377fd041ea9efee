"""Workflows and instances over HTTP, as wrangler and the Python SDK ask for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from stellwerk.core import limits
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.entries import BlobRef
from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision
from stellwerk.wire import values

from .control_double import ControlDouble

RUNS = "/workflows/pipeline/instances"


def test_a_workflow_is_described_with_its_class_versions_and_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            version = await node.deploy()
            await node.result("POST", RUNS, json={})
            flow = await node.result("GET", "/workflows/pipeline")
            assert (flow["script_name"], flow["class_name"]) == ("orders", "Pipeline")
            assert flow["instances"] == {"queued": 1}
            versions = await node.result("GET", "/workflows/pipeline/versions")
            assert versions[0]["id"] == version.version_id

    asyncio.run(scenario())


def test_wranglers_registration_agrees_or_objects(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            good = {"script_name": "orders", "class_name": "Pipeline"}
            assert (await node.result("PUT", "/workflows/pipeline", json=good))["name"] == "pipeline"
            status, error = await node.error("PUT", "/workflows/pipeline", json={**good, "class_name": "Other"})
            assert (status, error["stellwerk"]["code"]) == (409, "state.conflict")

    asyncio.run(scenario())


def test_an_instance_is_created_with_its_id_and_params_and_not_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            made = await node.result("POST", RUNS, json={"instance_id": "order-7", "params": {"n": [1, None]}})
            assert (made["id"], made["status"]) == ("order-7", "queued")
            shown = await node.result("GET", f"{RUNS}/order-7")
            assert shown["params"] == {"n": [1, None]}
            assert shown["trigger"] == {"source": "api"}
            status, error = await node.error("POST", RUNS, json={"instance_id": "order-7"})
            assert (status, error["code"]) == (409, 10405)
            assert (await node.error("POST", RUNS, json={"instance_id": "-x"}))[0] == 400
            assert (await node.error("POST", RUNS, json={"instance_id": 7}))[0] == 400
            assert (await node.result("POST", RUNS))["id"]
            for wait_ms in ("-1", "x", "9" * 8, "9" * 5_000):
                status, error = await node.error("POST", RUNS, json={}, params={"wait_ms": wait_ms})
                assert (status, error["stellwerk"]["code"]) == (400, "request.invalid")

    asyncio.run(scenario())


def test_a_batch_leaves_out_ids_that_exist_and_has_a_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", RUNS, json={"instance_id": "a"})
            made = await node.result("POST", f"{RUNS}/batch", json=[{"instance_id": "a"}, {"instance_id": "b"}, {}])
            assert made[0]["id"] == "b"
            assert len(made) == 2
            refused: list[Any] = [[], [{}] * (limits.BATCH_CREATE_MAX + 1), {"instances": []}, [1]]
            for wrong in refused:
                assert (await node.error("POST", f"{RUNS}/batch", json=wrong))[0] == 400
            assert len((await node.store.instances(LOCAL_ACCOUNT, "pipeline"))[0]) == 3

    asyncio.run(scenario())


def test_params_over_the_limit_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            big = {"params": "x" * limits.EVENT_PAYLOAD_BYTES_MAX}
            status, error = await node.error("POST", RUNS, json=big)
            assert 400 <= status < 500
            assert error["stellwerk"]["code"] == "value.too_large"

    asyncio.run(scenario())


def test_instances_are_listed_by_cursor_and_by_page_alike(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            ids = [f"i{number}" for number in range(7)]
            for name in ids:
                await node.result("POST", RUNS, json={"instance_id": name})
            by_page: list[str] = []
            for page in (1, 2, 3, 4):
                part = await node.result("GET", RUNS, params={"page": page, "per_page": 3})
                assert len(part) == (3, 3, 1, 0)[page - 1]
                by_page += [row["id"] for row in part]
            by_cursor: list[str] = []
            cursor = ""
            while True:
                body = (await node.call("GET", RUNS, params={"per_page": 3, "cursor": cursor})).json()
                by_cursor += [row["id"] for row in body["result"]]
                cursor = body["result_info"]["cursor"]
                if not cursor:
                    break
            assert by_page == by_cursor == ids[::-1]
            assert body["result_info"]["total_count"] == 7
            latest = await node.result("GET", f"{RUNS}/")  # with the slash, as wrangler resolves "latest"
            assert latest[0]["id"] == "i6"

    asyncio.run(scenario())


def test_instances_are_filtered_by_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            for name in ("a", "b"):
                await node.result("POST", RUNS, json={"instance_id": name})
            await node.result("PATCH", f"{RUNS}/a/status", json={"status": "terminate"})
            body = (await node.call("GET", RUNS, params={"status": "terminated"})).json()
            assert [row["id"] for row in body["result"]] == ["a"]
            assert body["result_info"]["total_count"] == 1
            status, error = await node.error("GET", RUNS, params={"status": "done"})
            assert status == 400
            assert "terminated" in error["message"]
            assert (await node.error("GET", RUNS, params={"page": "x"}))[0] == 400

    asyncio.run(scenario())


def test_a_page_number_beyond_the_depth_limit_points_to_the_cursor(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            _, error = await node.error("GET", RUNS, params={"page": 999_999_999, "per_page": 1000})
            assert "cursor" in error["message"]

    asyncio.run(scenario())


def test_an_instance_is_described_from_its_journal_with_values_from_blobs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", RUNS, json={"instance_id": "a"})
            large = values.encode("large")
            blob = Decision(blobs=[(LOCAL_ACCOUNT, "f" * 64, large)])
            await node.engine._submit(blob)
            step = {"key": "do:charge-1", "name": "charge", "count": 1, "started_at": 1_000, "delivery": 1}
            await node.engine.record(
                "pipeline",
                "a",
                e.StepSucceeded(at=2_000, attempt=1, value=BlobRef(sha256="f" * 64, size=len(large)), **step),  # type: ignore[arg-type]
                e.Completed(at=3_000, value=values.encode({"ok": True})),
                status=Status.COMPLETE,
            )
            shown = await node.result("GET", f"{RUNS}/a")
            assert (shown["status"], shown["success"], shown["output"]) == ("complete", True, {"ok": True})
            assert [(s["name"], s["output"], len(s["attempts"])) for s in shown["steps"]] == [("charge-1", "large", 1)]
            assert shown["end"]

    asyncio.run(scenario())


def test_terminate_is_done_and_the_verbs_not_built_yet_say_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", RUNS, json={"instance_id": "a"})
            for verb in ("pause", "restart"):
                status, error = await node.error("PATCH", f"{RUNS}/a/status", json={"status": verb})
                assert (status, error["stellwerk"]["code"]) == (400, "request.not_built")
                assert f'"{verb}" is not built yet.' in error["message"]
            assert (await node.error("PATCH", f"{RUNS}/a/status", json={"status": "stop"}))[0] == 400
            assert (await node.error("PATCH", f"{RUNS}/a/status", json={"status": "resume"}))[0] == 409
            await node.engine.record("pipeline", "a", e.Paused(at=1, reason="diverged"), status=Status.PAUSED)
            assert (await node.result("GET", f"{RUNS}/a"))["stellwerk"]["why"] == "paused: diverged"
            assert (await node.result("PATCH", f"{RUNS}/a/status", json={"status": "resume"}))["status"] == "queued"
            done = await node.result("PATCH", f"{RUNS}/a/status", json={"status": "terminate"})
            assert done["status"] == "terminated"
            shown = await node.result("GET", f"{RUNS}/a")
            assert shown["steps"][-1]["type"] == "termination"
            assert shown["steps"][-1]["trigger"] == {"source": "api"}
            assert (await node.error("PATCH", f"{RUNS}/a/status", json={"status": "terminate"}))[0] == 409

    asyncio.run(scenario())


def test_an_events_body_is_its_payload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", RUNS, json={"instance_id": "a"})
            await node.result("POST", f"{RUNS}/a/events/shipped", json=["x", 1])
            await node.result("POST", f"{RUNS}/a/events/shipped")
            run = await node.engine.describe("pipeline", "a")
            events = [e.decode(data) for data in run.journal[1:]]
            assert all(isinstance(event, e.EventReceived) for event in events)
            assert [values.decode(event.payload) for event in events] == [["x", 1], {}]
            assert (await node.error("POST", f"{RUNS}/a/events/-x", json={}))[0] == 400
            status, error = await node.error("POST", f"{RUNS}/nobody/events/shipped", json={})
            assert (status, error["code"]) == (404, 10400)
            assert error["message"].startswith("(instance.not_found)")

    asyncio.run(scenario())


def test_runs_of_a_removed_worker_can_still_be_seen_and_ended_but_not_created(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", RUNS, json={"instance_id": "a"})
            await node.result("DELETE", "/workers/scripts/orders")
            assert [row["id"] for row in await node.result("GET", RUNS)] == ["a"]
            assert (await node.result("GET", f"{RUNS}/a"))["status"] == "queued"
            await node.result("PATCH", f"{RUNS}/a/status", json={"status": "terminate"})
            assert (await node.error("POST", RUNS, json={}))[1]["code"] == 10200
            assert (await node.error("GET", "/workflows/other/instances"))[1]["code"] == 10200

    asyncio.run(scenario())
