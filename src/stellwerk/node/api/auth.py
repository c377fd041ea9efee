"""The door of the control plane: one bearer token, made in the state folder, demanded everywhere but on three paths.

Denying is the default: a route that somebody adds is behind the token until it is listed here.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stellwerk.core.errors import AuthError
from stellwerk.node.api.envelope import failure

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""For load balancers and Prometheus, which have no token. They tell no secret and change nothing."""


class TokenAuth:
    """ASGI middleware: lets a call pass when it carries the token, else answers 401 in Cloudflare's envelope."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._expected = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        error = self._refusal(Headers(scope=scope).get("authorization", ""))
        if error is None:
            await self._app(scope, receive, send)
        else:
            await failure(error)(scope, receive, send)

    def _refusal(self, header: str) -> AuthError | None:
        cure = "Send the token of the node's state folder as a bearer token (CLOUDFLARE_API_TOKEN for wrangler)."
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return AuthError("The control plane needs a token.", cure=cure)
        # Compared in constant time: how long it takes must not tell how much of a guess was right.
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._expected):
            return AuthError("Authentication error: this is not the node's token.", cure=cure)
        return None
