"""The calls with which wrangler ends a deploy or a delete: subdomain, settings, references, triggers not built yet.

A Worker always answers on ``<worker>.localhost``; wrangler knows that as the *workers.dev subdomain*, and stops after
the upload when there is none. What has no effect here is accepted and read back as what is true, not as what was sent.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stellwerk.core.errors import WorkerNotFoundError
from stellwerk.node.api.envelope import NotBuiltError, success
from stellwerk.node.api.ports import Ports

SUBDOMAIN = "stellwerk"
"""wrangler prints ``https://<worker>.stellwerk.workers.dev`` and never fetches it; the ending is its own."""


class TriggersApi:
    """Routes below a script that are about how it is reached."""

    def __init__(self, ports: Ports) -> None:
        self._deployments = ports.deployments

    def routes(self) -> list[Route]:
        one = "/accounts/{account}/workers/scripts/{worker}"
        return [
            Route("/accounts/{account}/workers/subdomain", self.account_subdomain, methods=["GET"]),
            Route(one + "/subdomain", self.subdomain, methods=["GET", "POST"]),
            Route(one + "/script-settings", self.script_settings, methods=["GET", "PATCH"]),
            Route(one + "/references", self.references, methods=["GET"]),
            Route("/accounts/{account}/workers/tails/by-consumer/{worker}", self.none_exist, methods=["GET"]),
            Route("/accounts/{account}/storage/kv/namespaces", self.none_exist, methods=["GET"]),
            Route(one + "/routes", self.not_built, methods=["PUT"]),
            Route(one + "/domains/records", self.not_built, methods=["PUT"]),
            Route(one + "/schedules", self.not_built, methods=["GET", "PUT"]),
        ]

    async def account_subdomain(self, request: Request) -> Response:
        return success({"subdomain": SUBDOMAIN})

    async def subdomain(self, request: Request) -> Response:
        """On, whatever was asked: a Worker's own host name cannot be switched off here. wrangler warns of it."""
        self._demand_worker(request)
        return success({"enabled": True, "previews_enabled": False})

    async def script_settings(self, request: Request) -> Response:
        """None of these settings has an effect in this release; so none is kept."""
        self._demand_worker(request)
        settings: dict[str, Any] = {
            "tags": [],
            "logpush": False,
            "observability": {"enabled": False},
            "tail_consumers": None,
            "streaming_tail_consumers": None,
        }
        return success(settings)

    async def references(self, request: Request) -> Response:
        """Workers with a service binding to this one: wrangler asks before it deletes."""
        self._demand_worker(request)
        name = request.path_params["worker"]
        incoming = [
            {"service": version.worker, "environment": "production", "name": binding.binding}
            for version in self._deployments.workers()
            for binding in version.manifest.services
            if binding.service == name and version.worker != name
        ]
        return success({"services": {"incoming": incoming, "outgoing": []}})

    async def none_exist(self, request: Request) -> Response:
        """Of what this release does not have, there are none: an honest empty list, which wrangler's delete needs."""
        return success([])

    async def not_built(self, request: Request) -> Response:
        what = request.url.path.rpartition("/")[2]
        raise NotBuiltError(
            f'"{what}" cannot be set by this call in this release.',
            cure="Write routes into the configuration and deploy with `stellwerk deploy`; schedules are not built yet.",
        )

    def _demand_worker(self, request: Request) -> None:
        name = request.path_params["worker"]
        if self._deployments.serving(name) is None:
            raise WorkerNotFoundError(f'There is no Worker "{name}".', cure="Upload it first.")
