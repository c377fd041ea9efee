"""The siege: clients keep a node busy and write down what they are told, while its processes are killed.

What happens is drawn from one seed. Moments are not: a kill comes when the ledger has seen so and so many further
effects, so it hits a node at work however fast or slow the machine is.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
import psutil
from tests.fault.kill import checker
from tests.fault.kill.node_process import ACCOUNT, LedgerProcess, NodeProcess, kill_process
from tests.fault.kill.worker import LOAD_STAGES, NAP_BEFORE_STAGE

CLIENTS = 3
IN_FLIGHT_MAX = 48  # runs; enough to hit, few enough that one crash is healed soon
EFFECTS_BETWEEN_KILLS = (5, 120)
END_WITHIN_S = 40.0
SPREAD_S = 0.02
PAUSE_S = (0.2, 1.5)
FILE_BYTES_MAX = 4_096  # below any offset at which the database appends
LOOK_EVERY_S = 0.02
WORKFLOW = "load"
NAMELESS_SHARE = 0.5  # of the creates leave the id to the node, which may start such a run while it is being written


@dataclass
class Siege:
    """One run of the kill test in ``folder``; ``judge`` gives the checker's verdict."""

    folder: Path
    node: NodeProcess
    ledger: LedgerProcess
    seed: int
    faults: dict[str, int]
    peace_s: float = 40.0
    effects_between: tuple[int, int] = EFFECTS_BETWEEN_KILLS
    rests: int = 0  # so many kills of the node are followed by nothing, until all that was in flight has ended
    over: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)  # a client was told 5xx
    recovered_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._clients = (self.folder / "clients.jsonl").open("w")
        self._fault_log = (self.folder / "faults.jsonl").open("w")
        self._open: set[str] = set()  # acknowledged, not seen ended
        self._known: set[str] = set()  # to a client, who sends it its event
        self._strays: set[str] = set()  # found by looking; a client may be told of one afterwards
        self._room = asyncio.Event()
        self._calm = asyncio.Event()  # cleared: nothing is created
        self._calm.set()
        plan = {"stages": LOAD_STAGES, "nap_before_stage": NAP_BEFORE_STAGE, "faults": self.faults, "seed": self.seed}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    async def run(self) -> None:
        """The whole siege: load and kills, then peace until everything has ended, then the final look."""
        with self._clients, self._fault_log:
            async with asyncio.TaskGroup() as group:  # a client that breaks ends the siege
                for number in range(CLIENTS):
                    group.create_task(self._create_runs(number, group))
                group.create_task(self._look())
                await self._break_things()
                self.over.set()
            await self._send_strays_their_event()
            await self.node.until_ended(WORKFLOW, self.peace_s)  # what has not ended by then, the checker names
        await self._write_final()

    async def _write_final(self) -> None:
        with (self.folder / "final.jsonl").open("w") as file:
            for instance in await self.node.instances(WORKFLOW):
                _write(file, await self.node.describe(WORKFLOW, instance))

    def summary(self) -> str:
        """What to print beside a verdict: how much there was, and how fast a killed node was back."""
        recovered = sorted(self.recovered_s) or [0.0]
        slowest, middle = recovered[-1], recovered[len(recovered) // 2]
        return (
            f"{sum(self.faults.values())} faults {self.faults}, seed {self.seed}; "
            f"node killed until ready again: p50 {middle:.2f} s, max {slowest:.2f} s"
        )

    def judge(self) -> list[str]:
        return checker.check(checker.read_history(self.folder))

    # -- kills --------------------------------------------------------------------------------------------------------

    async def _break_things(self) -> None:
        acts = {
            "node": self._kill_node,
            "isolate": self._kill_isolate,
            "zygote": self._kill_zygote,
            "writer": self._kill_writer,
            "pause": self._pause,
            "disk": self._fill_disk,
        }
        kinds = [kind for kind, count in self.faults.items() for _ in range(count)]
        self.chance.shuffle(kinds)
        for kind in kinds:
            await self.ledger.reaches(await self.ledger.count() + self.chance.randint(*self.effects_between))
            await asyncio.sleep(self.chance.random() * SPREAD_S)  # bounded: not always just after an effect
            await acts[kind]()

    async def _kill_node(self) -> None:
        load = len(self._open)
        begun = time.monotonic()
        await self.node.kill()
        await self.node.start()
        self.recovered_s.append(time.monotonic() - begun)
        self._fault("node", begun, time.monotonic(), load)
        if not self.rests:
            return
        # The next kill would have every run that was lost in this one taken up again, and so hide it.
        self.rests -= 1
        self._calm.clear()
        await self._send_strays_their_event()
        left = await self.node.until_ended(WORKFLOW, END_WITHIN_S)
        assert left == {}, f"{left} after a kill of the node, and nothing else had happened"
        self._calm.set()

    async def _kill_isolate(self) -> None:
        """One that has something to do: it is looked for until there is one, and it has not ended by itself."""
        deadline = time.monotonic() + END_WITHIN_S
        while time.monotonic() < deadline:
            busy = [isolate for isolate in await self.node.isolates() if isolate["load"] and isolate["pid"]]
            if busy:
                victim = self.chance.choice(busy)
                with suppress(ProcessLookupError):
                    begun, ended = await kill_process(victim["pid"])
                    self._fault("isolate", begun, ended, victim["load"], isolate=victim["pid"])
                    return
        raise AssertionError("no isolate has anything to do")

    async def _kill_zygote(self) -> None:
        """The process that makes isolates, and all of them with it."""
        load = len(self._open)
        zygote = self._child("zygote")
        isolates = zygote.children()
        begun, _ = await kill_process(zygote.pid)
        await asyncio.to_thread(psutil.wait_procs, isolates, timeout=END_WITHIN_S)
        self._fault("zygote", begun, time.monotonic(), load)

    async def _kill_writer(self) -> None:
        """The process that writes, in the middle of a commit as likely as not."""
        load = len(self._open)
        begun, ended = await kill_process(self._child("writer_process.py").pid)
        self._fault("writer", begun, ended, load)

    def _child(self, called: str) -> psutil.Process:
        """The node's own child with this in its command line."""
        children = psutil.Process(self.node.pid).children()
        return next(child for child in children if any(part.endswith(called) for part in child.cmdline()))

    async def _pause(self) -> None:
        """The node stands still, its isolates do not: what they say waits in their channels."""
        load, begun = len(self._open), time.monotonic()
        self.node.signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(*PAUSE_S))  # bounded: the pause is the fault itself
        self.node.signal(signal.SIGCONT)
        self._fault("pause", begun, time.monotonic(), load)

    async def _fill_disk(self) -> None:
        """No write of the node gets through, until somebody has been told so."""
        load, begun = len(self._open), time.monotonic()
        writer = self._child("writer_process.py").pid
        unlimited = resource.prlimit(writer, resource.RLIMIT_FSIZE)
        self.refused.clear()
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, unlimited[1]))
        try:
            await asyncio.wait_for(self.refused.wait(), END_WITHIN_S)
        finally:
            resource.prlimit(writer, resource.RLIMIT_FSIZE, unlimited)
        # A decision that was refused is read again after a second; until then its run stands still.
        self._fault("disk", begun, time.monotonic(), load)

    def _fault(self, kind: str, begun: float, ended: float, load: int, **more: int) -> None:
        _write(self._fault_log, {"kind": kind, "from": begun, "to": ended, "load": load, **more})

    # -- clients ------------------------------------------------------------------------------------------------------

    async def _create_runs(self, client: int, group: asyncio.TaskGroup) -> None:
        chance = random.Random(f"{self.seed}/{client}")
        number = 0
        while not self.over.is_set():
            await self._calm.wait()
            if len(self._open) >= IN_FLIGHT_MAX:
                self._room.clear()
                await self._room.wait()
                continue
            instance = f"s{self.seed}-c{client}-{number}"
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
                self._open.add(instance)
                group.create_task(self._send_event(instance, chance.random() * 0.4))

    async def _create_nameless(self, params: dict[str, Any]) -> str:
        """The node makes the id. Empty when nobody was told it: the call cannot be repeated, for that would be another
        instance, and whether there is one is found out later."""
        word = params["ask"]
        self._said("create", word, "ask", params=params)
        try:
            answer = await self.node.call("POST", f"{ACCOUNT}/{WORKFLOW}/instances", {"params": params})
        except httpx.TransportError:
            self._said("create", word, "unknown")
            await asyncio.wait_for(self.node.up.wait(), END_WITHIN_S)
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

    async def _send_strays_their_event(self) -> None:
        """Instances that no client was told of go on like the others. Nothing is killed meanwhile."""
        for instance in await self.node.instances(WORKFLOW):
            if instance not in self._known | self._strays:
                self._strays.add(instance)
                params = {"for": instance}
                self._said("event", instance, "invoke", params=params)
                answer = await self._ask("event", instance, params)
                assert answer.status_code == 200, answer.text
                self._said("event", instance, "ok", status=200)

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
            await asyncio.wait_for(self.node.up.wait(), END_WITHIN_S)

    async def _ask(self, op: str, instance: str, params: dict[str, Any]) -> httpx.Response:
        if op == "create":
            return await self.node.call(
                "POST", f"{ACCOUNT}/{WORKFLOW}/instances", {"instance_id": instance, "params": params}
            )
        return await self.node.call("POST", f"{ACCOUNT}/{WORKFLOW}/instances/{instance}/events/signal", params)

    async def _look(self) -> None:
        """Reads runs while they go on; what was read once must not change. Also notes which have ended."""
        chance = random.Random(f"{self.seed}/reader")
        while not self.over.is_set():
            await asyncio.sleep(LOOK_EVERY_S)  # bounded
            await asyncio.wait_for(self.node.up.wait(), END_WITHIN_S)
            for instance in chance.sample(sorted(self._open), min(len(self._open), 6)):
                try:
                    answer = await self.node.call("GET", f"{ACCOUNT}/{WORKFLOW}/instances/{instance}")
                except httpx.TransportError:
                    break
                if answer.status_code != 200:
                    self._said("describe", instance, "fail", status=answer.status_code)
                    self._open.discard(instance)
                    continue
                found = answer.json()["result"]
                self._said("describe", instance, "read", found=found)
                if found["status"] in checker.TERMINAL:
                    self._open.discard(instance)
            self._room.set()
        self._room.set()

    def _said(self, op: str, instance: str, phase: str, **more: Any) -> None:
        _write(self._clients, {"op": op, "id": instance, "phase": phase, "at": time.monotonic(), **more})


def _write(file: TextIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
