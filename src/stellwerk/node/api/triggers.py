"""The calls with which wrangler ends a deploy: subdomain, settings, and the triggers that this release does not have.

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
