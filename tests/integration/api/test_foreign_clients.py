"""Cloudflare's own clients against a real node: wrangler from npm, and the Python SDK from PyPI (``make external``).

The versions are pinned: what is tested is our node, not what was published last night.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uv

from .test_real_node import described, running, worker_folder

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

WRANGLER = "wrangler@4.86.0"  # the last one that runs on the Node.js 20 of Debian and Ubuntu
SDK = "cloudflare==5.9.0"
INSTALL_TIMEOUT_S = 180
COMMAND_TIMEOUT_S = 60

SDK_PROGRAM = """
import cloudflare
client = cloudflare.Cloudflare()
where = {"account_id": "local"}
named = {**where, "workflow_name": "pipeline"}
assert [account.id for account in client.accounts.list()] == ["local"]
assert [flow.name for flow in client.workflows.list(**where)] == ["pipeline"]
for number in range(12):
    client.workflows.instances.create("pipeline", **where, instance_id=f"s{number}", params={"amount": number})
made = client.workflows.instances.bulk("pipeline", **where, body=[{"instance_id": "s1"}, {"instance_id": "b1"}])
assert [instance.id for instance in made] == ["b1"], made
listed = [instance.id for instance in client.workflows.instances.list("pipeline", **where, per_page=5)]
assert len(listed) == len(set(listed)) == 13, listed
assert client.workflows.instances.get("s3", **named).params == {"amount": 3}
assert client.workflows.instances.status.edit("s3", **named, status="terminate").status == "terminated"
client.workflows.instances.events.create("shipped", **named, instance_id="s4", body={"by": "x"})
try:
    client.workflows.instances.get("nobody", **named)
except cloudflare.NotFoundError as error:
    assert error.body["errors"][0]["code"] == 10400
else:
    raise AssertionError("an unknown instance was found")
try:
    client.workflows.instances.create("pipeline", **where, instance_id="s1")
except cloudflare.ConflictError as error:
    assert error.body["errors"][0]["code"] == 10405
else:
    raise AssertionError("an id was taken twice")
assert [script.id for script in client.workers.scripts.list(**where)] == ["orders"]
assert len(list(client.workers.scripts.versions.list("orders", **where))) == 1
print("sdk ok")
"""


@pytest.fixture(scope="module")
def wrangler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wrangler program, with the optional packages that it loads whatever it is asked to do."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed: it brings wrangler"
    folder = tmp_path_factory.mktemp("wrangler")
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", WRANGLER],
        cwd=folder,
        check=True,
        timeout=INSTALL_TIMEOUT_S,
        capture_output=True,
    )
    return folder / "node_modules" / "wrangler" / "bin" / "wrangler.js"


def client_environment(state: Path, home: Path) -> dict[str, str]:
    """Points both clients at the node, and nowhere else."""
    node = json.loads((state / "node.json").read_text())
    url = f"http://127.0.0.1:{node['control_port']}/client/v4"
    without = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return {key: value for key, value in os.environ.items() if key not in without} | {
        "CLOUDFLARE_API_BASE_URL": url,
        "CLOUDFLARE_BASE_URL": url,
        "CLOUDFLARE_API_TOKEN": (state / "token").read_text().strip(),
        "CLOUDFLARE_ACCOUNT_ID": "local",
        "WRANGLER_SEND_METRICS": "false",
        "NO_COLOR": "1",
        "CI": "1",
        "XDG_CONFIG_HOME": str(home),
    }


async def output_of(*command: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode()


def on_a_node(tmp_path: Path, play: Callable[[Path, dict[str, str]], Awaitable[None]]) -> None:
    """Runs ``play`` with a Worker's folder and the clients' environment, while a node serves."""
    folder, state = worker_folder(tmp_path), tmp_path / ".stellwerk" / "state"

    async def scenario() -> None:
        async with running("serve", "--state", str(state), cwd=tmp_path):
            await play(folder, client_environment(state, tmp_path / "home"))

    asyncio.run(scenario())


def test_wrangler_deploys_a_worker_and_steers_its_runs(tmp_path: Path, wrangler: Path) -> None:
    async def play(folder: Path, environment: dict[str, str]) -> None:
        async def run(*arguments: str, code: int = 0) -> str:
            ended = await output_of("node", str(wrangler), *arguments, cwd=folder, environment=environment)
            assert ended[0] == code, ended[1]
            return ended[1]

        assert "Current Version ID: " in await run("deploy")
        (folder / "src" / "extra.py").write_text("x = 1\n")
        assert "workflow: pipeline" in await run("deploy", "--message", "second")  # an update takes other calls
        assert "second" in await run("versions", "list")
        assert "second" in await run("deployments", "list")
        assert "orders" in await run("workflows", "list")
        assert "Latest Version" in await run("workflows", "describe", "pipeline")
        assert '"w1" has been queued' in await run("workflows", "trigger", "pipeline", '{"amount": 5}', "--id", "w1")
        await described(tmp_path, until="waiting")
        assert "Waiting" in await run("workflows", "instances", "list", "pipeline")
        event = ("--type", "shipped", "--payload", '{"by": "x"}')
        await run("workflows", "instances", "send-event", "pipeline", "w1", *event)
        complete = await described(tmp_path, until="complete")
        assert complete.json()["output"] == {"paid": 5, "by": {"by": "x"}}
        shown = await run("workflows", "instances", "describe", "pipeline", "latest")
        assert "charge-1" in shown
        assert "Completed" in shown
        assert "finite state" in await run("workflows", "instances", "terminate", "pipeline", "w1", code=1)
        assert "not built yet" in await run("workflows", "instances", "pause", "pipeline", "w1", code=1)
        await run("delete")
        assert "[code: 10007]" in await run("deployments", "list", code=1)

    on_a_node(tmp_path, play)


def test_the_python_sdk_reads_creates_and_ends(tmp_path: Path) -> None:
    async def play(folder: Path, environment: dict[str, str]) -> None:
        command = (sys.executable, "-m", "stellwerk.cli", "deploy", str(folder))
        code, out = await output_of(*command, cwd=tmp_path, environment=environment)
        assert code == 0, out
        program = (uv.find_uv_bin(), "run", "--quiet", "--no-project", "--with", SDK, "python", "-c", SDK_PROGRAM)
        code, out = await output_of(*program, cwd=tmp_path, environment=environment)
        assert (code, out.splitlines()[-1]) == (0, "sdk ok"), out

    on_a_node(tmp_path, play)
