"""The command line as a child process against a real control plane."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellwerk.cli.exits import Exit
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.status import Status
from stellwerk.wire import values

from .control_double import ControlDouble

DEADLINE_S = 30
WRANGLER = {
    "name": "orders",
    "main": "src/entry.py",
    "compatibility_date": "2026-01-01",
    "compatibility_flags": ["python_workers"],
    "vars": {"MODE": "fast"},
    "workflows": [{"name": "pipeline", "binding": "FLOW", "class_name": "Pipeline"}],
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def stellwerk(*arguments: str, cwd: Path, stdin: str = "", **environment: str) -> Ended:
    """Runs one command to its end, without a terminal and without this process's own settings."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("STELLWERK_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stellwerk.cli",
        *arguments,
        cwd=cwd,
        env={**known, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), DEADLINE_S)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def state_of(workspace: Path) -> Path:
    return workspace / ".stellwerk" / "state"


def worker_folder(root: Path) -> Path:
    folder = root / "orders"
    (folder / "src").mkdir(parents=True)
    (folder / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (folder / "src" / "entry.py").write_text("x = 1\n")
    (folder / ".dev.vars").write_text("KEY=s3cret\n")
    return folder


def test_a_command_finds_the_node_from_a_folder_below_its_workspace(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            await node.deploy()
            ended = await stellwerk("workflows", "list", cwd=below)
            assert (ended.code, ended.err) == (Exit.OK, "")
            header, row = ended.out.splitlines()
            assert header.split("\t")[:3] == ["WORKFLOW", "WORKER", "CLASS"]
            assert row.split("\t")[:4] == ["pipeline", "orders", "Pipeline", "-"]
            assert "\x1b" not in ended.out

    asyncio.run(scenario())


def test_the_environment_names_a_node_elsewhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path / "s") as node:
            await node.deploy()
            url = f"http://127.0.0.1:{node.server.port}"
            ended = await stellwerk(
                "workflows",
                "list",
                "--json",
                cwd=tmp_path,
                STELLWERK_API_URL=f"{url}/client/v4/",
                STELLWERK_API_TOKEN=node.token,
                http_proxy="http://127.0.0.1:1",
            )
            assert ended.code == Exit.OK, ended.err
            assert ended.json()[0]["name"] == "pipeline"

    asyncio.run(scenario())


def test_a_run_is_started_watched_and_ended_from_the_command_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            await node.deploy()
            flow = ("workflows", "instances")
            ended = await stellwerk("workflows", "trigger", "pipeline", '{"n": 1}', "--id", "order-7", cwd=tmp_path)
            assert (ended.code, ended.out) == (Exit.OK, "order-7\n"), ended.err
            for params, stored in (("-", [7]), ("-7", -7), ("@params.json", "file")):
                (tmp_path / "params.json").write_text('"file"')
                ended = await stellwerk("workflows", "trigger", "pipeline", params, "--json", cwd=tmp_path, stdin="[7]")
                assert ended.code == Exit.OK, ended.err
                run = await node.engine.describe("pipeline", ended.json()["id"])
                created = e.decode(run.journal[0])
                assert isinstance(created, e.Created)
                assert created.params == values.encode(stored)
            ended = await stellwerk("workflows", "trigger", "pipeline", "--id", "order-8", cwd=tmp_path)
            assert ended.out == "order-8\n"
            ended = await stellwerk(*flow, "list", "pipeline", cwd=tmp_path)
            assert ended.out.splitlines()[1].split("\t")[:2] == ["order-8", "queued"]
            assert len(ended.out.splitlines()) == 6
            step = e.StepSucceeded(
                at=2,
                key="do:a-1",
                name="charge",
                count=1,
                attempt=1,
                started_at=1,
                value=values.encode({"paid": 5}),
                delivery=1,
            )
            await node.engine.record("pipeline", "order-8", step, status=Status.RUNNING)
            ended = await stellwerk(*flow, "describe", "pipeline", "latest", cwd=tmp_path)
            assert 'charge-1\tstep\tok\t1\t1 ms\t{"paid": 5}' in ended.out.splitlines()
            assert "status\trunning" in ended.out.splitlines()
            ended = await stellwerk(
                *flow,
                "send-event",
                "pipeline",
                "latest",
                "--type",
                "shipped",
                "--payload",
                "-",
                cwd=tmp_path,
                stdin='"p"',
            )
            assert (ended.code, ended.out) == (Exit.OK, "order-8 shipped sent\n")
            await node.engine.record("pipeline", "order-8", e.Paused(at=1, reason="why not"), status=Status.PAUSED)
            ended = await stellwerk(*flow, "describe", "pipeline", "order-8", cwd=tmp_path)
            assert "why\tpaused: why not" in ended.out.splitlines()
            ended = await stellwerk(*flow, "resume", "pipeline", "order-8", cwd=tmp_path)
            assert ended.out == "order-8 queued\n"
            ended = await stellwerk(*flow, "terminate", "pipeline", "order-8", "--json", cwd=tmp_path)
            assert ended.json()["status"] == "terminated"
            ended = await stellwerk(*flow, "terminate", "pipeline", "order-8", cwd=tmp_path)
            assert ended.code == Exit.REFUSED
            run = await node.engine.describe("pipeline", "order-8")
            event = e.decode(run.journal[2])
            assert isinstance(event, e.EventReceived)
            assert event.payload == values.encode("p")

    asyncio.run(scenario())


def test_list_goes_on_past_a_page_until_its_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            await node.deploy()
            items = [(f"i{n:03d}", values.encode({})) for n in range(103)]
            await node.engine.create_batch("pipeline", [*items], trigger="api")
            command = ("workflows", "instances", "list", "pipeline", "--json", "--limit")
            everything = (await stellwerk(*command, "500", cwd=tmp_path)).json()
            assert [row["id"] for row in everything] == [f"i{n:03d}" for n in range(102, -1, -1)]
            assert len((await stellwerk(*command, "101", cwd=tmp_path)).json()) == 101

    asyncio.run(scenario())


def test_deploy_uploads_the_folder_as_the_configuration_says(tmp_path: Path) -> None:
    folder = worker_folder(tmp_path)

    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            ended = await stellwerk("deploy", "orders", "--message", "hello", "--json", cwd=tmp_path)
            assert ended.code == Exit.OK, ended.err
            version = node.deployments.serving("orders")
            assert version is not None
            assert ended.json()["version_id"] == version.version_id
            assert node.files(version) == {"src/entry.py": b"x = 1\n"}
            assert (version.manifest.vars, version.manifest.secrets) == ({"MODE": "fast"}, {})
            ended = await stellwerk("deploy", str(folder), "--secrets-file", "orders/.dev.vars", cwd=tmp_path)
            assert ended.code == Exit.OK, ended.err
            ended = await stellwerk("deploy", cwd=folder)
            assert ended.code == Exit.OK, ended.err
            version = node.deployments.serving("orders")
            assert version is not None
            assert version.manifest.secrets == {"KEY": "s3cret"}
            listed = (await stellwerk("versions", "list", "orders", cwd=tmp_path)).out.splitlines()
            assert listed[-1].split("\t")[-1] == "hello"
            deployed = (await stellwerk("deployments", "list", "orders", "--json", cwd=tmp_path)).json()
            assert deployed[0]["versions"] == [{"version_id": version.version_id, "percentage": 100}]

    asyncio.run(scenario())


def test_a_configuration_that_is_wrong_names_file_line_and_key_and_reaches_no_node(tmp_path: Path) -> None:
    folder = worker_folder(tmp_path)
    (folder / "wrangler.jsonc").write_text('{\n  "name": "orders",\n  "main": 7\n}')

    async def scenario() -> None:
        ended = await stellwerk("deploy", "orders", cwd=tmp_path)
        assert ended.code == Exit.FAILED
        assert "orders/wrangler.jsonc:3: main" in ended.err

    asyncio.run(scenario())


def test_each_way_to_fail_has_its_exit_code_a_cause_and_a_cure(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    listing = ("workflows", "list")

    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            await node.deploy()
            url = f"http://127.0.0.1:{node.server.port}"
            cases: list[tuple[Ended, Exit]] = [
                (await stellwerk(*listing, "--bogus", cwd=tmp_path), Exit.USAGE),
                (await stellwerk("workflows", "trigger", "pipeline", "{", cwd=tmp_path), Exit.USAGE),
                (await stellwerk("workflows", "trigger", cwd=tmp_path), Exit.USAGE),
                (await stellwerk(*listing, "--state", str(nowhere), cwd=tmp_path), Exit.UNREACHABLE),
                (
                    await stellwerk(
                        *listing, cwd=nowhere, STELLWERK_API_URL="http://127.0.0.1:1", STELLWERK_API_TOKEN="x"
                    ),
                    Exit.UNREACHABLE,
                ),
                (await stellwerk(*listing, cwd=tmp_path, STELLWERK_API_TOKEN="wrong"), Exit.REFUSED),
                (await stellwerk(*listing, "--state", "nowhere", cwd=tmp_path, STELLWERK_API_URL=url), Exit.REFUSED),
                (await stellwerk("workflows", "describe", "nobody", cwd=tmp_path), Exit.NOT_FOUND),
                (await stellwerk("workflows", "instances", "describe", "pipeline", cwd=tmp_path), Exit.NOT_FOUND),
                (await stellwerk("versions", "list", "nobody", cwd=tmp_path), Exit.NOT_FOUND),
                (await stellwerk("deploy", str(nowhere), cwd=tmp_path), Exit.FAILED),
            ]
            for ended, code in cases:
                assert ended.code == code, ended
                assert ended.out == ""
                assert ended.err.startswith("error: "), ended
                assert "cure: " in ended.err, ended
                assert "Traceback" not in ended.err

    asyncio.run(scenario())


def test_an_error_is_json_when_json_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)):
            ended = await stellwerk("workflows", "describe", "nobody", "--json", cwd=tmp_path)
            shown = json.loads(ended.err)["error"]
            assert (shown["code"], shown["exit"]) == ("workflow.not_found", Exit.NOT_FOUND)
            assert shown["cure"]

    asyncio.run(scenario())


def test_what_is_no_control_plane_is_said_to_be_none(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ended = await stellwerk("workflows", "list", cwd=tmp_path, STELLWERK_API_URL=url, STELLWERK_API_TOKEN="x")
        assert ended.code == Exit.UNREACHABLE
        assert "is no control plane" in ended.err

    asyncio.run(scenario())


def test_the_token_is_in_no_output(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(state_of(tmp_path)) as node:
            for arguments in (("workflows", "list"), ("workflows", "describe", "x"), ("doctor",)):
                ended = await stellwerk(*arguments, cwd=tmp_path)
                assert node.token not in ended.out + ended.err

    asyncio.run(scenario())
