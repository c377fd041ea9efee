"""What an order looks like. Pure: takes what was sent, returns the order or raises ``Refusal``.

Only the shape is judged here, at the edge, so that nothing malformed gets any further. Whether the order makes sense
is the business of the Worker `validate`.
"""

import re

from answers import Refusal

ID = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_-]{0,99}")  # it becomes the id of the workflow's run, which allows no more
LINES_MAX = 100

ORDER = {"id": str, "customer": dict, "country": str, "currency": str, "lines": list, "total_cents": int, "card": str}
CUSTOMER = {"id": str, "name": str, "email": str}
LINE = {"sku": str, "quantity": int, "unit_cents": int}


def parse_order(sent):
    """The order with exactly the known fields."""
    order = _pick("the order", sent, ORDER)
    if not ID.fullmatch(order["id"]):
        raise Refusal("order_malformed", "id: up to 100 letters, digits, - and _, not starting with -")
    if not 1 <= len(order["lines"]) <= LINES_MAX:
        raise Refusal("order_malformed", f"lines: between 1 and {LINES_MAX}")
    order["customer"] = _pick("customer", order["customer"], CUSTOMER)
    if not re.fullmatch(r"c-\d{1,9}", order["customer"]["id"]):
        raise Refusal("order_malformed", "customer.id: c- and a number")
    order["lines"] = [_pick("a line", line, LINE) for line in order["lines"]]
    return order


def parse_shipping(sent):
    """A carrier's event: which parcel carries the order."""
    return _pick("the event", sent, {"order": str, "carrier": str, "tracking": str})


def _pick(what, sent, fields):
    if not isinstance(sent, dict):
        raise Refusal("order_malformed", f"{what}: expected an object")
    for name, kind in fields.items():
        # bool is an int in Python, but `"quantity": true` is not a number of things.
        if not isinstance(sent.get(name), kind) or isinstance(sent.get(name), bool):
            raise Refusal("order_malformed", f"{what}: {name} must be of type {kind.__name__}")
    return {name: sent[name] for name in fields}
