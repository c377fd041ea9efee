"""orders: the chain. It says which Worker comes after which, what is tried again, and what is undone.

    authenticate -> validate -> customer, stock, tax -> charge -> wait for shipping -> notify -> log
                                                   '-- refund, when one of these finally fails

Every `@step.do` is a durable step: once it has returned, its result is on disk and it is never run again, whatever is
killed. Code between the steps runs again after an interruption, so it only picks things from results.
"""

import asyncio
import json

from signature import is_signed
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint
from workers.workflows import NonRetryableError

# Six attempts within seven seconds: longer than a hiccup of the provider, shorter than a customer's patience.
PATIENT = {"retries": {"limit": 5, "delay": 200, "backoff": "exponential"}, "timeout": 3000}
# A message is worth fewer attempts than money.
BRIEF = {"retries": {"limit": 3, "delay": 200, "backoff": "exponential"}, "timeout": 3000}
# Giving back is not allowed to fail: after an hour of trying it is a matter for a person.
STUBBORN = {"retries": {"limit": 20, "delay": 250, "backoff": "linear"}, "timeout": 3000}


class OrderWorkflow(WorkflowEntrypoint):
    async def run(self, event, step):
        order = event["payload"]["order"]

        @step.do("authenticate")
        async def authenticate():
            # Whoever can start a run need not be the gateway; whoever can sign is.
            if not is_signed(order, event["payload"]["signature"], self.env.ORDER_SIGNING_KEY):
                raise NonRetryableError("order_not_signed: this order did not come through the gateway")
            return {"signed": True}

        @step.do("validate", config=PATIENT)
        async def validate():
            return result_of(await self.env.VALIDATE.check(order))

        @step.do("customer", config=PATIENT)
        async def customer():
            return result_of(await self.env.ENRICH.customer(order["customer"]["id"]))

        @step.do("stock", config=PATIENT)
        async def stock():
            return result_of(await self.env.ENRICH.stock(order["country"], order["lines"]))

        @step.do("tax", config=PATIENT)
        async def tax():
            return result_of(await self.env.ENRICH.tax(order["country"], order["total_cents"]))

        @step.do("charge", config=PATIENT)
        async def charge():
            return result_of(await self.env.CHARGE.charge(order))

        await authenticate()
        await validate()
        bought_by, sent_from, taxed = await asyncio.gather(customer(), stock(), tax())

        # From here on we may have the customer's money, even if `charge` itself fails: a lost answer can hide a
        # booking. So whatever fails finally, the money goes back (and where none was taken, nothing does).
        try:
            paid = await charge()
            parcel = await self.deliver(order, step)
        except Exception:
            await self.give_back(order, step)
            raise  # the run ends `errored`, with the reason for the refund

        receipt = {
            "order": order["id"],
            "charge": paid["charge"],
            "amount_cents": paid["amount_cents"],
            "tax_cents": taxed["tax_cents"],
            "segment": bought_by["segment"],
            "warehouse": sent_from["warehouse"],
            "tracking": parcel["tracking"],
        }

        @step.do("log")
        async def log():
            print(json.dumps({"event": "order completed", **receipt}))
            return receipt

        return await log()

    async def deliver(self, order, step):
        # The run leaves memory while it waits. An event that came earlier was kept and is taken at once.
        event = await step.wait_for_event("shipping", "shipping", timeout=self.env.SHIPPING_TIMEOUT)
        parcel = event["payload"]

        @step.do("notify", config=BRIEF)
        async def notify():
            return result_of(await self.env.NOTIFY.shipped(order, parcel["tracking"]))

        await notify()
        return parcel

    async def give_back(self, order, step):
        @step.do("refund", config=STUBBORN)
        async def refund():
            return result_of(await self.env.CHARGE.refund(order))

        await refund()


class TemporarilyRefused(Exception):
    """The other Worker could not do it now: the step's retries take care of it."""


def result_of(answer):
    """The result in another Worker's answer; its error as an exception that is retried, or not, as the error says."""
    if answer["ok"]:
        return answer["result"]
    error = answer["error"]
    text = f"{error['code']}: {error['message']}"
    raise TemporarilyRefused(text) if error["retryable"] else NonRetryableError(text)


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response.json({"ok": True, "worker": "orders"})  # health check
