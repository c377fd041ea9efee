"""notify: tells the customer, through the CRM's HTTP API, that the parcel is on its way."""

import asyncio
import json

from answers import Refusal, answers
from workers import Response, WorkerEntrypoint, fetch

PATIENCE_S = 1.5


class Default(WorkerEntrypoint):
    @answers
    async def shipped(self, order, tracking):
        # A message that arrives twice is a nuisance, not a damage: no idempotency key here.
        text = f"Dear {order['customer']['name']}, your order {order['id']} is on its way: {tracking}."
        body = {"order": order["id"], "email": order["customer"]["email"], "text": text}
        try:
            async with asyncio.timeout(PATIENCE_S):
                response = await fetch(
                    self.env.CRM_URL + "/crm/notices",
                    method="POST",
                    headers={"content-type": "application/json"},
                    body=json.dumps(body),
                )
                answer = await response.json()
        except (OSError, TimeoutError) as error:
            raise Refusal("crm_unreachable", f"no answer from the CRM: {error!r}", retryable=True) from error
        if not response.ok:
            raise Refusal("crm_unavailable", answer["message"], status=503, retryable=response.status >= 500)
        return {"sent_to": order["customer"]["email"]}

    async def fetch(self, request):
        return Response.json({"ok": True, "worker": "notify"})  # health check
