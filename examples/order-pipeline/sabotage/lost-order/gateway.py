"""SABOTAGE: one order is acknowledged and then forgotten."""

import honest

__all__ = ["Default"]


class Default(honest.Default):
    async def start(self, order):
        if order["id"] == self.env.SABOTAGED_ORDER:
            return 202, {"order": order["id"], "instance": order["id"]}
        return await super().start(order)
