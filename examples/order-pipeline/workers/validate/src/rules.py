"""The business rules of an order. Pure functions: they take an order and say what is wrong with it."""

import re

COUNTRIES = {"AT", "BE", "CH", "DE", "DK", "FR", "IT", "NL", "PL"}
QUANTITY_MAX = 50  # more than that is a matter for the sales team
TOTAL_CENTS_MAX = 1_000_000
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def problems(order):
    """What is wrong with ``order``, one sentence each; empty when it may go on."""
    found = []
    if order["country"] not in COUNTRIES:
        found.append(f"we do not deliver to {order['country']}")
    if not EMAIL.fullmatch(order["customer"]["email"]):
        found.append(f"{order['customer']['email']!r} is not an e-mail address")
    found += [
        f"{line['quantity']} of {line['sku']}: between 1 and {QUANTITY_MAX} can be ordered"
        for line in order["lines"]
        if not 1 <= line["quantity"] <= QUANTITY_MAX
    ]
    total = sum(line["quantity"] * line["unit_cents"] for line in order["lines"])
    if total != order["total_cents"]:
        found.append(f"the lines add up to {total} cents, but the order says {order['total_cents']}")
    if order["total_cents"] > TOTAL_CENTS_MAX:
        found.append(f"{order['total_cents']} cents is more than one order may cost")
    return found
