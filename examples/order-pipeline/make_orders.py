"""Writes orders.jsonl: 300 orders as a shop gets them. Always the same ones; run it again only to change them.

Each line is ``{"kind": ..., "order": ...}``. The order is what is posted; ``kind`` says what has to become of it, and
is for the reconciliation only:

    good        charged once and completed, or charged once, refunded and errored
    declined    never charged, errored
    invalid     an order that breaks a business rule: never charged, errored
    sold_out    never charged, errored
    malformed   not an order: refused with 400, no run

About one order in twenty stands twice in the file, as a shop sends it that did not trust its network.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Order = dict[str, Any]

FIRST = (
    "Ada",
    "Grace",
    "Alan",
    "Edsger",
    "Barbara",
    "Donald",
    "Frances",
    "Niklaus",
    "Margaret",
    "Konrad",
    "Radia",
    "Hedy",
)
LAST = (
    "Hopper",
    "Turing",
    "Dijkstra",
    "Liskov",
    "Knuth",
    "Allen",
    "Wirth",
    "Hamilton",
    "Zuse",
    "Perlman",
    "Hoare",
    "Noether",
)
COUNTRIES = ("DE", "DE", "DE", "DE", "AT", "CH", "FR", "NL", "BE", "DK", "IT", "PL")
GOODS: dict[str, int] = {
    "LAMP-02": 4900,
    "DESK-07": 24900,
    "CHAIR-11": 17900,
    "SHELF-04": 8900,
    "CLOCK-09": 3500,
    "RUG-05": 12900,
}
CARDS = ("tok_visa", "tok_mastercard", "tok_sepa")


def good_order(number: int, chance: random.Random) -> Order:
    name = f"{chance.choice(FIRST)} {chance.choice(LAST)}"
    lines: list[dict[str, Any]] = [
        {"sku": sku, "quantity": chance.randint(1, 4), "unit_cents": GOODS[sku]}
        for sku in chance.sample(sorted(GOODS), chance.randint(1, 3))
    ]
    return {
        "id": f"A{number}",
        "customer": {
            "id": f"c-{chance.randint(100, 499)}",
            "name": name,
            "email": f"{name.lower().replace(' ', '.')}@example.com",
        },
        "country": chance.choice(COUNTRIES),
        "currency": "EUR",
        "lines": lines,
        "total_cents": sum(line["quantity"] * line["unit_cents"] for line in lines),
        "card": chance.choice(CARDS),
    }


def declined(order: Order, chance: random.Random) -> None:
    order["card"] = f"tok_declined_{chance.choice(('funds', 'expired', 'stolen'))}"


def sold_out(order: Order, chance: random.Random) -> None:
    order["lines"].append({"sku": "CHAIR-13", "quantity": 1, "unit_cents": 9900})
    order["total_cents"] += 9900


def invalid(order: Order, chance: random.Random) -> None:
    match chance.randrange(4):
        case 0:
            order["total_cents"] -= 1000  # a voucher that the shop subtracted and did not send
        case 1:
            order["country"] = "ZZ"
        case 2:
            order["customer"]["email"] = "not given"
        case _:
            order["total_cents"] += order["lines"][0]["unit_cents"] * (500 - order["lines"][0]["quantity"])
            order["lines"][0]["quantity"] = 500


def malformed(order: Order, chance: random.Random) -> None:
    match chance.randrange(4):
        case 0:
            del order["lines"]
        case 1:
            order["total_cents"] = f"{order['total_cents'] / 100:.2f} EUR"
        case 2:
            order["id"] = f"#{order['id']}"
        case _:
            order["customer"] = order["customer"]["name"]


# Out of a hundred; the rest are good.
SHARES: list[tuple[str, int, Callable[[Order, random.Random], None]]] = [
    ("declined", 6, declined),
    ("invalid", 5, invalid),
    ("sold_out", 3, sold_out),
    ("malformed", 3, malformed),
]


def make(count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` lines, of which about one in twenty repeats an earlier one word by word."""
    chance = random.Random(seed)
    lines: list[dict[str, Any]] = []
    while len(lines) < count:
        if len(lines) > 10 and chance.random() < 0.05:
            lines.append(chance.choice(lines[-10:]))
            continue
        order, kind, draw = good_order(1001 + len(lines), chance), "good", chance.randrange(100)
        for name, share, spoil in SHARES:
            if 0 <= draw < share:
                kind = name
                spoil(order, chance)
            draw -= share
        lines.append({"kind": kind, "order": order})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the orders of the demo.")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument(
        "--seed", type=int, default=1856
    )  # the year of Saxby's patent: signals and points that cannot contradict each other
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("orders.jsonl"))
    options = parser.parse_args()
    lines = make(options.count, options.seed)
    options.file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} orders in {options.file}")


if __name__ == "__main__":
    main()
