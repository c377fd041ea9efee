"""Cloudflare's own examples, unmodified: the folder of ``cloudflare/python-workers-examples`` in STELLWERK_OFFICIAL.

Each example is copied as it is, without a single change, and run by ``stellwerk dev``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.dev_node import DevNode

FOLDER = os.environ.get("STELLWERK_OFFICIAL", "")
if not FOLDER:
    reason = "STELLWERK_OFFICIAL is not set: no folder of cloudflare/python-workers-examples"
    pytest.skip(reason, allow_module_level=True)

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]
DAG_S = 60.0  # its two steps sleep up to 10 and 15 seconds, one after the other at worst
Copy = Callable[[str], Path]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """``copy("01-hello")``: that example in a workspace of the test's own."""
    return lambda example: Path(shutil.copytree(Path(FOLDER) / example, tmp_path / "workspace" / example))


def test_01_hello_says_hello(copy: Copy, tmp_path: Path) -> None:
    with DevNode(copy("01-hello"), tmp_path / "state") as node:
        answer = node.get("/")
        assert (answer.status_code, answer.text) == (200, "Hello world!")


def test_10_workflows_starts_a_run_that_completes(copy: Copy, tmp_path: Path) -> None:
    with DevNode(copy("10-workflows"), tmp_path / "state") as node:
        assert "Use /start" in node.get("/").text
        started = re.fullmatch(r"Just kicked off a workflow with ID: (\S+)", node.get("/start").text)
        assert started
        ended = node.until(f"/status/{started[1]}", "complete", within_s=DAG_S)
        assert ended.get("error") is None
        assert "executing dep1" in node.output
        assert "I awaited the first two steps and now I am done" in node.output


def test_both_run_side_by_side_in_one_workspace(copy: Copy, tmp_path: Path) -> None:
    copy("01-hello")
    workspace = copy("10-workflows").parent
    with DevNode(workspace, tmp_path / "state") as node:
        table = node.output.partition("Ready on")[0]
        assert "workflow python-workflows/dag-workflow" in table
        assert "not connected" not in table
