"""Deployments over the real store in a real state folder: what is acknowledged survives, a conflict changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core import limits
from stellwerk.core.deployment.manifest import Manifest, Route, ServiceBinding, WorkerSettings, WorkflowBinding
from stellwerk.core.errors import (
    BundleError,
    ConfigError,
    ConflictError,
    DependencyError,
    NotFoundError,
    WorkerNotFoundError,
    WorkflowNotFoundError,
)
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.workflow import entries
from stellwerk.core.workflow.status import Status
from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.collector import Collector
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.store.base import Decision, InstanceRow
from stellwerk.store.sqlite.store import SqliteStore


class ManualClock(SystemClock):
    """The machine's clock, moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Events:
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, Any]]] = []
        self.infos: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append((event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.infos.append((event, fields))


class Node:
    """What these tests need of a node: a store and its deployments."""

    def __init__(self, store: SqliteStore, deployments: Deployments, clock: ManualClock, log: Events) -> None:
        self.store, self.deployments, self.clock, self.log = store, deployments, clock, log

    async def deploy(self, manifest: Manifest, text: str = "x = 1\n", *, requirements: str = "") -> LoadedVersion:
        files = {"main.py": text.encode(), "requirements.txt": requirements.encode()}
        version = await self.deployments.upload(manifest, files, source="api")
        await self.deployments.deploy(manifest.name, version.version_id, source="api")
        return version

    async def run_of(self, version: LoadedVersion, instance_id: str, *, ended: bool = False) -> None:
        """An instance whose run manifest names ``version``."""
        created = entries.Created(
            at=1,
            params=b"",
            worker=version.worker,
            version_id=version.version_id,
            class_name="W",
            trigger="api",
            manifest={version.worker: version.version_id},
            steps_max=10,
        )
        key = (LOCAL_ACCOUNT, "flow", instance_id)
        row = InstanceRow(
            account_id=LOCAL_ACCOUNT,
            workflow="flow",
            instance_id=instance_id,
            incarnation=1,
            status=Status.QUEUED,
            worker=version.worker,
            version_id=version.version_id,
            class_name="W",
            created_at=1,
            modified_at=1,
        )
        await self._written(Decision(create=row, journal=[(*key, 1, 0, 1, entries.encode(created))]))
        if ended:
            await self._written(Decision(update=(Status.TERMINATED.value, 2, None, 2, None, *key, 1)))

    async def _written(self, decision: Decision) -> None:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        decision.done = lambda error: written.set_exception(error) if error else written.set_result(None)
        self.store.submit([decision])
        await written


@contextlib.asynccontextmanager
async def a_node(state: Path) -> AsyncIterator[Node]:
    clock, log = ManualClock(), Events()
    store = await SqliteStore.open(state / "stellwerk.db", owner="node", now_ms=clock.now_ms())
    deployments = Deployments(store, state, clock, log=log)
    try:
        await deployments.start()
        yield Node(store, deployments, clock, log)
    finally:
        await deployments.stop()
        await deployments.stop()
        await store.close()


def a_manifest(name: str, **fields: Any) -> Manifest:
    return Manifest(name=name, main="main.py", compatibility_date="2026-01-01", **fields)


def a_workflow(name: str, script: str | None = None) -> WorkflowBinding:
    return WorkflowBinding(name=name, binding="FLOW", class_name="Flow", script_name=script)


def a_service(name: str) -> ServiceBinding:
    return ServiceBinding(binding=name.upper(), service=name)


def test_what_was_deployed_serves_again_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        manifest = a_manifest(
            "orders", vars={"A": {"deep": [1]}}, secrets={"KEY": "s"}, workflows=(a_workflow("flow"),)
        )
        async with a_node(tmp_path) as node:
            before = await node.deploy(manifest)
            assert before.number == 1 and before.manifest == manifest
            assert (before.bundle / "main.py").read_bytes() == b"x = 1\n"
        async with a_node(tmp_path) as node:
            assert node.deployments.serving("orders") == before
            assert node.deployments.loaded(before.version_id) == before
            assert node.deployments.workflow("flow") == (before, manifest.workflows[0])
            assert node.deployments.deployed_from("orders") == "api"
            assert node.deployments.problems == {}

    asyncio.run(run())


def test_the_same_upload_is_the_same_version_and_any_difference_makes_another(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            upload, files = node.deployments.upload, {"main.py": b"x = 1\n"}
            first = await upload(a_manifest("orders"), files, source="api")
            assert await upload(a_manifest("orders"), files, source="dev") is first
            code = await upload(a_manifest("orders"), {"main.py": b"x = 2\n"}, source="api")
            config = await upload(a_manifest("orders", vars={"A": "1"}), files, source="api")
            assert [each.number for each in (first, code, config)] == [1, 2, 3]
            assert config.bundle == first.bundle != code.bundle
            assert node.deployments.serving("orders") is None
        async with a_node(tmp_path) as node:
            again = await node.deployments.upload(a_manifest("orders"), files, source="api")
            assert again == first

    asyncio.run(run())


def test_listeners_hear_of_a_change_after_it_is_in_force_and_one_failing_stops_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        heard: list[tuple[str, int, int]] = []
        async with a_node(tmp_path) as node:

            def failing(worker: str, old: LoadedVersion | None, new: LoadedVersion) -> None:
                raise RuntimeError("not my day")

            def listening(worker: str, old: LoadedVersion | None, new: LoadedVersion) -> None:
                assert node.deployments.serving(worker) is new
                heard.append((worker, old.number if old else 0, new.number))

            node.deployments.on_change += [failing, listening]
            await node.deploy(a_manifest("orders"))
            await node.deploy(a_manifest("orders"), "x = 2\n")
            await node.deploy(a_manifest("orders"), "x = 2\n")
            assert heard == [("orders", 0, 1), ("orders", 1, 2)]
            assert [event for event, _ in node.log.errors] == ["deployment.listener_failed"] * 2
            assert len(await node.store.deployments(LOCAL_ACCOUNT, "orders")) == 3

    asyncio.run(run())


def test_two_workers_cannot_define_one_workflow_and_the_refused_one_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            first = await node.deploy(a_manifest("orders", workflows=(a_workflow("flow"),)))
            await node.deploy(a_manifest("caller", workflows=(a_workflow("flow", "orders"),)))
            with pytest.raises(ConflictError, match=r'"billing" and "orders" both define the workflow "flow"'):
                await node.deploy(a_manifest("billing", workflows=(a_workflow("flow"),)))
            assert node.deployments.serving("billing") is None
            assert node.deployments.workflow("flow")[0] is first
            assert await node.store.deployments(LOCAL_ACCOUNT, "billing") == []

    asyncio.run(run())


def test_two_workers_cannot_claim_one_route(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            route = (Route(pattern="shop.example/*"),)
            await node.deploy(a_manifest("shop", routes=route))
            with pytest.raises(ConfigError, match=r"shop\.example"):
                await node.deploy(a_manifest("copy", routes=route))
            assert node.deployments.route("shop.example", "/x") == "shop"

    asyncio.run(run())


def test_routes_follow_what_serves(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            await node.deploy(a_manifest("shop", routes=(Route(pattern="shop.example/api/*"),)))
            await node.deploy(a_manifest("blog"))
            route = node.deployments.route
            assert route("shop.example:8787", "/api/1") == "shop"
            assert route("blog.localhost:8787", "/") == "blog"
            assert route("other.example", "/") is None
            await node.deploy(a_manifest("shop", default=True))
            assert (route("shop.example", "/api/1"), route("other.example", "/")) == ("shop", "shop")
            await node.deployments.remove("shop")
            assert route("shop.localhost", "/") == "blog"  # the only Worker left answers everything

    asyncio.run(run())


def test_an_unknown_workflow_names_the_nearest(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            with pytest.raises(WorkflowNotFoundError, match="No deployed Worker defines a workflow"):
                node.deployments.workflow("order")
            await node.deploy(a_manifest("orders", workflows=(a_workflow("order-flow"),)))
            with pytest.raises(WorkflowNotFoundError, match=r'Did you mean "order-flow"\?'):
                node.deployments.workflow("orderflow")
            assert [binding.name for _, binding in node.deployments.workflows()] == ["order-flow"]

    asyncio.run(run())


def test_a_run_manifest_has_everything_reachable_and_follows_a_deployment(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            orders = await node.deploy(a_manifest("orders", services=(a_service("charge"),)))
            with pytest.raises(WorkerNotFoundError, match='leads to the Worker "charge"'):
                node.deployments.freeze("orders")
            charge = await node.deploy(a_manifest("charge", services=(a_service("orders"),)))
            await node.deploy(a_manifest("other"))
            frozen = node.deployments.freeze("orders")
            assert frozen == {"orders": orders.version_id, "charge": charge.version_id}
            frozen.clear()  # the caller's own copy
            newer = await node.deploy(a_manifest("charge"), "x = 2\n")
            assert node.deployments.freeze("orders") == {"orders": orders.version_id, "charge": newer.version_id}
            with pytest.raises(WorkerNotFoundError, match='Did you mean "orders"'):
                node.deployments.freeze("order")

    asyncio.run(run())


def test_bindings_say_what_is_not_connected_and_why(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            await node.deploy(a_manifest("orders", services=(a_service("charge"),)))
            [row] = node.deployments.bindings()
            assert not row.connected and 'no Worker is named "charge"' in row.reason
            await node.deploy(a_manifest("charge"))
            assert [row.connected for row in node.deployments.bindings()] == [True]
            assert [version.worker for version in node.deployments.workers()] == ["charge", "orders"]

    asyncio.run(run())


def test_a_removed_worker_serves_no_more_and_its_version_can_still_be_loaded(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            gone: list[str] = []
            node.deployments.on_remove.append(lambda worker, old: gone.append(f"{worker} {old.number}"))
            version = await node.deploy(a_manifest("orders"))
            await node.deployments.remove("orders")
            assert gone == ["orders 1"] and node.deployments.serving("orders") is None
            with pytest.raises(WorkerNotFoundError):
                await node.deployments.remove("orders")
        async with a_node(tmp_path) as node:
            assert node.deployments.workers() == []
            assert await node.deployments.load(version.version_id) == version

    asyncio.run(run())


def test_what_cannot_be_uploaded_or_deployed_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            deployments = node.deployments
            with pytest.raises(BundleError, match=r'"main\.py" of the Worker "orders" .* Did you mean "mian\.py"'):
                await deployments.upload(a_manifest("orders"), {"mian.py": b""}, source="api")
            with pytest.raises(BundleError, match="cannot be in a bundle"):
                await deployments.upload(a_manifest("orders"), {"main.py": b"", "../x": b""}, source="api")
            with pytest.raises(DependencyError, match="not a requirement"):
                await deployments.upload(
                    a_manifest("orders"), {"main.py": b"", "requirements.txt": b"./here"}, source="api"
                )
            with pytest.raises(DependencyError, match="allow_sdist"):
                await deployments.upload(
                    a_manifest("orders", settings=WorkerSettings(allow_sdist=True)),
                    {"main.py": b"", "requirements.txt": b"iniconfig"},
                    source="api",
                )
            assert await node.store.versions(LOCAL_ACCOUNT, "orders") == []
            with pytest.raises(NotFoundError, match="There is no version nobody"):
                await deployments.deploy("orders", "nobody", source="api")
            other = await node.deploy(a_manifest("other"))
            with pytest.raises(NotFoundError, match='it is one of "other"'):
                await deployments.deploy("orders", other.version_id, source="api")

    asyncio.run(run())


def test_a_version_brings_its_installed_dependencies_also_when_their_folder_was_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            version = await node.deploy(a_manifest("orders"), requirements="iniconfig\nworkers-py\n")
            [folder] = version.dependencies
            assert (folder / "iniconfig").is_dir() and "workers-py" in version.notices[0]
        folder.rename(tmp_path / "moved")
        async with a_node(tmp_path) as node:
            assert node.deployments.serving("orders") == version
            assert (folder / "iniconfig").is_dir()

    asyncio.run(run())


def test_a_worker_that_cannot_be_loaded_at_the_start_is_the_only_one_missing(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            lost = await node.deploy(a_manifest("lost"), "lost = 1\n")
            kept = await node.deploy(a_manifest("kept"))
        lost.bundle.rename(tmp_path / "gone")
        async with a_node(tmp_path) as node:
            assert node.deployments.workers() == [kept]
            assert "no longer kept" in str(node.deployments.problems["lost"])
            assert node.log.errors[0][0] == "deployment.not_loaded"
            again = await node.deploy(a_manifest("lost"), "lost = 1\n")
            assert again == lost and node.deployments.problems == {}

    asyncio.run(run())


def test_a_caller_who_gives_up_leaves_memory_and_store_in_agreement(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            version = await node.deployments.upload(a_manifest("orders"), {"main.py": b""}, source="api")
            changed = asyncio.Event()
            node.deployments.on_change.append(lambda *_: changed.set())
            deploying = asyncio.create_task(node.deployments.deploy("orders", version.version_id, source="api"))
            await asyncio.sleep(0)
            deploying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deploying
            async with asyncio.timeout(20):
                await changed.wait()
            assert node.deployments.serving("orders") is version
            assert len(await node.store.deployments(LOCAL_ACCOUNT, "orders")) == 1

    asyncio.run(run())


def test_changes_at_the_same_time_are_checked_one_after_the_other(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            names = [f"w{number}" for number in range(8)]
            versions = [
                await node.deployments.upload(
                    a_manifest(name, workflows=(a_workflow("flow"),)), {"main.py": b""}, source="api"
                )
                for name in names
            ]
            results = await asyncio.gather(
                *(node.deployments.deploy(each.worker, each.version_id, source="api") for each in versions),
                return_exceptions=True,
            )
            assert sum(result is None for result in results) == 1
            assert sum(isinstance(result, ConflictError) for result in results) == 7
            assert len(node.deployments.workers()) == 1

    asyncio.run(run())


def test_collecting_spares_serving_live_recent_and_young_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERSIONS_KEPT", 2)

    async def run() -> None:
        async with a_node(tmp_path) as node:
            versions = [await node.deploy(a_manifest("orders"), f"x = {number}\n") for number in range(6)]
            await node.deployments.deploy("orders", versions[3].version_id, source="api")  # a rollback
            await node.run_of(versions[0], "alive")
            await node.run_of(versions[1], "over", ended=True)
            assert await node.deployments.collect() == []  # all are young
            node.clock.ahead_ms = limits.BUNDLE_GRACE_MS + 60_000
            young = await node.deployments.upload(a_manifest("young"), {"main.py": b"young"}, source="api")
            collected = await node.deployments.collect()
            assert sorted(collected) == sorted(versions[number].bundle.name for number in (1, 2))
            for kept in (versions[0], versions[3], versions[4], versions[5], young):
                assert kept.bundle.exists() and await node.deployments.load(kept.version_id) == kept
            assert node.deployments.loaded(versions[1].version_id) is None
            with pytest.raises(NotFoundError, match=r'The files of version 2 of "orders" .* no longer kept'):
                await node.deployments.deploy("orders", versions[1].version_id, source="api")

    asyncio.run(run())


def test_collecting_removes_dependencies_that_no_kept_version_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERSIONS_KEPT", 1)

    async def run() -> None:
        async with a_node(tmp_path) as node:
            old = await node.deploy(a_manifest("orders"), requirements="iniconfig")
            new = await node.deploy(a_manifest("orders"), requirements="six")
            node.clock.ahead_ms = limits.BUNDLE_GRACE_MS + 60_000
            assert sorted(await node.deployments.collect()) == sorted([old.bundle.name, old.dependencies[0].name])
            assert new.dependencies[0].exists() and not old.dependencies[0].exists()

    asyncio.run(run())


def test_a_version_that_was_just_replaced_keeps_its_files_while_isolates_drain(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            old = await node.deploy(a_manifest("orders"))
            node.clock.ahead_ms = limits.BUNDLE_GRACE_MS * 10
            await node.deployments.remove("orders")
            assert await node.deployments.collect() == []
            node.clock.ahead_ms += limits.BUNDLE_GRACE_MS + 60_000
            assert await node.deployments.collect() == [old.bundle.name]

    asyncio.run(run())


def test_the_collector_passes_at_the_start_and_again_and_a_failed_pass_is_not_its_last(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_node(tmp_path) as node:
            version = await node.deploy(a_manifest("orders"))
            await node.deployments.remove("orders")
            collector = Collector(node.deployments, log=node.log, interval_ms=1)
            await collector.stop()
            (tmp_path / "dependencies").rename(tmp_path / "elsewhere")
            await collector.start()
            async with asyncio.timeout(20):
                await collector.passed.wait()
                assert node.log.errors[0][0] == "deployment.collect_failed"
                (tmp_path / "elsewhere").rename(tmp_path / "dependencies")
                node.clock.ahead_ms = limits.BUNDLE_GRACE_MS + 60_000
                while not node.log.infos:
                    collector.passed.clear()
                    await collector.passed.wait()
            await collector.stop()
            await collector.stop()
            assert node.log.infos[0] == ("deployment.collected", {"folders": 1})
            assert not version.bundle.exists()

    asyncio.run(run())
