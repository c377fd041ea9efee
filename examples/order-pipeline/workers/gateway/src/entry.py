"""gateway: the only door of the pipeline. It knows who may come in and what an order looks like, and nothing else.

    POST /orders            starts the order's run; 202, or 409 when the order is known already
    GET  /orders/<id>       how far it is
    POST /shipping/<id>     the carrier's event, handed to the run

An answer of 202 is a promise: the run is on disk, and it will be brought to its end whatever happens to this process.
"""

import hmac
from urllib.parse import urlparse

from answers import Refusal, as_refusal
from shape import parse_order, parse_shipping
from signature import sign
from workers import Response, WorkerEntrypoint

OVER = ("complete", "errored", "terminated")


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        """Central error handler: whatever is raised below leaves in the one shape of an error."""
        try:
            status, answer = await self.route(request)
        except Exception as error:
            refusal = as_refusal(error)
            status, answer = refusal.status, {"error": refusal.as_error()}
        return Response.json(answer, status=status)

    async def route(self, request):
        match request.method, urlparse(request.url).path.strip("/").split("/"):
            case "POST", ["orders"]:
                self.authenticate(request, self.env.API_TOKEN)
                return await self.start(parse_order(await body_of(request)))
            case "GET", ["orders", order_id]:
                self.authenticate(request, self.env.API_TOKEN)
                return await self.status(order_id)
            case "POST", ["shipping", order_id]:
                self.authenticate(request, self.env.CARRIER_TOKEN)
                return await self.shipped(order_id, parse_shipping(await body_of(request)))
            case "GET", ["healthz"]:
                return 200, {"ok": True, "worker": "gateway"}
        raise Refusal("no_such_path", f"{request.method} {urlparse(request.url).path} is not served here", status=404)

    def authenticate(self, request, token):
        scheme, _, given = (request.headers.get("authorization") or "").partition(" ")
        # compare_digest: the time it takes tells nothing about how much of the token was right.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
            raise Refusal("not_authenticated", "send `Authorization: Bearer <token>`", status=401)

    async def start(self, order):
        params = {"order": order, "signature": sign(order, self.env.ORDER_SIGNING_KEY)}
        try:
            # The order's id is the run's id: an order posted twice cannot become two runs.
            run = await self.env.ORDERS.create({"id": order["id"], "params": params})
        except Exception as error:
            if "already_exists" in str(error):
                raise Refusal("order_known", f"order {order['id']} has been accepted before", status=409) from error
            raise
        return 202, {"order": order["id"], "instance": run.id}

    async def status(self, order_id):
        run = await self.find(order_id)
        now = await run.status()
        return 200, {"order": order_id, "status": now["status"], "output": now["output"], "error": now["error"]}

    async def shipped(self, order_id, event):
        run = await self.find(order_id)
        if (await run.status())["status"] in OVER:
            # Second copy, or too late. Acknowledge, or the carrier would repeat it for ever.
            return 200, {"order": order_id, "status": "ignored"}
        await run.send_event({"type": "shipping", "payload": event})
        return 202, {"order": order_id, "status": "accepted"}

    async def find(self, order_id):
        try:
            return await self.env.ORDERS.get(order_id)
        except Exception as error:
            if "not_found" in str(error):
                raise Refusal("order_unknown", f"there is no order {order_id}", status=404) from error
            raise


async def body_of(request):
    try:
        return await request.json()
    except ValueError as error:
        raise Refusal("not_json", f"the body is not JSON: {error}") from error
