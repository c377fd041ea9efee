"""The control plane as one ASGI application: routes, the token at the door, errors as envelopes."""

from __future__ import annotations

import traceback

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stellwerk.core.errors import StellwerkError
from stellwerk.node.api.auth import TokenAuth
from stellwerk.node.api.envelope import NO_METHOD, NoRouteError, failure
from stellwerk.node.api.identity import IdentityApi
from stellwerk.node.api.instances import InstancesApi
from stellwerk.node.api.node_status import NodeStatusApi
from stellwerk.node.api.ports import Ports
from stellwerk.node.api.triggers import TriggersApi
from stellwerk.node.api.workers import WorkersApi
from stellwerk.node.api.workflows import WorkflowsApi
from stellwerk.node.telemetry.log import LogSink

PREFIX = "/client/v4"


def build_app(ports: Ports) -> ASGIApp:
    """The whole control plane over ``ports``."""
    status = NodeStatusApi(ports)
    # Routes are tried one after the other, so those that programs call all day come first.
    rooms = (InstancesApi(ports), WorkflowsApi(ports), WorkersApi(ports), TriggersApi(ports), IdentityApi())
    # Not mounted: that would be a second router on the way of each call.
    v4 = [
        Route(PREFIX + route.path, route.endpoint, methods=route.methods) for room in rooms for route in room.routes()
    ]
    app = Starlette(
        routes=[*status.open_routes(), *v4, *status.routes()],
        middleware=[
            Middleware(_Watch, ports=ports),
            Middleware(TokenAuth, token=ports.token),
        ],
        exception_handlers={StellwerkError: _on_error, HTTPException: _on_http},
    )
    # A redirect to the path without its slash would lose the token and the body: both forms are routes.
    app.router.redirect_slashes = False
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StellwerkError)
    return failure(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: an unknown path, a method that the path does not have."""
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        refusal = NoRouteError(f"{place}: this address does not have that method.")
        refusal.http_status, refusal.cloudflare_code = 405, NO_METHOD
        return failure(refusal)
    refusal = NoRouteError(
        f"{place}: there is nothing at this address.", cure="It is misspelt, or this release does not have it."
    )
    refusal.http_status = error.status_code
    return failure(refusal)


class _Watch:
    """Counts calls, and turns what nobody expected into an envelope and a traceback in the log."""

    def __init__(self, app: ASGIApp, *, ports: Ports) -> None:
        self._app = app
        self._counts = ports.counters.control_requests
        self._log: LogSink = ports.log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            self._log.error(
                "control.failed",
                method=scope["method"],
                path=scope["path"],
                stack="".join(traceback.format_exception(error)),
            )
            if not status:
                unexpected = StellwerkError(
                    f"Unexpected {type(error).__name__} in the control plane.", cure="The node's log has the traceback."
                )
                await failure(unexpected)(scope, receive, watched)
        finally:
            self._counts[status // 100] += 1
