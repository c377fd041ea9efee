"""The parts of the six Workers that decide something, each by itself; and the files around them."""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stellwerk.core.deployment.document import SourceText
from stellwerk.core.deployment.parse import parse_worker
from stellwerk.core.deployment.routing import default_worker

Load = Callable[[str], ModuleType]

WORKERS = ["gateway", "validate", "enrich", "charge", "notify", "orders"]
ORDER: dict[str, Any] = {
    "id": "A1",
    "customer": {"id": "c-204", "name": "Ada Lovelace", "email": "ada@example.com"},
    "country": "DE",
    "currency": "EUR",
    "lines": [{"sku": "LAMP-02", "quantity": 2, "unit_cents": 4900}],
    "total_cents": 9800,
    "card": "tok_visa",
}


def lines_of(pipeline: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pipeline / "orders.jsonl").read_text().splitlines()]


def test_the_gateway_takes_an_order_and_drops_what_it_does_not_know(load: Load) -> None:
    parse_order = load("workers/gateway/src/shape.py").parse_order
    assert parse_order({**ORDER, "admin": True}) == ORDER


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"id": "#1"}, "id"),
        ({"id": "A" * 101}, "id"),
        ({"lines": []}, "lines"),
        ({"lines": [{"sku": "X", "quantity": True, "unit_cents": 1}]}, "quantity"),
        ({"lines": [{"sku": "X", "quantity": 1.5, "unit_cents": 1}]}, "quantity"),
        ({"customer": "Ada"}, "customer"),
        ({"customer": {"id": "Ada", "name": "Ada", "email": "a@b.c"}}, "customer.id"),
        ({"total_cents": "98.00 EUR"}, "total_cents"),
        ({"card": None}, "card"),
    ],
)
def test_the_gateway_refuses_what_is_no_order_and_names_the_field(
    load: Load, change: dict[str, Any], word: str
) -> None:
    shape = load("workers/gateway/src/shape.py")
    with pytest.raises(shape.Refusal, match=word) as refused:
        shape.parse_order({**ORDER, **change})
    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("order_malformed", 400, False)


def test_a_signature_holds_for_the_order_and_the_key_that_it_was_made_with(load: Load) -> None:
    signature = load("workers/orders/src/signature.py")
    signed = signature.sign(ORDER, "key")
    assert signature.is_signed(copy.deepcopy(dict(reversed(ORDER.items()))), signed, "key")
    assert not signature.is_signed({**ORDER, "total_cents": 1}, signed, "key")
    assert not signature.is_signed(ORDER, signed, "another key")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"country": "ZZ"}, ["ZZ"]),
        ({"customer": {"email": "not given"}}, ["not given"]),
        ({"total_cents": 9900}, ["add up to 9800"]),
        ({"lines": [{"sku": "X", "quantity": 0, "unit_cents": 1}], "total_cents": 0}, ["0 of X"]),
        ({"lines": [{"sku": "X", "quantity": 50, "unit_cents": 30_000}], "total_cents": 1_500_000}, ["more than"]),
        ({"country": "ZZ", "total_cents": 1}, ["ZZ", "add up"]),
    ],
)
def test_the_rules_say_everything_that_is_wrong(load: Load, change: dict[str, Any], words: list[str]) -> None:
    found = load("workers/validate/src/rules.py").problems({**ORDER, **change})
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))


def test_the_lookups_answer_for_every_country_that_the_rules_allow(load: Load) -> None:
    rules, catalogue = load("workers/validate/src/rules.py"), load("workers/enrich/src/catalogue.py")
    for country in rules.COUNTRIES:
        assert catalogue.warehouse_for(country) in ("Hamburg", "Basel")
        assert 0 < catalogue.included_tax(country, 10_000)["tax_cents"] < 2_100
    assert catalogue.included_tax("DE", 11_900) == {"rate_per_mille": 190, "tax_cents": 1_900}
    assert catalogue.customer_of("c-299")["segment"] == "regular"
    assert catalogue.customer_of("c-300") == {"segment": "new", "priority": True}
    assert catalogue.sold_out([{"sku": "LAMP-02"}, {"sku": "CHAIR-13"}]) == ["CHAIR-13"]


def test_every_error_of_a_worker_leaves_in_one_shape(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    answers = load("workers/charge/src/answers.py")

    class Worker:
        @answers.answers  # type: ignore[untyped-decorator]
        async def works(self, value: int) -> int:
            return value

        @answers.answers  # type: ignore[untyped-decorator]
        async def refuses(self) -> None:
            raise answers.Refusal("card_declined", "no", status=402)

        @answers.answers  # type: ignore[untyped-decorator]
        async def breaks(self) -> None:
            raise KeyError("amount")

    assert asyncio.run(Worker().works(3)) == {"ok": True, "result": 3}
    refused = {"code": "card_declined", "message": "no", "retryable": False}
    assert asyncio.run(Worker().refuses()) == {"ok": False, "error": refused}
    broken = asyncio.run(Worker().breaks())["error"]
    assert (broken["code"], broken["retryable"]) == ("internal", True)
    assert "KeyError: 'amount'" in capsys.readouterr().err  # nothing fails silently


@pytest.mark.parametrize("name", ["answers.py", "signature.py"])
def test_the_copies_of_a_shared_file_are_equal(pipeline: Path, name: str) -> None:
    texts = [path.read_text() for path in pipeline.glob(f"workers/*/src/{name}")]
    assert len(texts) >= 2
    assert len(set(texts)) == 1


def test_the_six_configurations_are_valid_without_a_warning_and_the_gateway_is_the_door(pipeline: Path) -> None:
    manifests = []
    for name in WORKERS:
        folder = pipeline / "workers" / name
        config, settings = folder / "wrangler.jsonc", folder / "stellwerk.toml"
        parsed = parse_worker(
            SourceText(file=str(config), text=config.read_text()),
            settings=SourceText(file=str(settings), text=settings.read_text()) if settings.exists() else None,
        )
        assert parsed.manifest.name == name
        assert (folder / "README.md").exists()
        manifests.append(parsed.manifest)
    assert default_worker(manifests) == "gateway"


def test_no_secret_is_in_the_repository(pipeline: Path) -> None:
    for config in pipeline.glob("workers/*/wrangler.jsonc"):
        assert 'TOKEN":' not in config.read_text()
    assert ".dev.vars" in (pipeline / ".gitignore").read_text().splitlines()


def test_the_file_of_orders_is_what_its_generator_writes(load: Load, pipeline: Path) -> None:
    lines = lines_of(pipeline)
    assert lines == load("make_orders.py").make(300, 1856)
    kinds = Counter(line["kind"] for line in lines)
    assert min(kinds[kind] for kind in ("declined", "invalid", "sold_out", "malformed")) >= 5
    ids = [line["order"].get("id") for line in lines]
    assert len(ids) - len(set(ids)) >= 10  # posted twice


def test_what_an_order_was_made_to_be_is_what_the_workers_find(load: Load, pipeline: Path) -> None:
    shape, rules = load("workers/gateway/src/shape.py"), load("workers/validate/src/rules.py")
    catalogue = load("workers/enrich/src/catalogue.py")
    for line in lines_of(pipeline):
        kind, order = line["kind"], line["order"]
        if kind == "malformed":
            with pytest.raises(shape.Refusal):
                shape.parse_order(order)
            continue
        assert shape.parse_order(order) == order
        assert bool(rules.problems(order)) == (kind == "invalid"), order
        if kind != "invalid":
            assert bool(catalogue.sold_out(order["lines"])) == (kind == "sold_out")
            assert order["card"].startswith("tok_declined") == (kind == "declined")
