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
from tests.fault.kill.node_process import LedgerProcess, NodeProcess
from tests.fault.kill.siege import Siege
from tests.fault.kill.worker import write_workspace

LONG = [pytest.mark.fault, pytest.mark.timeout(1_800)]


async def besiege(folder: Path, kills: dict[str, int], *, module: str = "stellwerk.node", **how: Any) -> Siege:
    seed = int(os.environ.get("STELLWERK_KILL_SEED", secrets.randbelow(1_000_000)))
    print(f"seed {seed}: repeat with STELLWERK_KILL_SEED={seed}")
    async with LedgerProcess(folder / "ledger.jsonl") as ledger:
        write_workspace(folder / "workspace", ledger.url)
        node = NodeProcess(folder / "workspace", folder / "state", module=module)
        siege = Siege(folder, node, ledger, seed, kills, **how)
        try:
            await node.start()
            await siege.run()
        except BaseException:
            print("\n".join(node.log))
            raise
        finally:
            await node.close()
    return siege


@pytest.mark.parametrize(
    "kills", [{"isolate": 10, "node": 10}, pytest.param({"isolate": 100, "node": 100}, marks=LONG)], ids=["10", "100"]
)
def test_nothing_acknowledged_is_lost_and_nothing_recorded_changes_however_often_processes_die(
    tmp_path: Path, kills: dict[str, int]
) -> None:
    siege = asyncio.run(besiege(tmp_path, kills))

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
