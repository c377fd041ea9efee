"""The README's Worker and workflow are run as they stand there, and its two commands exist as written."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.dev_node import DevNode, stellwerk
from tests.docs.pages import ROOT, blocks

README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The Worker of the README, written to files by a reader who copies."""
    (configuration,) = blocks(README, "jsonc")
    (program,) = blocks(README, "python")
    folder = tmp_path / "hello"
    (folder / "src").mkdir(parents=True)
    (folder / "wrangler.jsonc").write_text(configuration)
    (folder / "src" / "entry.py").write_text(program)
    return folder


def test_the_program_has_twenty_lines() -> None:
    (program,) = blocks(README, "python")
    assert len([line for line in program.splitlines() if line]) <= 20


def test_the_worker_and_the_workflow_do_what_the_readme_says(hello: Path) -> None:
    shown = "\n".join(blocks(README, "console"))
    with DevNode(hello, hello / ".stellwerk" / "state") as node:
        table = node.output.partition("Ready on")[0].rstrip()
        assert table in shown, f"the README shows another table than:\n{table}"
        answer = node.get("/")
        assert (answer.status_code, list(answer.json())) == (202, ["id"])
        words = "workflows instances describe greeting latest --state .stellwerk/state --json"
        described = until_complete(stellwerk(*words.split()), hello)
        assert described["output"] == "Hello, Ada!"
        assert "output\tHello, Ada!" in shown
    assert node.stop() == 0


def until_complete(command: list[str], folder: Path) -> dict[str, object]:
    for _ in range(100):  # each is a process that asks once; the run sleeps for a second
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        described: dict[str, object] = json.loads(done.stdout)
        if described["status"] == "complete":
            return described
    raise AssertionError(f"never complete: {described}")


def test_the_two_commands_are_written_as_they_are_typed() -> None:
    (commands,) = blocks(README, "sh")
    assert re.findall(r"^(make \w+) ", commands, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("limitation", ["Durable Objects", "queues", "KV", "cron", "WebSockets", "level *floor*"])
def test_what_does_not_work_is_said(limitation: str) -> None:
    missing = README.partition("## What does not work yet")[2].partition("\n## ")[0]
    assert limitation in missing
