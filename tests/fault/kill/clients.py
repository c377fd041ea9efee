"""The clients of a siege: they create runs, send events, read, and write down what they asked and were told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, TextIO

import httpx
from tests.fault.kill import checker
from tests.fault.kill.node_process import ACCOUNT, NodeProcess

CLIENTS = 3
IN_FLIGHT_MAX = 48  # runs; enough to hit, few enough that one crash is healed soon
END_WITHIN_S = 40.0
LOOK_EVERY_S = 0.02
WORKFLOW = "load"
NAMELESS_SHARE = 0.5  # of the creates leave the id to the node, which may start such a run while it is being written


class Clients:
    """They go on until ``over``, and create nothing while ``calm`` is cleared."""

    def __init__(self, node: NodeProcess, seed: int, log: TextIO) -> None:
        self._node, self._seed, self._log = node, seed, log
        self.over = asyncio.Event()
        self.calm = asyncio.Event()
        self.calm.set()
        self.refused = asyncio.Event()  # one was told 5xx
        self.open: set[str] = set()  # acknowledged, not seen ended
        self._known: set[str] = set()  # to a client, who sends it its event
        self._strays: set[str] = set()  # found by looking; a client may be told of one afterwards
        self._room = asyncio.Event()

    def begin(self, group: asyncio.TaskGroup) -> None:
        for number in range(CLIENTS):
            group.create_task(self._create_runs(number, group))
        group.create_task(self._look())

    async def _create_runs(self, client: int, group: asyncio.TaskGroup) -> None:
        chance = random.Random(f"{self._seed}/{client}")
        number = 0
        while not self.over.is_set():
            await self.calm.wait()
            if len(self.open) >= IN_FLIGHT_MAX:
                self._room.clear()
                await self._room.wait()
                continue
            instance = f"s{self._seed}-c{client}-{number}"
            number += 1
            params: dict[str, Any] = {
                "work_ms": chance.randint(0, 25),
                "nap_ms": chance.choice([1, 30, 120, 1_300]),  # the last one leaves memory meanwhile
                "fails": chance.choice([0, 0, 0, 1, 2]),
                "large": chance.random() < 0.05,
            }
            if chance.random() < NAMELESS_SHARE:
                params["ask"] = instance
                instance = await self._create_nameless(params)
            else:
                self._known.add(instance)
                await self._until_known("create", instance, params)
            if instance:
                self.open.add(instance)
                group.create_task(self._send_event(instance, chance.random() * 0.4))

    async def _create_nameless(self, params: dict[str, Any]) -> str:
        """The node makes the id. Empty when nobody was told it: the call cannot be repeated, for that would be another
        instance, and whether there is one is found out later."""
        word = params["ask"]
        self._said("create", word, "ask", params=params)
        try:
            answer = await self._node.call("POST", f"{ACCOUNT}/{WORKFLOW}/instances", {"params": params})
        except httpx.TransportError:
            self._said("create", word, "unknown")
            await asyncio.wait_for(self._node.up.wait(), END_WITHIN_S)
            return ""
        if answer.status_code != 200:
            self._said("create", word, "fail", status=answer.status_code, text=answer.text[:200])
            self.refused.set()
            await asyncio.sleep(LOOK_EVERY_S)  # bounded
            return ""
        instance: str = answer.json()["result"]["id"]
        self._known.add(instance)
        self._said("create", instance, "ok", status=200)
        return instance

    async def send_strays_their_event(self) -> None:
        """Instances that no client was told of go on like the others. Nothing is killed meanwhile."""
        for instance in await self._node.instances(WORKFLOW):
            if instance not in self._known | self._strays:
                self._strays.add(instance)
                params = {"for": instance}
                self._said("event", instance, "invoke", params=params)
                answer = await self._ask("event", instance, params)
                assert answer.status_code in (200, 409), answer.text  # a client was told after all, and it has ended
                self._said("event", instance, "ok", status=answer.status_code)

    async def _send_event(self, instance: str, after_s: float) -> None:
        """Some come before the run waits for them, some after."""
        await asyncio.sleep(after_s)  # bounded
        await self._until_known("event", instance, {"for": instance})

    async def _until_known(self, op: str, instance: str, params: dict[str, Any]) -> None:
        """Repeats the call under the same id until its outcome is known. Every try is written down."""
        deadline = time.monotonic() + END_WITHIN_S
        tried = False
        while True:
            self._said(op, instance, "invoke", params=params)
            try:
                answer = await self._ask(op, instance, params)
            except httpx.TransportError:
                self._said(op, instance, "unknown")
            else:
                # After an unknown outcome a conflict is the proof that the first try had succeeded.
                late = tried or instance in self._strays  # it has had its event, and may have ended
                done = answer.status_code == 200 or (answer.status_code == 409 and late)
                self._said(op, instance, "ok" if done else "fail", status=answer.status_code, text=answer.text[:200])
                if done or (op == "event" and answer.status_code == 404):
                    return  # a run that is not there although it was acknowledged is the checker's business
                if answer.status_code >= 500:
                    self.refused.set()
                await asyncio.sleep(LOOK_EVERY_S)  # bounded
            tried = True
            assert time.monotonic() < deadline, f"{op} {instance}: no answer"
            await asyncio.wait_for(self._node.up.wait(), END_WITHIN_S)

    async def _ask(self, op: str, instance: str, params: dict[str, Any]) -> httpx.Response:
        if op == "create":
            return await self._node.call(
                "POST", f"{ACCOUNT}/{WORKFLOW}/instances", {"instance_id": instance, "params": params}
            )
        return await self._node.call("POST", f"{ACCOUNT}/{WORKFLOW}/instances/{instance}/events/signal", params)

    async def _look(self) -> None:
        """Reads runs while they go on; what was read once must not change. Also notes which have ended."""
        chance = random.Random(f"{self._seed}/reader")
        while not self.over.is_set():
            await asyncio.sleep(LOOK_EVERY_S)  # bounded
            await asyncio.wait_for(self._node.up.wait(), END_WITHIN_S)
            for instance in chance.sample(sorted(self.open), min(len(self.open), 6)):
                try:
                    answer = await self._node.call("GET", f"{ACCOUNT}/{WORKFLOW}/instances/{instance}")
                except httpx.TransportError:
                    break
                if answer.status_code != 200:
                    self._said("describe", instance, "fail", status=answer.status_code)
                    self.open.discard(instance)
                    continue
                found = answer.json()["result"]
                self._said("describe", instance, "read", found=found)
                if found["status"] in checker.TERMINAL:
                    self.open.discard(instance)
            self._room.set()
        self._room.set()

    def _said(self, op: str, instance: str, phase: str, **more: Any) -> None:
        write(self._log, {"op": op, "id": instance, "phase": phase, "at": time.monotonic(), **more})


def write(file: TextIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
