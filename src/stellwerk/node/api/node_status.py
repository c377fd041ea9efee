"""What the node says of itself: alive, ready, metrics (all without a token), and ``/v1/system`` (with it)."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version as package_version
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from stellwerk.core.errors import StellwerkError
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.node.api.envelope import Json, success
from stellwerk.node.api.ports import Ports
from stellwerk.node.telemetry import metrics


class NodeStatusApi:
    """Health, metrics and settings."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._version = package_version("stellwerk")

    def open_routes(self) -> list[Route]:
        """Must stay in step with ``auth.OPEN_PATHS``; a test compares."""
        return [
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def routes(self) -> list[Route]:
        return [Route("/v1/system", self.system, methods=["GET"])]

    async def healthz(self, request: Request) -> Response:
        """The event loop turns: nothing else is asked, so that a sick disk does not make a supervisor kill the node."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 when the node serves and its store answers, else 503 with the reason."""
        reason = await self._not_ready()
        if reason:
            return Json({"ready": False, "reason": reason}, status_code=503)
        return Json({"ready": True})

    async def _not_ready(self) -> str:
        if not self._ports.ready():
            return "the node is starting or stopping"
        try:
            await self._ports.store.version("")  # one look-up by key: a probe every second must cost nothing
        except StellwerkError as error:
            return str(error)
        return ""

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format. Served even while the store fails, without the figures that come from it."""
        try:
            runs = await self._ports.store.status_counts(LOCAL_ACCOUNT)
        except StellwerkError:
            runs = {}
        scrape = metrics.Scrape(
            counters=self._ports.counters,
            gauges=self._ports.gauges,
            runs={(workflow, status.value): number for (workflow, status), number in runs.items()},
            commits=self._ports.store.commits,
            ready=self._ports.ready(),
            version=self._version,
        )
        return Response(metrics.render(scrape), media_type=metrics.CONTENT_TYPE)

    async def system(self, request: Request) -> Response:
        """What is really in force: the store's settings as read back, the walls as proven by the composition root."""
        facts: dict[str, Any] = {
            "version": self._version,
            "python": platform.python_version(),
            "implementation": sys.implementation.name,
            "platform": platform.platform(),
            "ready": self._ports.ready(),
            "store": dict(self._ports.store.settings),
            "workers": len(self._ports.deployments.workers()),
        }
        facts.update(self._ports.system())
        return success(facts)
