"""The control plane over real HTTP: the door, the envelope, what needs no token."""

from __future__ import annotations

import asyncio
import codecs
import json
import socket
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from stellwerk.core.errors import ConfigError, StorageError
from stellwerk.node.api import ControlServer
from stellwerk.node.api.auth import OPEN_PATHS, TokenAuth

from .control_double import ControlDouble


def test_every_path_but_three_demands_the_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            for path in ("/client/v4/memberships", "/client/v4/nothing", "/v1/system", "/", "/metrics/", "//healthz"):
                for headers in ({"Authorization": ""}, {"Authorization": f"Bearer {node.token}x"}):
                    response = await node.http.get(path, headers=headers)
                    assert response.status_code == 401, path
                    assert response.headers["www-authenticate"] == "Bearer"
                    body = response.json()
                    assert body["success"] is False
                    assert body["errors"][0]["code"] == 10000
                    assert node.token not in response.text
            for path in OPEN_PATHS:
                assert (await node.http.get(path, headers={"Authorization": ""})).status_code == 200, path

    asyncio.run(scenario())


def test_a_token_that_is_not_ascii_is_refused_and_not_an_accident(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            response = await node.http.get("/v1/system", headers={b"Authorization": "Bearer ü".encode("latin-1")})
            assert response.status_code == 401

    asyncio.run(scenario())


def test_an_empty_token_opens_no_door() -> None:
    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("let in")

    async def scenario() -> None:
        transport = httpx.ASGITransport(app=TokenAuth(passed, token=""))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for header in ("", "Bearer", "Bearer ", "bearer  ", "Basic eDp5"):
                assert (await client.get("/v1/system", headers={"Authorization": header})).status_code == 401

    asyncio.run(scenario())


def test_an_unknown_address_and_a_wrong_method_answer_in_the_envelope(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            assert (await node.error("GET", "/nothing/here"))[1]["code"] == 7000
            status, error = await node.error("PATCH", "/workers/scripts")
            assert (status, error["code"]) == (405, 7001)
            assert error["stellwerk"]["code"] == "request.no_route"

    asyncio.run(scenario())


def test_lists_of_one_end_for_clients_that_count_pages(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            for path in (
                "/client/v4/accounts",
                "/client/v4/memberships",
                "/client/v4/accounts/a/workflows",
                "/client/v4/accounts/a/workflows/pipeline/versions",
                "/client/v4/accounts/a/workers/scripts",
            ):
                first = (await node.http.get(path, params={"page": 1})).json()
                assert len(first["result"]) == 1, path
                info = first["result_info"]
                assert info["page"] * info["per_page"] >= info["total_count"] == 1
                assert (await node.http.get(path, params={"page": 2})).json()["result"] == [], path

    asyncio.run(scenario())


def test_an_error_carries_its_stable_code_cause_and_cure(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            status, error = await node.error("GET", "/workflows/pipelin")
            assert (status, error["code"]) == (404, 10200)
            assert error["message"] == 'There is no workflow "pipelin". Did you mean "pipeline"?'
            assert error["stellwerk"] == {
                "code": "workflow.not_found",
                "message": 'There is no workflow "pipelin".',
                "cure": 'Did you mean "pipeline"?',
                "fault": "caller",
                "retryable": False,
            }

    asyncio.run(scenario())


def test_an_unexpected_exception_is_an_envelope_for_the_caller_and_a_traceback_for_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.store.close()
            node.deployments.workers = None  # type: ignore[assignment,method-assign]
            status, error = await node.error("GET", "/workers/scripts")
            assert (status, error["code"]) == (500, 10013)
            assert "Traceback" not in error["message"]
            node.log.close()
            assert "control.failed" in node.log_text.getvalue()
            assert "TypeError" in node.log_text.getvalue()
            assert node.counters.control_requests[5] == 1

    asyncio.run(scenario())


def test_readiness_follows_the_node_and_its_store_while_health_only_says_alive(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            assert (await node.http.get("/readyz")).json() == {"ready": True}
            node.ready = False
            response = await node.http.get("/readyz")
            assert (response.status_code, response.json()["ready"]) == (503, False)
            node.ready = True
            await node.store.close()
            response = await node.http.get("/readyz")
            assert response.status_code == 503
            assert response.json()["reason"]
            assert (await node.http.get("/healthz")).status_code == 200

    asyncio.run(scenario())


def test_metrics_show_counters_gauges_and_runs_by_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("POST", "/workflows/pipeline/instances", json={})
            node.counters.requests[2] = 7
            node.counters.log_dropped = 3
            node.counters.commit_latency.observe(0.3)
            node.counters.commit_latency.observe(99_999)
            node.gauges.isolates = lambda: {"ready": 2}
            node.gauges.queues = lambda: {"writes": 5}
            text = (await node.http.get("/metrics")).text
            for line in (
                'stellwerk_requests_total{status="2xx"} 7.0',
                "stellwerk_log_dropped_total 3.0",
                'stellwerk_commit_seconds_bucket{le="0.0005"} 1.0',
                'stellwerk_commit_seconds_bucket{le="10"} 1.0',
                'stellwerk_commit_seconds_bucket{le="+Inf"} 2.0',
                'stellwerk_isolates{state="ready"} 2.0',
                'stellwerk_queue_depth{queue="writes"} 5.0',
                'stellwerk_runs{status="queued",workflow="pipeline"} 1.0',
            ):
                assert line in text, f"{line} not in\n{text}"

    asyncio.run(scenario())


def test_metrics_are_served_while_the_store_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.store.close()
            assert "stellwerk_ready 1.0" in (await node.http.get("/metrics")).text

    asyncio.run(scenario())


def test_system_tells_what_is_in_force(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            facts = (await node.http.get("/v1/system")).json()["result"]
            assert facts["isolation"] == "floor"
            assert facts["store"] == node.store.settings

    asyncio.run(scenario())


def test_a_taken_port_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            second = ControlServer(node._ports(), port=node.server.port)
            with pytest.raises(ConfigError, match="--control-port"):
                await second.start()
            await second.stop()

    asyncio.run(scenario())


def test_stopping_twice_and_before_starting_is_harmless_and_frees_the_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            port = node.server.port
            await node.server.stop()
            await node.server.stop()
            await ControlServer(node._ports()).stop()
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port)).close()

    asyncio.run(scenario())


def test_a_body_over_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
            writer.write(
                b"POST /client/v4/accounts/a/workflows/pipeline/instances HTTP/1.1\r\nHost: x\r\n"
                b"Authorization: Bearer " + node.token.encode() + b"\r\nContent-Length: 999999999\r\n\r\n"
            )
            await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
            assert b" 413 " in head
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_json_is_read_whatever_the_content_type_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            body = json.dumps({"instance_id": "a1"})
            headers = {"Content-Type": "text/plain;charset=UTF-8"}
            made = await node.result("POST", "/workflows/pipeline/instances", content=body, headers=headers)
            assert made["id"] == "a1"
            marked = codecs.BOM_UTF8 + json.dumps({"instance_id": "a2"}).encode()
            assert (await node.result("POST", "/workflows/pipeline/instances", content=marked))["id"] == "a2"
            for wrong in ("{", "[1]", b"\xff\xfe{\x00}\x00", '{"params": NaN}', "[" * 100_000):
                status, error = await node.error("POST", "/workflows/pipeline/instances", content=wrong)
                assert (status, error["stellwerk"]["code"]) == (400, "request.invalid"), wrong[:20]

    asyncio.run(scenario())


def test_the_store_closed_under_a_call_is_a_retryable_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.store.close()
            status, error = await node.error("GET", "/workflows")
            assert status == StorageError.http_status
            assert error["stellwerk"]["retryable"] is True

    asyncio.run(scenario())


def test_head_and_body_of_an_answer_leave_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    send = socket.socket.send

    def watched(self: socket.socket, data: bytes) -> int:
        written.append(bytes(data))
        return send(self, data)

    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            monkeypatch.setattr(socket.socket, "send", watched)
            answer = await asyncio.wait_for(reader.read(), 10)
            monkeypatch.undo()
            writer.close()
            await writer.wait_closed()
            assert answer.startswith(b"HTTP/1.1 200 ") and answer in written

    asyncio.run(scenario())


def test_a_foreign_client_sees_http_and_not_uvicorn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            response: httpx.Response = await node.http.get("/healthz")
            assert "server" not in response.headers

    asyncio.run(scenario())
