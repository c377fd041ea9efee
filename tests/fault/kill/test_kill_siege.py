"""Isolates and nodes are killed under load, and an outside ledger and an independent checker say what was broken.

A failure prints the seed; ``STELLWERK_KILL_SEED=n pytest tests/fault/kill/test_kill_siege.py`` draws the same again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from tests.fault.kill.node_process import a_node_and_a_ledger
from tests.fault.kill.siege import Siege

LONG = [pytest.mark.fault, pytest.mark.timeout(1_800)]


async def besiege(folder: Path, faults: dict[str, int], *, module: str = "stellwerk.node", **how: Any) -> Siege:
    seed = int(os.environ.get("STELLWERK_KILL_SEED", secrets.randbelow(1_000_000)))
    print(f"seed {seed}: repeat with STELLWERK_KILL_SEED={seed}")
    async with a_node_and_a_ledger(folder, module=module) as (node, ledger):
        siege = Siege(folder, node, ledger, seed, faults, **how)
        await siege.run()
    return siege


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(
            {"isolate": 10, "node": 10, "zygote": 2, "writer": 5, "pause": 2, "disk": 2},
            marks=pytest.mark.timeout(180),  # half a minute on a machine of its own
        ),
        pytest.param({"isolate": 100, "node": 100, "zygote": 20, "writer": 50, "pause": 20, "disk": 20}, marks=LONG),
    ],
    ids=["10", "100"],
)
def test_nothing_acknowledged_is_lost_and_nothing_recorded_changes_however_often_processes_die(
    tmp_path: Path, faults: dict[str, int]
) -> None:
    siege = asyncio.run(besiege(tmp_path, faults, rests=faults["node"] // 5))

    print(siege.summary())
    assert siege.judge() == []


def test_a_build_that_acknowledges_before_the_commit_is_caught_by_the_same_checker(tmp_path: Path) -> None:
    """Three kills of the node. What was lost never ends, so nobody waits for that long."""
    how = {"peace_s": 2.0, "effects_between": (200, 300)}
    siege = asyncio.run(besiege(tmp_path, {"node": 3}, module="tests.fault.kill.early_ack", **how))

    broken = siege.judge()
    kinds = {violation.split()[0] for violation in broken}
    print("\n".join(broken[:20]))
    assert "I1" in kinds  # creates that were acknowledged do not exist
    assert "I4" in kinds  # steps ran again after a later one had begun
    assert "I16" not in kinds
