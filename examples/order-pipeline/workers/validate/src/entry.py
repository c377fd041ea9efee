"""validate: may this order be accepted at all? One task, no state, no outside world."""

from answers import Refusal, answers
from rules import problems
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    @answers
    async def check(self, order):
        found = problems(order)
        if found:
            # Not retryable: the same order will be wrong tomorrow as well.
            raise Refusal("order_invalid", "; ".join(found))
        return {"checked": len(order["lines"])}

    async def fetch(self, request):
        return Response.json({"ok": True, "worker": "validate"})  # health check
