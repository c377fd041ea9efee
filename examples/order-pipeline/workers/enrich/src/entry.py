"""enrich: adds what the shop does not send. Three lookups that know nothing of each other, so they can run at once."""

import catalogue
from answers import Refusal, answers
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    @answers
    async def customer(self, customer_id):
        return catalogue.customer_of(customer_id)

    @answers
    async def stock(self, country, lines):
        missing = catalogue.sold_out(lines)
        if missing:
            raise Refusal("sold_out", f"{', '.join(missing)} is sold out", status=409)
        return {"warehouse": catalogue.warehouse_for(country)}

    @answers
    async def tax(self, country, total_cents):
        return catalogue.included_tax(country, total_cents)

    async def fetch(self, request):
        return Response.json({"ok": True, "worker": "enrich"})  # health check
