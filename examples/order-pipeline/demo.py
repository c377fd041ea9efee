"""The demo: 300 orders through six Workers, while the node that runs them is killed twice.

    python examples/order-pipeline/demo.py [--orders N] [--sabotage NAME] [--keep]

It copies the pipeline to a temporary folder, gives it secrets of its own, starts the outside world and a node, and
posts the orders. Twice, while runs are in flight, the node gets SIGKILL (the first time right after it acknowledged an
order) and is started again. When every run is over, ``reconcile.py`` compares what the client was told, what the
outside world booked and what the journal says. Exit code 0 only if all three agree.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from children import Child, free_ports
from journal import Journal
from reconcile import ACCEPTED, TERMINAL, Answer, Report, reconcile
from shop import Shop
from show import Progress, show_report

HERE = Path(__file__).resolve().parent
SABOTAGES = sorted(path.name for path in (HERE / "sabotage").iterdir() if path.is_dir())
SEED = "stellwerk-8"  # with it, the first forty orders already show every kind of mishap
START_S = 30.0  # a cold start on a busy machine; usually it takes about one second
DEADLINE_S = 50.0
QUIET_S = 3.0  # a run that is missing while all others are over for so long will not appear any more
POLL_S = 0.4
SECOND_KILL_AFTER = 0.75  # of the orders answered


class DemoFailedError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass
class Demo:
    """One run of the demo, in one temporary folder."""

    folder: Path
    lines: list[dict[str, Any]]
    sabotage: str
    shipping_timeout_s: int
    answers: list[Answer] = field(default_factory=list)
    statuses: dict[str, str] = field(default_factory=dict)
    recoveries_s: list[float] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.victim = choose_victim(self.lines)
        self.kill_now = [asyncio.Event(), asyncio.Event()]
        self.tokens = {name: secrets.token_urlsafe(24) for name in ("shop", "carrier", "signing")}
        self.port, self.control_port, self.outside_port = free_ports(3)
        self.state = self.folder / "state"
        self.journal = Journal(f"http://127.0.0.1:{self.control_port}", self.state)
        self.shop = Shop(f"http://127.0.0.1:{self.port}", self.tokens["shop"], per_second=60, answered=self.answered)
        self.outside = self._outside()
        self.node = self._node()
        self.progress = Progress(self)

    def _outside(self) -> Child:
        argv = [sys.executable, str(HERE / "outside" / "server.py"), "--seed", SEED]
        argv += ["--port", str(self.outside_port), "--port-file", str(self.folder / "outside.port")]
        argv += ["--ledger", str(self.folder / "ledger.jsonl"), "--gateway", f"http://127.0.0.1:{self.port}"]
        token = {"CARRIER_TOKEN": self.tokens["carrier"]}
        return Child("the outside server", argv, self.folder / "outside.log", token)

    def _node(self) -> Child:
        stellwerk = str(Path(sys.executable).with_name("stellwerk"))
        argv = [stellwerk, "dev", str(self.folder / "workers"), "--state", str(self.state)]
        argv += ["--port", str(self.port), "--control-port", str(self.control_port)]
        return Child("the node", argv, self.folder / "node.log")

    # -- the run, from front to back -------------------------------------------------------------------------------

    async def run(self) -> Report:
        prepare_workers(self)
        self.outside.start()
        await self.until(lambda: (self.folder / "outside.port").exists(), self.outside)
        self.node.start()
        await self.until_ready()
        with self.progress:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self.watch())
                kills = tasks.create_task(self.kill_twice())
                await self.shop.post_all(self.lines)
                await kills
                await self.until_over()
                watching.cancel()
        runs = await self.journal.runs(await self.journal.statuses())
        report = reconcile(self.answers, read_ledger(self.folder / "ledger.jsonl"), runs)
        self.steps = sum(len(run["steps"]) for run in runs.values())
        return report

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)
        if answer.id == self.victim:
            self.kill_now[0].set()  # the moment after an acknowledgement is the one that proves most
        if len(self.answers) >= SECOND_KILL_AFTER * len(self.lines):
            self.kill_now[1].set()

    async def kill_twice(self) -> None:
        for now in self.kill_now:
            await now.wait()
            began = time.monotonic()
            self.progress.note(f"SIGKILL to the node, with {self.in_flight()} runs in flight")
            self.node.kill()
            self.node.start()
            await self.until_ready()
            self.recoveries_s.append(time.monotonic() - began)
            self.progress.note(f"the node is back after {self.recoveries_s[-1]:.1f} s")

    async def watch(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                self.statuses = await self.journal.statuses()
            self.progress.update()
            await asyncio.sleep(POLL_S)

    async def until_over(self) -> None:
        """Until every accepted order is over; or all that exist are, and the rest is plainly missing."""
        quiet_since: float | None = None
        while time.monotonic() - self.began < DEADLINE_S:
            missing = self.accepted() - set(self.statuses)
            unfinished = [run_id for run_id, status in self.statuses.items() if status not in TERMINAL]
            if not missing and not unfinished:
                return
            if unfinished:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_S:
                return
            await asyncio.sleep(POLL_S / 4)

    async def until_ready(self) -> None:
        await self.until(self.journal.is_ready, self.node)

    async def until(self, condition: Any, child: Child) -> None:
        """Waits for the condition; raises when the child ends instead, with what it said last."""
        deadline = time.monotonic() + START_S
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            if child.exit_code() is not None:
                raise DemoFailedError(f"{child.name} ended with {child.exit_code()}:\n{child.last_words()}")
            if time.monotonic() > deadline:
                raise DemoFailedError(f"{child.name} was not ready after {START_S:.0f} s:\n{child.last_words()}")
            await asyncio.sleep(0.02)

    async def close(self) -> list[int]:
        """Ends the children. Returns the ids of processes that would have been left running."""
        await self.journal.close()
        return self.node.stop() + self.outside.stop()

    # -- figures ---------------------------------------------------------------------------------------------------

    def accepted(self) -> set[str]:
        return {answer.id for answer in self.answers if answer.status in ACCEPTED}

    def in_flight(self) -> int:
        over = sum(status in TERMINAL for status in self.statuses.values())
        return len(self.accepted()) - over

    def seconds(self) -> float:
        return time.monotonic() - self.began


def choose_victim(lines: list[dict[str, Any]]) -> str:
    """A good order that is posted once, about a third of the way: the node is killed right after accepting it."""
    ids = Counter(line["order"].get("id") for line in lines)
    good = [line["order"]["id"] for line in lines if line["kind"] == "good" and ids[line["order"]["id"]] == 1]
    return str(good[len(good) // 3])


def prepare_workers(demo: Demo) -> None:
    """A copy of the pipeline with secrets of its own and, if asked for, one sabotaged Worker."""
    workers = demo.folder / "workers"
    shutil.copytree(HERE / "workers", workers, ignore=shutil.ignore_patterns(".dev.vars", ".stellwerk", "__pycache__"))
    outside = f"http://127.0.0.1:{demo.outside_port}"
    write_vars(workers / "gateway", API_TOKEN=demo.tokens["shop"], CARRIER_TOKEN=demo.tokens["carrier"])
    write_vars(workers / "gateway", ORDER_SIGNING_KEY=demo.tokens["signing"])
    write_vars(
        workers / "orders",
        ORDER_SIGNING_KEY=demo.tokens["signing"],
        SHIPPING_TIMEOUT=f"{demo.shipping_timeout_s} seconds",
    )
    write_vars(workers / "charge", PAYMENT_URL=outside)
    write_vars(workers / "notify", CRM_URL=outside)
    if demo.sabotage:
        for variant in (HERE / "sabotage" / demo.sabotage).glob("*.py"):
            source = workers / variant.stem / "src"
            (source / "entry.py").rename(source / "honest.py")
            shutil.copy(variant, source / "entry.py")
            write_vars(workers / variant.stem, SABOTAGED_ORDER=demo.victim)


def write_vars(worker: Path, **values: str) -> None:
    with (worker / ".dev.vars").open("a") as file:
        file.writelines(f'{name}="{value}"\n' for name, value in values.items())


def read_ledger(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def verdict(demo: Demo, report: Report, left_running: list[int]) -> bool:
    """Whether everything agrees, and the run was worth something: not every order refunded, both kills done."""
    show_report(demo, report)
    complaints = [str(fault) for fault in report.faults]
    if left_running:
        complaints.append(f"processes left running: {left_running}")
    if len(demo.recoveries_s) != 2:
        complaints.append(f"the node was killed {len(demo.recoveries_s)} times instead of twice")
    if report.outcomes["charged and completed"] * 2 < len(demo.accepted()):
        complaints.append("fewer than half of the orders completed: that proves nothing")
    for complaint in complaints[:20]:
        print(f"  WRONG  {complaint}")
    if len(complaints) > 20:
        print(f"  ... and {len(complaints) - 20} more")
    print("All three witnesses agree." if not complaints else f"They do not agree: {len(complaints)} contradictions.")
    return not complaints


async def run_demo(options: argparse.Namespace, folder: Path) -> bool:
    lines = [json.loads(line) for line in (HERE / "orders.jsonl").read_text().splitlines()][: options.orders]
    demo = Demo(folder=folder, lines=lines, sabotage=options.sabotage, shipping_timeout_s=options.shipping_timeout)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        report = await demo.run()
    finally:
        left_running = await demo.close()
    return verdict(demo, report, left_running)


@contextlib.contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="stellwerk-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder} (ledger.jsonl, node.log, outside.log, state/)")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Orders through six Workers, while their node is killed twice.")
    parser.add_argument("--orders", type=int, default=300, help="how many lines of orders.jsonl to post (at least 20)")
    parser.add_argument("--sabotage", choices=["", *SABOTAGES], default=os.environ.get("SABOTAGE", ""))
    parser.add_argument("--shipping-timeout", type=int, default=8, help="seconds that a run waits for its parcel")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder for a look at its files")
    options = parser.parse_args()
    if options.sabotage not in ("", *SABOTAGES):
        parser.error(f"SABOTAGE={options.sabotage}: choose from {', '.join(SABOTAGES)}")
    if options.orders < 20:
        parser.error("--orders: at least 20, or there is nothing to kill in between")
    try:
        with temporary_folder(options.keep) as folder:
            return 0 if asyncio.run(run_demo(options, folder)) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything that was started has been stopped")
        return 130
    except ExceptionGroup as failures:
        (known, _) = failures.split(DemoFailedError)
        if known is None:
            raise
        print(*known.exceptions, sep="\n")
        return 1
    except DemoFailedError as failed:
        print(failed)
        return 1


if __name__ == "__main__":
    sys.exit(main())
