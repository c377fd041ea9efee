"""The outside server, as a real process: it misbehaves exactly as announced, and its ledger tells the truth."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

Load = Callable[[str], ModuleType]
SEED = "test"


@dataclass
class World:
    """The server under test, and a gateway that writes down what the carrier tells it."""

    url: str
    ledger: Path
    client: httpx.AsyncClient
    events: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)  # (path, Authorization)
    gateway_status: int = 202

    async def charge(self, order: str, *, key: str = "", card: str = "tok_visa") -> httpx.Response:
        body = {"order": order, "amount_cents": 700, "card": card}
        return await self.client.post(
            f"{self.url}/payment/charges", json=body, headers={"Idempotency-Key": key or f"c-{order}"}
        )

    async def charge_until_booked(self, order: str, *, card: str = "tok_visa") -> httpx.Response:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.charge(order, card=card)
                if answer.status_code < 500:
                    return answer

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        return [line for line in lines if line["kind"] == kind]


@pytest.fixture
def server(load: Load) -> ModuleType:
    return load("outside/server.py")


@contextlib.asynccontextmanager
async def running(pipeline: Path, tinyhttp: ModuleType, folder: Path) -> AsyncIterator[World]:
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def heard(call: Any) -> tuple[int, dict[str, Any]]:
        events.put_nowait((call.path, call.headers["authorization"]))
        return world.gateway_status, {"status": "accepted"}

    gateway = await tinyhttp.serve(heard, 0)
    gateway_url = f"http://127.0.0.1:{gateway.sockets[0].getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(pipeline / "outside" / "server.py"), "--port", "0", "--port-file", str(port_file)),
        *("--ledger", str(folder / "ledger.jsonl"), "--gateway", gateway_url, "--seed", SEED),
        env={**os.environ, "CARRIER_TOKEN": "for-the-carrier"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert b"ledger" in await asyncio.wait_for(process.stdout.readline(), 10)
        url = f"http://127.0.0.1:{port_file.read_text()}"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            world = World(url, folder / "ledger.jsonl", client, events)
            yield world
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        gateway.close()


def orders_where(server: ModuleType, **wanted: bool) -> Iterator[str]:
    """Ids of orders with the wanted fates; all other mishaps of a first charge are ruled out."""
    carrier = server.Carrier(SEED, None, "", "")
    for number in range(100_000):
        order = f"T{number}"
        draw = server.chance(SEED, order, "charge", 1)
        fates = {
            "never": carrier.never(order),
            "early": carrier.early(order),
            "twice": server.chance(SEED, order, "twice") < 1 / 10,
            "unavailable": draw < 0.10,
            "lost_answer": 0.10 <= draw < 0.17,
            "hang": 0.17 <= draw < 0.20,
            "unreachable": server.chance(SEED, order, "unreachable") < 1 / 60,
        }
        if all(wanted.get(fate, False) == value for fate, value in fates.items()):
            yield order


def test_a_charge_is_on_disk_when_it_is_answered_and_repeats_get_the_same_answer(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    order = next(orders_where(server))

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            first = await world.charge(order)
            assert first.status_code == 201
            assert [record["id"] for record in world.records("charge")] == [first.json()["charge"]]
            assert (await world.charge_until_booked(order)).json() == first.json()
            assert len(world.records("charge")) == 1
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:  # the keys outlive the process
            assert (await world.charge_until_booked(order)).json() == first.json()
            assert len(world.records("charge")) == 1

    asyncio.run(scenario())


def test_another_key_is_another_charge_and_no_key_is_refused(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    order = next(order for order in orders_where(server) if server.chance(SEED, order, "charge", 2) > 0.2)

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            assert (await world.charge(order)).status_code == 201
            assert (await world.charge(order, key="another")).status_code == 201
            assert len(world.records("charge")) == 2
            no_key = await world.client.post(f"{world.url}/payment/charges", json={"order": order})
            assert no_key.status_code == 400

    asyncio.run(scenario())


def test_a_lost_answer_hides_a_booking_and_an_outage_does_not(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    lost, unavailable = next(orders_where(server, lost_answer=True)), next(orders_where(server, unavailable=True))

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            with pytest.raises(httpx.RemoteProtocolError):
                await world.charge(lost)
            assert [record["order"] for record in world.records("charge")] == [lost]
            assert (await world.charge(unavailable)).status_code == 503
            assert len(world.records("charge")) == 1

    asyncio.run(scenario())


def test_a_declined_card_is_never_charged_and_a_refund_of_nothing_gives_nothing(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    order = next(order for order in orders_where(server) if server.chance(SEED, order, "refund", 1) > 0.25)

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            assert (await world.charge(order, card="tok_declined_funds")).status_code == 402
            body = {"order": order, "amount_cents": 700}
            answer = await world.client.post(
                f"{world.url}/payment/refunds", json=body, headers={"Idempotency-Key": "r"}
            )
            assert answer.json() == {"refund": None, "amount_cents": 0}
            assert world.records("charge") == world.records("refund") == []

    asyncio.run(scenario())


def test_a_refund_happens_once_per_key(server: ModuleType, load: Load, pipeline: Path, tmp_path: Path) -> None:
    order = next(
        order
        for order in orders_where(server)
        if all(server.chance(SEED, order, "refund", attempt) > 0.25 for attempt in (1, 2))
    )

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            await world.charge(order)
            for _ in range(2):
                body = {"order": order, "amount_cents": 700}
                answer = await world.client.post(
                    f"{world.url}/payment/refunds", json=body, headers={"Idempotency-Key": "r"}
                )
                assert answer.status_code == 201
            assert [record["amount_cents"] for record in world.records("refund")] == [700]

    asyncio.run(scenario())


def test_the_carrier_tells_the_gateway_until_it_is_acknowledged_and_some_orders_twice(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    order = next(orders_where(server, twice=True))

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            world.gateway_status = 503
            await world.charge(order)
            for _ in range(3):
                assert await asyncio.wait_for(world.events.get(), 10) == (
                    f"/shipping/{order}",
                    "Bearer for-the-carrier",
                )
            assert world.records("shipped") == []
            world.gateway_status = 202
            async with asyncio.timeout(10):
                while len(world.records("shipped")) < 2:  # noqa: ASYNC110  (another process writes the file)
                    await asyncio.sleep(0.01)  # bounded
            assert sorted(record["copy"] for record in world.records("shipped")) == [0, 1]

    asyncio.run(scenario())


def test_an_early_event_comes_before_the_charge_is_answered(
    server: ModuleType, load: Load, pipeline: Path, tmp_path: Path
) -> None:
    order = next(orders_where(server, early=True))

    async def scenario() -> None:
        async with running(pipeline, load("outside/tinyhttp.py"), tmp_path) as world:
            charging = asyncio.create_task(world.charge(order))
            await asyncio.wait_for(world.events.get(), 10)
            assert not charging.done()
            assert (await charging).status_code == 201

    asyncio.run(scenario())


def test_the_shares_are_as_announced(server: ModuleType) -> None:
    carrier = server.Carrier(SEED, None, "", "")
    orders = [f"S{number}" for number in range(20_000)]
    never = sum(map(carrier.never, orders)) / len(orders)
    early = sum(map(carrier.early, orders)) / len(orders)
    assert 1 / 35 < never < 1 / 26
    assert 1 / 11 < early < 1 / 9
    assert not any(carrier.never(order) and carrier.early(order) for order in orders)
