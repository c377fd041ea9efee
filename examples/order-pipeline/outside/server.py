"""The world outside the pipeline, as one small server: a payment provider, a CRM and a carrier.

It is slow and it fails at times, always in the same way for the same order: every mishap is drawn from the seed, the
order's id and the number of the attempt. What really happened stands in the *ledger*, a file with one JSON object per
line, on disk before anybody is told. The demo kills everything except this process, so the ledger is the truth that
the pipeline's own records are compared with at the end.

    POST /payment/charges   Idempotency-Key: <key>   {order, amount_cents, card}
    POST /payment/refunds   Idempotency-Key: <key>   {order, amount_cents}
    POST /crm/notices                                {order, email, text}
    GET  /healthz

The carrier ships an order as soon as its charge is booked, and posts that to the gateway until it is acknowledged:
one event in ten twice, one in ten before the charge itself is answered (so before the run can wait for it), one in
thirty never.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tinyhttp

MISHAPS_IN_A_ROW = 3  # per order and kind of call: after so many failures the next attempt gets through
HANG_S = 4.0  # longer than any caller of ours waits
EARLY_LEAD_S = 0.3  # how long the charge of an "early" order stays unanswered after the carrier has set out
CARRIER_PAUSE_S = 0.25  # between two attempts to get an event acknowledged
CARRIER_TIMEOUT_S = 3.0
CARRIER_CONNECTIONS = 16


def chance(seed: str, *what: object) -> float:
    """A number in [0, 1) that is always the same for the same question."""
    digest = hashlib.sha256("/".join([seed, *map(str, what)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Ledger:
    """What happened, in order, on disk: append only, each record flushed and synced before anyone hears of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self.by_key: dict[str, dict[str, Any]] = {}
        self.charged: set[str] = set()
        for line in path.read_text().splitlines():
            self._remember(json.loads(line))
        self._file = path.open("a", encoding="utf-8")

    def append(self, kind: str, order: str, **more: Any) -> dict[str, Any]:
        record = {"kind": kind, "order": order, "at_ms": time.time_ns() // 1_000_000, **more}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._remember(record)
        return record

    def _remember(self, record: dict[str, Any]) -> None:
        if "key" in record:
            self.by_key[record["key"]] = record
        if record["kind"] == "charge":
            self.charged.add(record["order"])

    def close(self) -> None:
        self._file.close()


@dataclass
class Carrier:
    """Ships what has been paid, and tells the gateway until the gateway has heard it."""

    seed: str
    ledger: Ledger
    gateway: str
    token: str
    under_way: set[asyncio.Task[None]] = field(default_factory=set)
    connections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CARRIER_CONNECTIONS))

    def never(self, order: str) -> bool:
        return chance(self.seed, order, "carrier") < 1 / 30

    def early(self, order: str) -> bool:
        return not self.never(order) and chance(self.seed, order, "carrier") < 1 / 30 + 1 / 10

    def ship(self, order: str) -> None:
        if self.never(order):
            return  # lost in the warehouse: the run has to notice by itself
        delay_s = 0.0 if self.early(order) else 0.3 + 1.2 * chance(self.seed, order, "delay")
        copies = 2 if chance(self.seed, order, "twice") < 1 / 10 else 1
        for copy in range(copies):
            task = asyncio.create_task(self._tell(order, delay_s + 0.1 * copy, copy))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def _tell(self, order: str, delay_s: float, copy: int) -> None:
        await asyncio.sleep(delay_s)
        event = {"order": order, "carrier": "Bahnpost", "tracking": f"BP{int(chance(self.seed, order) * 1e9):09d}"}
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with self.connections:
                    status, answer = await tinyhttp.post(
                        f"{self.gateway}/shipping/{order}", event, token=self.token, timeout_s=CARRIER_TIMEOUT_S
                    )
                if 200 <= status < 300:
                    self.ledger.append("shipped", order, copy=copy, answer=answer.get("status", ""))
                    return
            await asyncio.sleep(CARRIER_PAUSE_S)

    async def stop(self) -> None:
        for task in self.under_way:
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)


class Outside:
    """Routes a call to payment or CRM, and lets it go wrong as the seed says."""

    def __init__(self, seed: str, ledger: Ledger, carrier: Carrier) -> None:
        self.seed, self.ledger, self.carrier = seed, ledger, carrier
        self.attempts: dict[tuple[str, str], int] = {}

    async def handle(self, call: tinyhttp.Call) -> tuple[int, dict[str, Any]]:
        match call.method, call.path:
            case "GET", "/healthz":
                return 200, {"ok": True}
            case "POST", "/payment/charges":
                return await self._charge(call)
            case "POST", "/payment/refunds":
                return await self._refund(call)
            case "POST", "/crm/notices":
                return await self._notice(call)
        return 404, {"error": "no_such_path", "message": f"{call.method} {call.path} is not served here"}

    async def _charge(self, call: tinyhttp.Call) -> tuple[int, dict[str, Any]]:
        order, key = call.body["order"], call.headers.get("idempotency-key", "")
        if not key:
            return 400, {"error": "idempotency_key_missing", "message": "a charge needs an Idempotency-Key"}
        mishap = self._mishap(order, "charge", unavailable=0.10, lost_answer=0.07, hang=0.03)
        await asyncio.sleep(0.02 + 0.15 * chance(self.seed, order, "slow"))
        if mishap == "unavailable":
            return 503, {"error": "unavailable", "message": "the payment provider is overloaded"}
        record = self.ledger.by_key.get(key)
        if record is None:  # a key seen before gets its first answer again: that is what makes retries safe
            record = self._book(order, key, call.body)
            if self.carrier.early(order):
                await asyncio.sleep(EARLY_LEAD_S)
        if mishap in ("lost_answer", "hang"):  # booked, but the caller does not learn it
            await asyncio.sleep(HANG_S if mishap == "hang" else 0)
            raise tinyhttp.HangUp
        if record["kind"] == "declined":
            return 402, {"error": "card_declined", "message": "the card was declined"}
        return 201, {"charge": record["id"], "amount_cents": record["amount_cents"]}

    def _book(self, order: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["card"].startswith("tok_declined"):
            return self.ledger.append("declined", order, key=key)
        number = f"ch_{len(self.ledger.by_key) + 1:05d}"
        record = self.ledger.append("charge", order, key=key, id=number, amount_cents=body["amount_cents"])
        self.carrier.ship(order)
        return record

    async def _refund(self, call: tinyhttp.Call) -> tuple[int, dict[str, Any]]:
        order, key = call.body["order"], call.headers.get("idempotency-key", "")
        if not key:
            return 400, {"error": "idempotency_key_missing", "message": "a refund needs an Idempotency-Key"}
        mishap = self._mishap(order, "refund", unavailable=0.15, lost_answer=0.10, hang=0.0)
        if mishap == "unavailable":
            return 503, {"error": "unavailable", "message": "the payment provider is overloaded"}
        if order not in self.ledger.charged:
            return 200, {"refund": None, "amount_cents": 0}
        record = self.ledger.by_key.get(key)
        if record is None:
            number = f"re_{len(self.ledger.by_key) + 1:05d}"
            record = self.ledger.append("refund", order, key=key, id=number, amount_cents=call.body["amount_cents"])
        if mishap == "lost_answer":
            raise tinyhttp.HangUp
        return 201, {"refund": record["id"], "amount_cents": record["amount_cents"]}

    async def _notice(self, call: tinyhttp.Call) -> tuple[int, dict[str, Any]]:
        order = call.body["order"]
        # One customer in sixty cannot be reached at all: the run gives up after its retries, and has to pay back.
        unreachable = chance(self.seed, order, "unreachable") < 1 / 60
        if unreachable or self._mishap(order, "crm", unavailable=0.15, lost_answer=0.0, hang=0.0):
            return 503, {"error": "unavailable", "message": "the CRM is down for maintenance"}
        await asyncio.sleep(0.01 + 0.05 * chance(self.seed, order, "crm-slow"))
        self.ledger.append("notice", order)
        return 201, {"notice": "sent"}

    def _mishap(self, order: str, kind: str, *, unavailable: float, lost_answer: float, hang: float) -> str:
        attempt = self.attempts[order, kind] = self.attempts.get((order, kind), 0) + 1
        if attempt > MISHAPS_IN_A_ROW:
            return ""
        draw = chance(self.seed, order, kind, attempt)
        for name, share in (("unavailable", unavailable), ("lost_answer", lost_answer), ("hang", hang)):
            if draw < share:
                return name
            draw -= share
        return ""


async def run(options: argparse.Namespace) -> None:
    ledger = Ledger(options.ledger)
    carrier = Carrier(options.seed, ledger, options.gateway, os.environ.get("CARRIER_TOKEN", ""))
    server = await tinyhttp.serve(Outside(options.seed, ledger, carrier).handle, options.port)
    port = server.sockets[0].getsockname()[1]
    if options.port_file:
        # Written beside and renamed: who waits for the file never reads half a number.
        half = options.port_file.with_suffix(".new")
        half.write_text(str(port))
        half.rename(options.port_file)
    print(f"payment, CRM and carrier on http://127.0.0.1:{port}, ledger {options.ledger}", flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()
    await carrier.stop()
    ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The outside world of the order pipeline: payment, CRM, carrier.")
    parser.add_argument("--port", type=int, default=9090, help="0 lets the system choose")
    parser.add_argument("--port-file", type=Path, help="where to write the port that was chosen")
    parser.add_argument("--ledger", type=Path, default=Path("ledger.jsonl"))
    parser.add_argument("--gateway", default="http://127.0.0.1:8787", help="where the carrier posts its events")
    parser.add_argument("--seed", default="stellwerk")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
