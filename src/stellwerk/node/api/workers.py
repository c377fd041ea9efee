"""Workers over HTTP: uploads, versions, deployments, removal. Paths and shapes are Cloudflare's v4.

One owner has the node, so whatever account id stands in the path names the same account.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.deployment.manifest import decode as decode_manifest
from stellwerk.core.errors import InvalidRequestError, NotFoundError, WorkerNotFoundError
from stellwerk.core.ids import LOCAL_ACCOUNT, is_worker_name
from stellwerk.core.times import iso_from_ms
from stellwerk.node.api.envelope import NotBuiltError, success
from stellwerk.node.api.ports import Ports
from stellwerk.node.api.requests import paginate, parse_page, read_object
from stellwerk.node.api.upload import parse_upload, render_bindings
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.store.base import DeploymentRow, VersionRow

AUTHOR = "local@stellwerk.invalid"
"""wrangler prints an author without looking whether there is one; a node of one owner knows no names."""

SERVICE_NOT_FOUND = 10090  # Cloudflare's number for the same error under ``/workers/services``


class VersionNotFoundError(NotFoundError):
    code = "version.not_found"
    cloudflare_code = 10112


class WorkersApi:
    """The routes of the room *deployment*."""

    def __init__(self, ports: Ports) -> None:
        self._deployments = ports.deployments
        self._store = ports.store

    def routes(self) -> list[Route]:
        scripts = "/accounts/{account}/workers/scripts"
        one = scripts + "/{worker}"
        service = "/accounts/{account}/workers/services/{worker}"
        return [
            Route(scripts, self.list_workers, methods=["GET"]),
            Route(one, self.put_worker, methods=["PUT"]),
            Route(one, self.delete_worker, methods=["DELETE"]),
            Route(one + "/settings", self.get_settings, methods=["GET"]),
            Route(one + "/versions", self.list_versions, methods=["GET"]),
            Route(one + "/versions", self.post_version, methods=["POST"]),
            Route(one + "/versions/{version}", self.get_version, methods=["GET"]),
            Route(one + "/deployments", self.list_deployments, methods=["GET"]),
            Route(one + "/deployments", self.post_deployment, methods=["POST"]),
            Route(service, self.get_service, methods=["GET"]),
            Route(service, self.delete_worker, methods=["DELETE"]),
        ]

    async def list_workers(self, request: Request) -> Response:
        page = parse_page(request)
        versions, info = paginate(self._deployments.workers(), page)
        return success([await self._render_worker(version) for version in versions], info=info)

    async def put_worker(self, request: Request) -> Response:
        """Version and deployment in one call: it serves all requests when this returns."""
        version, message = await self._upload(request)
        source = _source(request)
        await self._deployments.deploy(version.worker, version.version_id, source=source, message=message)
        item = await self._render_worker(version)
        item["deployment_id"] = version.version_id.replace("-", "")  # wrangler prints it as the version's id
        return success(item)

    async def post_version(self, request: Request) -> Response:
        """A version that nobody serves yet."""
        version, _ = await self._upload(request)
        row = await self._version_row(version.worker, version.version_id)
        return success(_render_version(row))

    async def _upload(self, request: Request) -> tuple[LoadedVersion, str]:
        name = request.path_params["worker"]
        if not is_worker_name(name):
            raise InvalidRequestError(
                f"{name!r} cannot name a Worker.", cure="Lower-case letters, digits, - and _, at most 63 characters."
            )
        serving = self._deployments.serving(name)
        upload = await parse_upload(request, name, serving.manifest if serving else None)
        source = _source(request)
        version = await self._deployments.upload(upload.manifest, upload.files, source=source, message=upload.message)
        return version, upload.message

    async def delete_worker(self, request: Request) -> Response:
        worker = self._serving(request).worker
        await self._deployments.remove(worker)
        return success(None)

    async def get_service(self, request: Request) -> Response:
        try:
            version = self._serving(request)
        except WorkerNotFoundError as error:
            error.cloudflare_code = SERVICE_NOT_FOUND
            raise
        item = await self._render_worker(version)
        # ``last_deployed_from`` anything but "wrangler" makes wrangler download and compare, or warn.
        script = {**item, "tag": version.version_id, "tags": [], "last_deployed_from": "wrangler"}
        environment = {
            "environment": "production",
            "created_on": item["created_on"],
            "modified_on": item["modified_on"],
            "script": script,
        }
        return success({"id": version.worker, "default_environment": environment})

    async def get_settings(self, request: Request) -> Response:
        manifest = self._serving(request).manifest
        return success({"bindings": render_bindings(manifest), **_runtime(manifest), "tags": []})

    async def list_versions(self, request: Request) -> Response:
        worker = self._name(request)
        rows = await self._store.versions(LOCAL_ACCOUNT, worker)
        if not rows:
            raise _no_worker(worker)
        items, info = paginate([_render_version(row) for row in rows], parse_page(request))
        return success({"items": items}, info=info)

    async def get_version(self, request: Request) -> Response:
        row = await self._version_row(self._name(request), request.path_params["version"])
        return success(_render_version(row))

    async def _version_row(self, worker: str, version_id: str) -> VersionRow:
        row = await self._store.version(version_id)
        if row is None or row.worker != worker or row.account_id != LOCAL_ACCOUNT:
            raise VersionNotFoundError(
                f'The Worker "{worker}" has no version {version_id}.', cure="Look at `stellwerk versions list`."
            )
        return row

    async def list_deployments(self, request: Request) -> Response:
        worker = self._name(request)
        rows = await self._store.deployments(LOCAL_ACCOUNT, worker)
        if not rows:
            raise _no_worker(worker)
        items, info = paginate([_render_deployment(row) for row in rows], parse_page(request))
        # wrangler reads "deployments", the paging of the Python SDK reads "items".
        return success({"deployments": items, "items": items}, info=info)

    async def post_deployment(self, request: Request) -> Response:
        worker = self._name(request)
        body = await read_object(request)
        version_id = _one_version(body.get("versions"))
        await self._version_row(worker, version_id)
        annotations = body.get("annotations")
        message = annotations.get("workers/message") if isinstance(annotations, dict) else None
        await self._deployments.deploy(worker, version_id, source=_source(request), message=str(message or ""))
        rows = await self._store.deployments(LOCAL_ACCOUNT, worker)
        return success(_render_deployment(rows[0]))

    # -- shared ------------------------------------------------------------------------------------------------------

    def _name(self, request: Request) -> str:
        return str(request.path_params["worker"])

    def _serving(self, request: Request) -> LoadedVersion:
        worker = self._name(request)
        version = self._deployments.serving(worker)
        if version is None:
            raise _no_worker(worker)
        return version

    async def _render_worker(self, version: LoadedVersion) -> dict[str, Any]:
        """A Worker by its serving version: created when it was first seen, modified when it was last deployed."""
        manifest = version.manifest
        rows = await self._store.versions(LOCAL_ACCOUNT, version.worker)
        deployments = await self._store.deployments(LOCAL_ACCOUNT, version.worker)
        return {
            "id": version.worker,
            "created_on": iso_from_ms(rows[-1].created_at) if rows else None,
            "modified_on": iso_from_ms(deployments[0].created_at) if deployments else None,
            "etag": version.version_id.replace("-", ""),
            "handlers": ["fetch"],
            "main_module": manifest.main,
            **_runtime(manifest),
            "workflows": [flow.name for flow in manifest.defined_workflows()],
            "routes": [route.pattern for route in manifest.routes],
            "version_id": version.version_id,
            "number": version.number,
            "default": manifest.default,
        }


def _runtime(manifest: Manifest) -> dict[str, Any]:
    return {
        "compatibility_date": manifest.compatibility_date,
        "compatibility_flags": list(manifest.compatibility_flags),
        "usage_model": "standard",
    }


def _no_worker(worker: str) -> WorkerNotFoundError:
    return WorkerNotFoundError(
        f'There is no Worker "{worker}".', cure=f"Deploy it: stellwerk deploy <folder of {worker}>."
    )


def _source(request: Request) -> str:
    return "wrangler" if request.headers.get("user-agent", "").startswith("wrangler/") else "api"


def _one_version(versions: object) -> str:
    """The version of a deployment's body. Two by percentage are Cloudflare's; this release serves one at a time."""
    if not isinstance(versions, list) or not versions or not all(isinstance(v, dict) for v in versions):
        raise InvalidRequestError('"versions" must be a list of {"version_id", "percentage"}.')
    chosen = [v for v in versions if v.get("percentage")]
    if len(chosen) != 1 or chosen[0]["percentage"] != 100:
        raise NotBuiltError(
            "Deployments of two versions by percentage are not built yet.", cure="Deploy one version at 100 %."
        )
    version_id = chosen[0].get("version_id")
    if not isinstance(version_id, str):
        raise InvalidRequestError('"version_id" must be a string.')
    return version_id


def _render_version(row: VersionRow) -> dict[str, Any]:
    manifest = decode_manifest(row.config)
    annotations = {"workers/triggered_by": "upload"}
    if row.message:
        annotations["workers/message"] = row.message
    return {
        "id": row.version_id,
        "number": row.number,
        "metadata": {
            "created_on": iso_from_ms(row.created_at),
            "modified_on": iso_from_ms(row.created_at),
            "source": row.source,
            "author_email": AUTHOR,
            "has_preview": False,
        },
        "annotations": annotations,
        "resources": {
            "script": {"etag": row.bundle, "handlers": ["fetch"], "last_deployed_from": row.source},
            "script_runtime": _runtime(manifest),
            "bindings": render_bindings(manifest),
        },
        "stellwerk": {"main": manifest.main, "settings": msgspec.to_builtins(manifest.settings)},
    }


def _render_deployment(row: DeploymentRow) -> dict[str, Any]:
    return {
        "id": row.deployment_id,
        "source": row.source,
        "strategy": "percentage",
        "author_email": AUTHOR,
        "created_on": iso_from_ms(row.created_at),
        "annotations": {"workers/message": row.message} if row.message else {},
        "versions": [{"version_id": version, "percentage": share} for version, share in row.versions],
    }
