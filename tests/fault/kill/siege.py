"""The siege: clients (``clients.py``) keep a node busy, while its processes are killed.

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

import psutil
from tests.fault.kill import checker
from tests.fault.kill.clients import END_WITHIN_S, WORKFLOW, Clients, write
from tests.fault.kill.node_process import LedgerProcess, NodeProcess, kill_process
from tests.fault.kill.worker import LOAD_STAGES, NAP_BEFORE_STAGE

EFFECTS_BETWEEN_KILLS = (5, 120)
SPREAD_S = 0.02
PAUSE_S = (0.2, 1.5)
FILE_BYTES_MAX = 4_096  # below any offset at which the database appends


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
    recovered_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._client_log = (self.folder / "clients.jsonl").open("w")
        self._fault_log = (self.folder / "faults.jsonl").open("w")
        self.clients = Clients(self.node, self.seed, self._client_log)
        plan = {"stages": LOAD_STAGES, "nap_before_stage": NAP_BEFORE_STAGE, "faults": self.faults, "seed": self.seed}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    async def run(self) -> None:
        """The whole siege: load and kills, then peace until everything has ended, then the final look."""
        with self._client_log, self._fault_log:
            async with asyncio.TaskGroup() as group:  # a client that breaks ends the siege
                self.clients.begin(group)
                await self._break_things()
                self.clients.over.set()
            await self.clients.send_strays_their_event()
            await self.node.until_ended(WORKFLOW, self.peace_s)  # what has not ended by then, the checker names
        await self._write_final()

    async def _write_final(self) -> None:
        with (self.folder / "final.jsonl").open("w") as file:
            for instance in await self.node.instances(WORKFLOW):
                write(file, await self.node.describe(WORKFLOW, instance))

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
        load = len(self.clients.open)
        begun = time.monotonic()
        await self.node.kill()
        await self.node.start()
        self.recovered_s.append(time.monotonic() - begun)
        self._fault("node", begun, time.monotonic(), load)
        if not self.rests:
            return
        # The next kill would have every run that was lost in this one taken up again, and so hide it.
        self.rests -= 1
        self.clients.calm.clear()
        await self.clients.send_strays_their_event()
        left = await self.node.until_ended(WORKFLOW, END_WITHIN_S)
        assert left == {}, f"{left} after a kill of the node, and nothing else had happened"
        self.clients.calm.set()

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
        load = len(self.clients.open)
        zygote = self._child("zygote")
        isolates = zygote.children()
        begun, _ = await kill_process(zygote.pid)
        await asyncio.to_thread(psutil.wait_procs, isolates, timeout=END_WITHIN_S)
        self._fault("zygote", begun, time.monotonic(), load)

    async def _kill_writer(self) -> None:
        """The process that writes, in the middle of a commit as likely as not."""
        load = len(self.clients.open)
        begun, ended = await kill_process(self._child("writer_process.py").pid)
        self._fault("writer", begun, ended, load)

    def _child(self, called: str) -> psutil.Process:
        """The node's own child with this in its command line."""
        children = psutil.Process(self.node.pid).children()
        return next(child for child in children if any(part.endswith(called) for part in child.cmdline()))

    async def _pause(self) -> None:
        """The node stands still, its isolates do not: what they say waits in their channels."""
        load, begun = len(self.clients.open), time.monotonic()
        self.node.signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(*PAUSE_S))  # bounded: the pause is the fault itself
        self.node.signal(signal.SIGCONT)
        self._fault("pause", begun, time.monotonic(), load)

    async def _fill_disk(self) -> None:
        """No write of the node gets through, until somebody has been told so."""
        load, begun = len(self.clients.open), time.monotonic()
        writer = self._child("writer_process.py").pid
        unlimited = resource.prlimit(writer, resource.RLIMIT_FSIZE)
        self.clients.refused.clear()
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, unlimited[1]))
        try:
            await asyncio.wait_for(self.clients.refused.wait(), END_WITHIN_S)
        finally:
            resource.prlimit(writer, resource.RLIMIT_FSIZE, unlimited)
        # A decision that was refused is read again after a second; until then its run stands still.
        self._fault("disk", begun, time.monotonic(), load)

    def _fault(self, kind: str, begun: float, ended: float, load: int, **more: int) -> None:
        write(self._fault_log, {"kind": kind, "from": begun, "to": ended, "load": load, **more})
