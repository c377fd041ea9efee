"""SABOTAGE: what a naive retry does. One order is charged again under another key, so the provider books it twice."""

import honest
from answers import answers

__all__ = ["Default"]


class Default(honest.Default):
    @answers
    async def charge(self, order):
        first = await self.book(order, f"charge-{order['id']}")
        if order["id"] == self.env.SABOTAGED_ORDER:
            await self.book(order, f"charge-{order['id']}-again")
        return first

    async def book(self, order, key):
        body = {"order": order["id"], "amount_cents": order["total_cents"], "card": order["card"]}
        return await self.call_provider("/payment/charges", key=key, body=body)
