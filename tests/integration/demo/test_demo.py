"""The demo itself, with fewer orders: it ends with 0 when all is well, and with 1 and the order's name when it is not.

A demo that could not fail would prove nothing, so each kind of sabotage is run as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

Load = Callable[[str], ModuleType]
ORDERS = 40
SHIPPING_TIMEOUT_S = 5  # the parcels that are never sent set the length of a run
LIMIT_S = 58  # the demo itself gives up after 50 s


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The demo's temporary folder goes to ``tmp_path``; when the test ends nothing of it may be left, nor running."""
    yield {**os.environ, "TMPDIR": str(tmp_path), "SABOTAGE": ""}
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.process_iter(["cmdline"]) if mentions(process, str(tmp_path))] == []


def mentions(process: psutil.Process, text: str) -> bool:
    return any(text in part for part in process.info["cmdline"] or [])


def run_demo(pipeline: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(pipeline / "demo.py"), "--orders", str(ORDERS)]
    argv += ["--shipping-timeout", str(SHIPPING_TIMEOUT_S), *options]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def victim(load: Load, pipeline: Path) -> str:
    lines = [json.loads(line) for line in (pipeline / "orders.jsonl").read_text().splitlines()]
    return str(load("demo.py").choose_victim(lines[:ORDERS]))


def test_every_order_ends_as_it_has_to_though_the_node_is_killed_twice(
    pipeline: Path, environment: dict[str, str]
) -> None:
    done = run_demo(pipeline, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All three witnesses agree." in done.stdout
    assert "2 kills" in done.stdout


@pytest.mark.parametrize(
    ("sabotage", "rule"), [("double-charge", "charged twice"), ("lost-order", "lost"), ("early-ack", "lost")]
)
def test_sabotage_is_found_and_the_order_named(
    load: Load, pipeline: Path, environment: dict[str, str], sabotage: str, rule: str
) -> None:
    done = run_demo(pipeline, {**environment, "SABOTAGE": sabotage})
    assert done.returncode == 1, done.stdout + done.stderr
    complaints = [line for line in done.stdout.splitlines() if "WRONG" in line]
    named = [line for line in complaints if f" {victim(load, pipeline)}:" in line and f"[{rule}]" in line]
    assert named, done.stdout
    if sabotage != "early-ack":  # which may lose its neighbours too
        assert complaints == named


def test_ctrl_c_stops_everything(pipeline: Path, environment: dict[str, str]) -> None:
    argv = [sys.executable, str(pipeline / "demo.py"), "--orders", str(ORDERS)]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("answered" in line for line in demo.stdout)  # the node is up and orders are on their way
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 130
    assert "interrupted" in rest


def test_an_unknown_sabotage_is_refused(pipeline: Path, environment: dict[str, str]) -> None:
    done = run_demo(pipeline, environment, "--sabotage", "arson")
    assert done.returncode == 2
    assert "double-charge" in done.stderr
