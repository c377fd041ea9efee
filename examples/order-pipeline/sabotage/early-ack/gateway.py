"""SABOTAGE: the answer does not wait for the disk. Fast, and right as long as nothing is killed in between."""

import asyncio

import honest

__all__ = ["Default"]

LATER_S = 0.5


class Default(honest.Default):
    async def start(self, order):
        self.ctx.waitUntil(self.start_later(order))
        return 202, {"order": order["id"], "instance": order["id"]}

    async def start_later(self, order):
        await asyncio.sleep(LATER_S)
        try:
            await super().start(order)
        except Exception as error:
            print(f"too late to tell anybody: {error}")
