"""From folders to what serves, over the real store: what ``stellwerk dev`` does each time something changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.workspace.dev import WorkerReport, deploy_workspace
from stellwerk.node.workspace.loader import load_workspace
from stellwerk.store.sqlite.store import SqliteStore


def a_worker(folder: Path, name: str, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entry.py").write_text("x = 1\n")
    declared = {
        "name": name,
        "main": "entry.py",
        "compatibility_date": "2026-01-01",
        "compatibility_flags": ["python_workers"],
    }
    (folder / "wrangler.jsonc").write_text(json.dumps({**declared, **config}))
    return folder


def a_workflow(name: str) -> list[dict[str, str]]:
    return [{"name": name, "binding": "FLOW", "class_name": "Flow"}]


@contextlib.asynccontextmanager
async def opened(state: Path) -> AsyncIterator[Deployments]:
    clock = SystemClock()
    store = await SqliteStore.open(state / "stellwerk.db", owner="node", now_ms=clock.now_ms())
    deployments = Deployments(store, state, clock)
    await deployments.start()
    try:
        yield deployments
    finally:
        await deployments.stop()
        await store.close()


async def deploy(root: Path, deployments: Deployments) -> list[WorkerReport]:
    return await deploy_workspace(load_workspace([root]), deployments)


def outcomes(reports: list[WorkerReport]) -> dict[str, str]:
    return {report.worker: report.outcome for report in reports}


def folders(tmp_path: Path) -> tuple[Path, Path]:
    root, state = tmp_path / "workspace", tmp_path / "state"
    root.mkdir()
    state.mkdir()
    return root, state


def test_workers_find_each_other_by_name_in_any_order_and_what_is_not_connected_is_said(tmp_path: Path) -> None:
    root, state = folders(tmp_path)
    a_worker(root / "a", "gateway", services=[{"binding": "CHARGE", "service": "charge"}], routes=["shop.example/*"])
    a_worker(root / "z", "charge", services=[{"binding": "NOBODY", "service": "nobody"}])

    async def run() -> None:
        async with opened(state) as deployments:
            charge, gateway = await deploy(root, deployments)
            assert outcomes([charge, gateway]) == {"gateway": "deployed", "charge": "deployed"}
            assert [(row.binding, row.connected) for row in gateway.bindings] == [("CHARGE", True)]
            assert gateway.routes == ("shop.example/*", "gateway.localhost/*") and gateway.default
            [broken] = charge.bindings
            assert not broken.connected and 'no Worker is named "nobody"' in broken.reason
            assert charge.source is not None and charge.source.lines[broken.key] == 1
            assert charge.routes == ("charge.localhost/*",) and not charge.default

    asyncio.run(run())


def test_only_what_changed_is_deployed_also_after_a_restart(tmp_path: Path) -> None:
    root, state = folders(tmp_path)
    folder = a_worker(root / "a", "charge")
    a_worker(root / "b", "enrich")

    async def run() -> None:
        async with opened(state) as deployments:
            first = {report.worker: report.version for report in await deploy(root, deployments)}
            assert set(outcomes(await deploy(root, deployments)).values()) == {"unchanged"}
        (folder / "entry.py").write_text("x = 2\n")
        async with opened(state) as deployments:
            charge, enrich = await deploy(root, deployments)
            assert (charge.outcome, enrich.outcome) == ("deployed", "unchanged")
            assert charge.replaced == first["charge"] and charge.version == deployments.serving("charge")
            (folder / ".dev.vars").write_text("KEY=other\n")
            charge, _ = await deploy(root, deployments)
            assert charge.outcome == "deployed" and charge.version is not None and charge.version.number == 3

    asyncio.run(run())


def test_a_failing_worker_keeps_its_old_version_and_stops_nobody(tmp_path: Path) -> None:
    root, state = folders(tmp_path)
    broken, unread = a_worker(root / "a", "charge"), a_worker(root / "b", "notify")
    other = a_worker(root / "c", "enrich")

    async def run() -> None:
        async with opened(state) as deployments:
            await deploy(root, deployments)
            old = deployments.serving("charge")
            (broken / "requirements.txt").write_text("no-such-package==1.2.3.4\n")
            (unread / "wrangler.jsonc").write_text("{")
            (other / "entry.py").write_text("x = 2\n")
            reports = await deploy(root, deployments)
            assert outcomes(reports) == {"charge": "failed", "enrich": "deployed", "": "failed"}
            assert "no-such-package" in str(reports[0].problem) and reports[0].version is old
            assert "wrangler.jsonc:1" in str(reports[-1].problem)
            assert deployments.serving("charge") is old
            assert deployments.serving("notify") is not None  # unreadable is not gone
            (broken / "requirements.txt").unlink()
            assert outcomes(await deploy(root, deployments))["charge"] == "unchanged"

    asyncio.run(run())


def test_a_workflow_or_route_may_move_from_one_worker_to_another_at_once(tmp_path: Path) -> None:
    root, state = folders(tmp_path)

    async def run() -> None:
        async with opened(state) as deployments:
            a_worker(root / "a", "alpha")
            a_worker(root / "z", "zeta", workflows=a_workflow("flow"), routes=["shop.example/*"])
            await deploy(root, deployments)
            a_worker(root / "a", "alpha", workflows=a_workflow("flow"), routes=["shop.example/*"])
            a_worker(root / "z", "zeta")
            assert outcomes(await deploy(root, deployments)) == {"alpha": "deployed", "zeta": "deployed"}
            assert deployments.workflow("flow")[0].worker == "alpha"
            assert deployments.route("shop.example", "/") == "alpha"

    asyncio.run(run())


def test_two_workers_with_one_workflow_fail_with_both_names_and_one_serves(tmp_path: Path) -> None:
    root, state = folders(tmp_path)
    for name in ("alpha", "zeta"):
        a_worker(root / name, name, workflows=a_workflow("flow"))

    async def run() -> None:
        async with opened(state) as deployments:
            alpha, zeta = await deploy(root, deployments)
            assert (alpha.outcome, zeta.outcome) == ("deployed", "failed")
            assert '"alpha" and "zeta" both define the workflow "flow"' in str(zeta.problem)

    asyncio.run(run())


def test_a_worker_that_left_the_workspace_is_removed_if_it_came_from_there(tmp_path: Path) -> None:
    root, state = folders(tmp_path)
    gone, renamed = a_worker(root / "a", "gone"), a_worker(root / "b", "before", workflows=a_workflow("flow"))

    async def run() -> None:
        async with opened(state) as deployments:
            await deploy(root, deployments)
            [source] = load_workspace([gone]).workers
            manifest = source.manifest.__class__(name="manual", main="entry.py", compatibility_date="2026-01-01")
            manual = await deployments.upload(manifest, source.files, source="api")
            await deployments.deploy("manual", manual.version_id, source="api")
            await asyncio.to_thread(shutil.rmtree, gone)
            a_worker(renamed, "after", workflows=a_workflow("flow"))
            reports = await deploy(root, deployments)
            assert outcomes(reports) == {"after": "deployed", "before": "removed", "gone": "removed"}
            assert [version.worker for version in deployments.workers()] == ["after", "manual"]

    asyncio.run(run())
