"""Sleeping runs, edited Workers, stopped nodes and a held state folder: what must not care about a node's end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.fault.kill.node_process import ACCOUNT, LedgerProcess, NodeProcess, a_node_and_a_ledger
from tests.fault.kill.worker import SOURCE

END_WITHIN_S = 30.0
CLOCK_GRAIN_S = 0.002  # wake-up times are whole milliseconds
SLEEPERS = 1_000
NAP_MS = 8_000  # long enough for all to fall asleep before the first wakes


async def waiting(node: NodeProcess, workflow: str, count: int, within_s: float = END_WITHIN_S) -> None:
    """Returns when so many instances wait for a timer or an event."""
    deadline = time.monotonic() + within_s
    while await node.count(workflow, "waiting") < count:
        assert time.monotonic() < deadline, f"{await node.count(workflow, 'waiting')} of {count} wait"
        await asyncio.sleep(0.02)  # bounded


def by_instance(ledger: LedgerProcess) -> dict[str, dict[str, list[dict[str, Any]]]]:
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for effect in ledger.effects():
        found[effect["instance"]][effect["step"]].append(effect)
    return found


def test_a_thousand_runs_that_slept_through_a_kill_of_the_node_wake_once_and_not_early(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("sleeper", [(f"s-{number}", {"nap_ms": NAP_MS}) for number in range(SLEEPERS)])
            await waiting(node, "sleeper", SLEEPERS, within_s=NAP_MS / 1000)
            await node.kill()
            assert await ledger.count() == SLEEPERS  # all asleep, none has woken
            await node.start()
            left = await node.until_ended("sleeper", END_WITHIN_S)
            assert left == {}
            assert await node.count("sleeper", "complete") == SLEEPERS
            effects = by_instance(ledger)

        assert len(effects) == SLEEPERS
        for steps in effects.values():
            (before,), (after,) = steps["before"], steps["after"]  # each once: nothing overlapped the kill
            assert after["at"] - before["at"] >= NAP_MS / 1000 - CLOCK_GRAIN_S

    asyncio.run(scenario())


def test_runs_that_a_node_takes_up_are_heard_before_its_start_is_over(tmp_path: Path) -> None:
    runs = [(f"r-{number}", {"kind": "innocent", "work_ms": 300}) for number in range(20)]

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("bomb", runs)
            await ledger.reaches(len(runs))
            await node.kill()
            assert await ledger.count() == len(runs)  # all were at work, none had ended
            node.module = "tests.fault.kill.slow_start"
            await node.start()
            assert await node.until_ended("bomb", END_WITHIN_S / 3) == {}
            assert await node.count("bomb", "complete") == len(runs)

    asyncio.run(scenario())


def test_a_stopped_node_goes_on_where_it_was_and_keeps_a_second_one_out(tmp_path: Path) -> None:
    """SIGSTOP for longer than the naps; meanwhile a second node asks for the same state folder."""

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            runs = [(f"s-{number}", {"nap_ms": 1_500}) for number in range(20)]
            await node.create("sleeper", runs)
            await ledger.reaches(len(runs))
            stopped = time.monotonic()
            node.signal(signal.SIGSTOP)
            second = NodeProcess(node.workspace, node.state)
            refused = await second.fails_to_start()
            await asyncio.sleep(max(0.0, stopped + 2.5 - time.monotonic()))  # bounded: every nap is over by then
            assert await ledger.count() == len(runs)  # nobody woke them
            node.signal(signal.SIGCONT)
            assert await node.until_ended("sleeper", END_WITHIN_S) == {}
            assert await node.count("sleeper", "complete") == len(runs)
            effects = by_instance(ledger)

        assert f"is held by the node with pid {node.pid}" in refused
        assert all(len(steps["before"]) == len(steps["after"]) == 1 for steps in effects.values())

    asyncio.run(scenario())


def test_runs_in_flight_end_on_the_version_they_began_on_and_new_ones_begin_on_the_edited_one(tmp_path: Path) -> None:
    """The Worker is edited under ``dev``, and the node is killed as well: the old version must outlive both."""
    old = [f"old-{number}" for number in range(10)]
    new = [f"new-{number}" for number in range(10)]
    params = {"work_ms": 5, "nap_ms": 1, "fails": 1}

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("load", [(one, params) for one in old])
            await ledger.reaches(4 * len(old))  # two stages are done; now they wait for their event
            entry = node.workspace / "harness" / "src" / "entry.py"
            entry.write_text(SOURCE.replace("VERSION-1", "VERSION-2"))
            await edited(node, await node.describe("load", old[0]))
            await node.create("load", [(one, params) for one in new])
            await node.kill()
            await node.start()
            for one in [*old, *new]:
                sent = await node.call("POST", f"{ACCOUNT}/load/instances/{one}/events/signal", {"for": one})
                assert sent.status_code == 200, sent.text
            assert await node.until_ended("load", END_WITHIN_S) == {}
            ended = {one: await node.describe("load", one) for one in [*old, *new]}

        for version, runs in (("VERSION-1", old), ("VERSION-2", new)):
            for one in runs:
                assert ended[one]["status"] == "complete", ended[one]["error"]
                values = [value for name, value in ended[one]["output"].items() if name != "event"]
                assert {value.split("/")[0] for value in values} == {version}
        assert len({ended[one]["versionId"] for one in old}) == len({ended[one]["versionId"] for one in new}) == 1

    asyncio.run(scenario())


async def edited(node: NodeProcess, before: dict[str, Any]) -> None:
    """Returns when new runs begin on another version than ``before`` did."""
    deadline = time.monotonic() + END_WITHIN_S
    for number in range(10_000):
        await node.create("sleeper", [(f"probe-{number}", {"nap_ms": 1})])
        if (await node.describe("sleeper", f"probe-{number}"))["versionId"] != before["versionId"]:
            return
        assert time.monotonic() < deadline, "the edited Worker was not deployed"
        await asyncio.sleep(0.05)  # bounded
