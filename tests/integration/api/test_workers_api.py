"""Uploads, versions and deployments over HTTP, with the forms that wrangler, the Python SDK and our CLI send."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from stellwerk.core.deployment.manifest import Manifest, Route, ServiceBinding, WorkerSettings
from stellwerk.core.ids import LOCAL_ACCOUNT

from .control_double import ControlDouble

Parts = list[tuple[str, tuple[str | None, bytes, str]]]

METADATA: dict[str, Any] = {
    "main_module": "entry.py",
    "compatibility_date": "2026-01-15",
    "compatibility_flags": ["python_workers"],
    "bindings": [
        {"type": "plain_text", "name": "MODE", "text": "fast"},
        {"type": "json", "name": "LIMITS", "json": {"a": [1]}},
        {"type": "secret_text", "name": "KEY", "text": "s3cret"},
        {"type": "service", "name": "CHARGE", "service": "charge", "entrypoint": "Payments"},
        {"type": "workflow", "name": "FLOW", "workflow_name": "pipeline", "class_name": "Pipeline"},
    ],
    "annotations": {"workers/message": "first"},
}
BOUND = {"type": "service", "name": "ORDERS", "service": "orders"}
SCRIPT = "/workers/scripts/orders"


def wrangler_form(metadata: dict[str, Any] | str = METADATA, modules: dict[str, bytes] | None = None) -> Parts:
    """The metadata first, without a filename; then each module under its name."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    parts: Parts = [("metadata", (None, text.encode(), "application/json"))]
    for name, data in (modules or {"entry.py": b"import workers"}).items():
        parts.append((name, (name, data, "text/x-python")))
    return parts


def test_wranglers_upload_becomes_a_manifest_and_serves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            modules = {"entry.py": b"x = 1", "pkg/inner.py": b"", "python_modules/a/b.so": b"\0\xff"}
            headers = {"User-Agent": "wrangler/4.86.0"}
            made = await node.result("PUT", SCRIPT, files=wrangler_form(modules=modules), headers=headers)
            version = node.deployments.serving("orders")
            assert version is not None
            assert made["deployment_id"] == version.version_id.replace("-", "")
            assert version.manifest.vars == {"MODE": "fast", "LIMITS": {"a": [1]}}
            assert version.manifest.secrets == {"KEY": "s3cret"}
            assert version.manifest.services == (
                ServiceBinding(binding="CHARGE", service="charge", entrypoint="Payments"),
            )
            assert [flow.name for flow in version.manifest.defined_workflows()] == ["pipeline"]
            assert node.files(version) == modules
            listed = await node.result("GET", f"{SCRIPT}/versions")
            assert listed["items"][0]["annotations"]["workers/message"] == "first"
            assert listed["items"][0]["metadata"]["source"] == "wrangler"

    asyncio.run(scenario())


def test_the_python_sdks_upload_is_keyed_by_filename(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            parts = wrangler_form()[:1]
            parts += [("files", ("entry.py", b"1", "text/x-python")), ("files", ("a/b.py", b"2", "text/x-python"))]
            await node.result("PUT", SCRIPT, files=parts)
            version = node.deployments.serving("orders")
            assert version is not None
            assert node.files(version) == {"entry.py": b"1", "a/b.py": b"2"}

    asyncio.run(scenario())


def test_our_own_upload_carries_the_whole_manifest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            manifest = Manifest(
                name="orders",
                main="src/entry.py",
                compatibility_date="2026-01-01",
                routes=(Route(pattern="example.com/*"),),
                settings=WorkerSettings(memory_mb=64, egress_allow=("10.0.0.1:80",)),
                default=True,
            )
            metadata = {"stellwerk": msgspec.to_builtins(manifest)}
            await node.result("PUT", SCRIPT, files=wrangler_form(metadata, {"src/entry.py": b""}))
            version = node.deployments.serving("orders")
            assert version is not None
            assert version.manifest == manifest

    asyncio.run(scenario())


def test_secrets_survive_an_upload_that_does_not_mention_them_and_vars_do_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.result("PUT", SCRIPT, files=wrangler_form())
            bare = {**METADATA, "bindings": []}
            await node.result("PUT", SCRIPT, files=wrangler_form(bare))
            version = node.deployments.serving("orders")
            assert version is not None
            assert (version.manifest.secrets, version.manifest.vars) == ({"KEY": "s3cret"}, {})
            await node.result("PUT", SCRIPT, files=wrangler_form({**bare, "keep_bindings": []}))
            version = node.deployments.serving("orders")
            assert version is not None
            assert version.manifest.secrets == {}

    asyncio.run(scenario())


def test_vars_are_kept_when_the_upload_asks_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.result("PUT", SCRIPT, files=wrangler_form())
            await node.result(
                "PUT", SCRIPT, files=wrangler_form({**METADATA, "bindings": [], "keep_bindings": ["plain_text"]})
            )
            version = node.deployments.serving("orders")
            assert version is not None
            assert (version.manifest.vars, version.manifest.secrets) == ({"MODE": "fast"}, {})

    asyncio.run(scenario())


def test_an_inherited_binding_comes_from_the_serving_version_or_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            inherit = {**METADATA, "bindings": [{"type": "inherit", "name": "CHARGE"}]}
            status, error = await node.error("PUT", SCRIPT, files=wrangler_form(inherit))
            assert (status, error["code"]) == (400, 10057)
            assert error["message"].startswith("inherit binding 'CHARGE' is invalid")
            await node.result("PUT", SCRIPT, files=wrangler_form())
            await node.result("PUT", SCRIPT, files=wrangler_form(inherit))
            version = node.deployments.serving("orders")
            assert version is not None
            assert [s.service for s in version.manifest.services] == ["charge"]

    asyncio.run(scenario())


def test_what_cannot_be_honoured_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    refused: list[tuple[Parts, str]] = [
        (wrangler_form({**METADATA, "bindings": [{"type": "kv_namespace", "name": "KV"}]}), '"KV"'),
        (wrangler_form({**METADATA, "main_module": "index.js"}), "Python Workers"),
        (wrangler_form({**METADATA, "main_module": "other.py"}), '"other.py"'),
        (wrangler_form(modules={"entry.py": b"", "../outside.py": b""}), "outside.py"),
        (wrangler_form(modules={"entry.py": b"", "a\\b.py": b""}), "not a path"),
        (wrangler_form("{"), "not JSON"),
        (wrangler_form("[]"), "not a JSON object"),
        (wrangler_form({"stellwerk": {"name": "orders"}}), "manifest"),
        (wrangler_form({"stellwerk": {"name": "x", "main": "entry.py", "compatibility_date": ""}}), '"x"'),
        (wrangler_form()[1:], "metadata"),
    ]

    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            for parts, culprit in refused:
                status, error = await node.error("PUT", SCRIPT, files=parts)
                assert status == 400
                assert culprit in error["message"], error
            assert await node.store.versions(LOCAL_ACCOUNT, "orders") == []
            assert (await node.error("PUT", "/workers/scripts/-bad", files=wrangler_form()))[0] == 400
            assert (await node.error("PUT", SCRIPT, content=b"not a form"))[0] == 400

    asyncio.run(scenario())


def test_a_secret_is_never_read_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.result("PUT", SCRIPT, files=wrangler_form())
            version = node.deployments.serving("orders")
            assert version is not None
            for path in (
                "/workers/scripts",
                f"{SCRIPT}/versions",
                f"{SCRIPT}/versions/{version.version_id}",
                f"{SCRIPT}/deployments",
                f"{SCRIPT}/settings",
                "/workers/services/orders",
            ):
                assert "s3cret" not in (await node.call("GET", path)).text, path
            bindings = (await node.result("GET", f"{SCRIPT}/settings"))["bindings"]
            assert {"name": "KEY", "type": "secret_text"} in bindings
            assert {"name": "CHARGE", "type": "service", "service": "charge", "entrypoint": "Payments"} in bindings

    asyncio.run(scenario())


def test_a_version_can_be_uploaded_first_and_deployed_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.result("PUT", SCRIPT, files=wrangler_form())
            before = node.deployments.serving("orders")
            made = await node.result("POST", f"{SCRIPT}/versions", files=wrangler_form({**METADATA, "bindings": []}))
            assert made["number"] == 2
            assert node.deployments.serving("orders") is before
            body = {"strategy": "percentage", "versions": [{"version_id": made["id"], "percentage": 100}]}
            await node.result("POST", f"{SCRIPT}/deployments", json=body)
            after = node.deployments.serving("orders")
            assert after is not None
            assert after.version_id == made["id"]
            deployments = (await node.result("GET", f"{SCRIPT}/deployments"))["deployments"]
            assert deployments[0]["versions"][0]["version_id"] == made["id"]
            assert len(deployments) == 2

    asyncio.run(scenario())


def test_a_deployment_of_two_versions_says_that_it_is_not_built(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            version = await node.deploy()
            halves = [{"version_id": version.version_id, "percentage": 50}] * 2
            status, error = await node.error("POST", f"{SCRIPT}/deployments", json={"versions": halves})
            assert (status, error["stellwerk"]["code"]) == (400, "request.not_built")
            whole = {"versions": [{"version_id": "nobody", "percentage": 100}]}
            assert (await node.error("POST", f"{SCRIPT}/deployments", json=whole))[1]["code"] == 10112

    asyncio.run(scenario())


def test_an_unknown_worker_has_cloudflares_number_on_each_path(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            for path, number in (
                ("/workers/services/nobody", 10090),
                ("/workers/scripts/nobody/deployments", 10007),
                ("/workers/scripts/nobody/versions", 10007),
                ("/workers/scripts/nobody/settings", 10007),
            ):
                status, error = await node.error("GET", path)
                assert (status, error["code"]) == (404, number)

    asyncio.run(scenario())


def test_wrangler_learns_that_it_deployed_the_worker_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            version = await node.deploy()
            environment = (await node.result("GET", "/workers/services/orders"))["default_environment"]
            assert environment["script"]["last_deployed_from"] == "wrangler"
            assert environment["script"]["tag"] == version.version_id

    asyncio.run(scenario())


def test_a_removed_worker_serves_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            await node.result("DELETE", SCRIPT, params={"force": "true"})
            assert node.deployments.serving("orders") is None
            assert (await node.error("DELETE", "/workers/services/orders"))[0] == 404

    asyncio.run(scenario())


def test_versions_are_paged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            for text in "abc":
                await node.result("PUT", SCRIPT, files=wrangler_form(modules={"entry.py": text.encode()}))
            params = {"per_page": 2, "page": 2}
            page = await node.result("GET", f"{SCRIPT}/versions", params=params)
            assert [item["number"] for item in page["items"]] == [1]
            page = await node.result("GET", f"{SCRIPT}/versions", params={"per_page": 2, "page": 3})
            assert page["items"] == []

    asyncio.run(scenario())


def test_the_calls_that_end_wranglers_deploy_are_answered_with_what_is_true(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlDouble(tmp_path) as node:
            await node.deploy()
            assert (await node.result("GET", "/workers/subdomain"))["subdomain"]
            assert (await node.result("POST", f"{SCRIPT}/subdomain", json={"enabled": False}))["enabled"] is True
            settings = await node.result("PATCH", f"{SCRIPT}/script-settings", json={"logpush": True})
            assert settings["logpush"] is False
            await node.result("PUT", "/workers/scripts/shop", files=wrangler_form({**METADATA, "bindings": [BOUND]}))
            incoming = (await node.result("GET", f"{SCRIPT}/references"))["services"]["incoming"]
            assert [reference["service"] for reference in incoming] == ["shop"]
            assert await node.result("GET", "/storage/kv/namespaces", params={"page": 1}) == []
            for path in ("routes", "schedules", "domains/records"):
                status, error = await node.error("PUT", f"{SCRIPT}/{path}", json=[])
                assert (status, error["stellwerk"]["code"]) == (400, "request.not_built")
            assert (await node.error("GET", "/workers/scripts/nobody/subdomain"))[1]["code"] == 10007

    asyncio.run(scenario())
