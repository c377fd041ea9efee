"""Who asks: the calls with which wrangler and the SDK find their account. A node has one account and one owner."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.node.api.envelope import success
from stellwerk.node.api.requests import paginate, parse_page

ACCOUNT = {"id": LOCAL_ACCOUNT, "name": "Stellwerk", "type": "standard", "settings": {}}
MEMBERSHIP = {
    "id": LOCAL_ACCOUNT,
    "account": ACCOUNT,
    "roles": ["Super Administrator - All Privileges"],  # Cloudflare's name for somebody who may do everything
    "status": "accepted",
}


class IdentityApi:
    """``/accounts``, ``/memberships`` and the check of a token."""

    def routes(self) -> list[Route]:
        return [
            Route("/accounts", self.accounts, methods=["GET"]),
            Route("/memberships", self.memberships, methods=["GET"]),
            Route("/user/tokens/verify", self.verify, methods=["GET"]),
        ]

    async def accounts(self, request: Request) -> Response:
        items, info = paginate([ACCOUNT], parse_page(request))
        return success(items, info=info)

    async def memberships(self, request: Request) -> Response:
        items, info = paginate([MEMBERSHIP], parse_page(request))
        return success(items, info=info)

    async def verify(self, request: Request) -> Response:
        """Reached only with the right token."""
        return success({"id": LOCAL_ACCOUNT, "status": "active"})
