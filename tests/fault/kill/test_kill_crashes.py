"""Programs that end their own isolate, or the whole node: bounded, blamed on the right one, and no neighbour pays."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fault.kill.few_node_ends import NODE_INTERRUPTIONS_MAX
from tests.fault.kill.few_step_ends import INTERRUPTIONS_MAX
from tests.fault.kill.node_process import EndedEarlyError, LedgerProcess, NodeProcess, a_node_and_a_ledger
from tests.fault.kill.worker import KILLS_AT_IMPORT

from stellwerk.core import limits

INNOCENTS = 20
END_WITHIN_S = 30.0
RETRIES = 1  # of the step that crashes, as worker.py says
UNKNOWN_CULPRIT = 1  # the first crash is nobody's: it interrupts, and does not count


def effects_by_step(ledger: LedgerProcess) -> Counter[tuple[str, str]]:
    return Counter((effect["instance"], effect["step"]) for effect in ledger.effects())


async def described(node: NodeProcess, *instances: str, workflow: str = "bomb") -> list[dict[str, Any]]:
    left = await node.until_ended(workflow, END_WITHIN_S)
    assert not left, left
    return [await node.describe(workflow, instance) for instance in instances]


@pytest.mark.parametrize("signal", [False, True], ids=["exit", "signal"])
def test_twenty_innocent_runs_complete_beside_one_that_ends_their_isolate(tmp_path: Path, signal: bool) -> None:
    innocents = [f"innocent-{number}" for number in range(INNOCENTS)]

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("bomb", [(one, {"kind": "innocent", "work_ms": 400}) for one in innocents])
            await ledger.reaches(INNOCENTS)
            await node.create("bomb", [("culprit", {"kind": "step", "signal": signal})])
            culprit, *others = await described(node, "culprit", *innocents)
            effects = effects_by_step(ledger)

        assert [other["status"] for other in others] == ["complete"] * INNOCENTS
        assert (culprit["status"], culprit["error"]["name"]) == ("errored", "WorkflowInternalError")
        assert effects["culprit", "crash"] == UNKNOWN_CULPRIT + 1 + RETRIES
        repeated = [effects[one, "work"] for one in innocents]
        assert max(repeated) == 2  # the crash did hit them, and only the one
        assert all(other["output"] == other["steps"][0]["output"] for other in others)

    asyncio.run(scenario())


def test_twenty_innocent_steps_complete_beside_one_of_the_same_run_that_ends_their_isolate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("bomb", [("run", {"kind": "parallel"})])
            (run,) = await described(node, "run")
            effects = effects_by_step(ledger)

        assert run["status"] == "complete", run["error"]
        assert run["output"]["error"] == "WorkflowInternalError: Attempt failed due to internal workflows error"
        recorded = {step["name"]: step["output"] for step in run["steps"] if step["success"]}
        assert run["output"]["values"] == [recorded[f"innocent {number}-1"] for number in range(INNOCENTS)]
        assert effects["run", "crash"] == UNKNOWN_CULPRIT + 1 + RETRIES
        assert max(effects["run", f"innocent {number}"] for number in range(INNOCENTS)) <= 2

    asyncio.run(scenario())


def test_a_run_whose_own_code_ends_its_isolate_every_time_ends_errored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path) as (node, ledger):
            await node.create("bomb", [("run", {"kind": "body"})])
            (run,) = await described(node, "run")
            effects = effects_by_step(ledger)

        assert (run["status"], run["error"]["name"]) == ("errored", "WorkflowInternalError")
        lost = limits.RUN_INTERRUPTIONS_MAX + 1
        assert f"lost its isolate {lost} times without any progress" in run["error"]["message"]
        # Its one step ran, was recorded at the latest by the second life, and then rested.
        assert 1 <= effects["run", "work"] <= 2

    asyncio.run(scenario())


def test_a_step_that_kills_the_node_fails_after_its_limit_instead_of_looping(tmp_path: Path) -> None:
    """A supervisor starts the node again and again. Only the first attempt may go unrecorded, and so uncounted."""
    interruptions = INTERRUPTIONS_MAX

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path, module="tests.fault.kill.few_step_ends") as (node, ledger):
            await node.create("bomb", [("neighbour", {"kind": "innocent", "work_ms": 100})])
            with suppress(httpx.TransportError):  # it may be dead before it can answer
                await node.create("bomb", [("run", {"kind": "step", "node": str(tmp_path / "state" / "node.json")})])
            while await killed_again(node):
                assert node.starts < 3 * interruptions, "it loops"
                await node.start()
            run, neighbour = await described(node, "run", "neighbour")
            effects = effects_by_step(ledger)

        assert (run["status"], run["error"]["name"]) == ("errored", "WorkflowInternalError")
        assert neighbour["status"] == "complete"
        # One that was not recorded, those that are forgiven, and those that count.
        assert interruptions + 1 <= effects["run", "crash"] <= 1 + interruptions + 1 + RETRIES
        assert node.starts == 1 + effects["run", "crash"]

    asyncio.run(scenario())


def test_a_run_whose_own_code_kills_the_node_at_once_ends_errored_and_one_behind_it_completes(tmp_path: Path) -> None:
    """Nothing of it is ever recorded but that it was taken up. The one behind it only waits, and pays nothing."""
    trace = tmp_path / "trace"

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path, module="tests.fault.kill.few_node_ends") as (node, ledger):
            both = [("culprit", {"kind": "bare", "trace": str(trace)}), ("innocent", {"kind": "innocent"})]
            with suppress(httpx.TransportError):  # it may be dead before it can answer
                await node.create("single", both)
            while await killed_again(node, "single"):
                assert node.starts <= 2 * NODE_INTERRUPTIONS_MAX, "it loops"
                with suppress(EndedEarlyError):
                    await node.start()
            culprit, innocent = await described(node, "culprit", "innocent", workflow="single")
            effects = effects_by_step(ledger)

        assert (culprit["status"], culprit["error"]["name"]) == ("errored", "WorkflowInternalError")
        assert f"{NODE_INTERRUPTIONS_MAX + 1} times without any progress" in culprit["error"]["message"]
        # The first time, on the node that it was created on, is not known to the next ones; each further one is.
        assert trace.read_text().count("begun") == node.starts - 1 == 1 + NODE_INTERRUPTIONS_MAX
        assert (innocent["status"], effects["innocent", "work"]) == ("complete", 1)

    asyncio.run(scenario())


def test_a_run_whose_module_kills_the_node_when_it_is_imported_ends_errored(tmp_path: Path) -> None:
    """It never gets as far as to begin: that it was taken up is all that is recorded, each time before the import."""
    trace = tmp_path / "workspace" / KILLS_AT_IMPORT

    async def scenario() -> None:
        async with a_node_and_a_ledger(tmp_path, module="tests.fault.kill.few_node_ends") as (node, _):
            trace.touch()
            with suppress(httpx.TransportError):  # it may be dead before it can answer
                await node.create("bomb", [("culprit", {"kind": "innocent"})])
            while await killed_again(node):
                assert node.starts <= 2 * NODE_INTERRUPTIONS_MAX, "it loops"
                with suppress(EndedEarlyError):
                    await node.start()
            (culprit,) = await described(node, "culprit")

        assert (culprit["status"], culprit["error"]["name"]) == ("errored", "WorkflowInternalError")
        assert trace.read_text().count("begun") == node.starts - 1 == 1 + NODE_INTERRUPTIONS_MAX

    asyncio.run(scenario())


async def killed_again(node: NodeProcess, workflow: str = "bomb") -> bool:
    """Waits for whichever comes first: the node's death, or the end of every run."""
    death = asyncio.create_task(node.ended())
    try:
        left = await node.until_ended(workflow, END_WITHIN_S)
        assert not left, left
    except httpx.TransportError:
        await death
        return True
    death.cancel()
    await asyncio.gather(death, return_exceptions=True)
    return False
