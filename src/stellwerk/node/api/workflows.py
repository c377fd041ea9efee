"""Workflows over HTTP: which there are, and the registration call that ends wrangler's deploy."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stellwerk.core.deployment.manifest import WorkflowBinding
from stellwerk.core.errors import ConflictError
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.times import iso_from_ms
from stellwerk.node.api.envelope import success
from stellwerk.node.api.ports import Ports
from stellwerk.node.api.requests import paginate, parse_page, read_object
from stellwerk.node.deployment.version import LoadedVersion


class WorkflowsApi:
    """The routes of the room *workflow*, without its instances."""

    def __init__(self, ports: Ports) -> None:
        self._deployments = ports.deployments
        self._store = ports.store

    def routes(self) -> list[Route]:
        flows = "/accounts/{account}/workflows"
        one = flows + "/{workflow}"
        return [
            Route(flows, self.list_workflows, methods=["GET"]),
            Route(one, self.get_workflow, methods=["GET"]),
            Route(one, self.put_workflow, methods=["PUT"]),
            Route(one + "/versions", self.list_versions, methods=["GET"]),
        ]

    async def list_workflows(self, request: Request) -> Response:
        part, info = paginate(self._deployments.workflows(), parse_page(request))
        counts = await self._counts()
        return success([await self._render(version, flow, counts) for version, flow in part], info=info)

    async def get_workflow(self, request: Request) -> Response:
        version, flow = self._deployments.workflow(request.path_params["workflow"])
        return success(await self._render(version, flow, await self._counts()))

    async def put_workflow(self, request: Request) -> Response:
        """wrangler's last call of a deploy. The upload has registered the workflow; this only agrees or objects."""
        version, flow = self._deployments.workflow(request.path_params["workflow"])
        body = await read_object(request)
        asked = (body.get("script_name"), body.get("class_name"))
        if asked != (version.worker, flow.class_name):
            raise ConflictError(
                f'The workflow "{flow.name}" is {version.worker}.{flow.class_name}, not {asked[0]}.{asked[1]}.',
                cure="Deploy the Worker that defines it.",
            )
        return success(await self._render(version, flow, await self._counts()))

    async def list_versions(self, request: Request) -> Response:
        """A version of a workflow is the version of the Worker that has its class; newest first."""
        version, flow = self._deployments.workflow(request.path_params["workflow"])
        rows = await self._store.versions(LOCAL_ACCOUNT, version.worker)
        part, info = paginate(rows, parse_page(request))
        shown = [
            {
                "id": row.version_id,
                "class_name": flow.class_name,
                "workflow_id": flow.name,
                "created_on": iso_from_ms(row.created_at),
                "modified_on": iso_from_ms(row.created_at),
                "has_dag": False,
                "limits": {"steps": flow.steps_max},
            }
            for row in part
        ]
        return success(shown, info=info)

    async def _counts(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for (workflow, status), number in (await self._store.status_counts(LOCAL_ACCOUNT)).items():
            counts.setdefault(workflow, {})[status.value] = number
        return counts

    async def _render(
        self, version: LoadedVersion, flow: WorkflowBinding, counts: dict[str, dict[str, int]]
    ) -> dict[str, Any]:
        rows = await self._store.versions(LOCAL_ACCOUNT, version.worker)
        return {
            "id": flow.name,
            "name": flow.name,
            "script_name": version.worker,
            "class_name": flow.class_name,
            "version_id": version.version_id,
            "created_on": iso_from_ms(rows[-1].created_at) if rows else None,
            "modified_on": iso_from_ms(rows[0].created_at) if rows else None,
            "triggered_on": None,
            "instances": counts.get(flow.name, {}),
        }
