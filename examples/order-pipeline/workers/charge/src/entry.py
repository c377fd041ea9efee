"""charge: takes money and gives it back, through the payment provider's HTTP API.

The one thing that must never happen is to charge twice. A call can be lost on its way there or on its way back, and
nobody here can tell which; so each call carries an *idempotency key* made of the order's id. Whoever repeats it, a
retry of the step or a run that was interrupted and taken up again, sends the same key, and the provider answers with
what it did the first time.
"""

import asyncio
import json

from answers import Refusal, answers
from workers import Response, WorkerEntrypoint, fetch

PATIENCE_S = 1.5  # the provider answers within 0.5 s, or not at all


class Default(WorkerEntrypoint):
    @answers
    async def charge(self, order):
        return await self.call_provider(
            "/payment/charges",
            key=f"charge-{order['id']}",
            body={"order": order["id"], "amount_cents": order["total_cents"], "card": order["card"]},
        )

    @answers
    async def refund(self, order):
        return await self.call_provider(
            "/payment/refunds",
            key=f"refund-{order['id']}",
            body={"order": order["id"], "amount_cents": order["total_cents"]},
        )

    async def call_provider(self, path, *, key, body):
        try:
            async with asyncio.timeout(PATIENCE_S):
                response = await fetch(
                    self.env.PAYMENT_URL + path,
                    method="POST",
                    headers={"content-type": "application/json", "idempotency-key": key},
                    body=json.dumps(body),
                )
                answer = await response.json()
        except (OSError, TimeoutError) as error:
            # It may have happened or not. The next attempt finds out, thanks to the key.
            raise Refusal("payment_unknown", f"no answer from the provider: {error!r}", retryable=True) from error
        if response.status == 402:
            raise Refusal("card_declined", answer["message"], status=402)
        if not response.ok:
            raise Refusal("payment_unavailable", answer["message"], status=503, retryable=response.status >= 500)
        return answer

    async def fetch(self, request):
        return Response.json({"ok": True, "worker": "charge"})  # health check
