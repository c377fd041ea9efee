"""The pages hang together: every link leads somewhere, every target of the Makefile that is named exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, anchors, pages

from stellwerk.cli.main import COMMANDS

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_something(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        linked = (page.parent / place).resolve() if place else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text("utf-8")), target


def test_every_page_is_reached_from_the_index_or_the_readme() -> None:
    reached = {
        (start.parent / target.partition("#")[0]).resolve()
        for start in (ROOT / "README.md", ROOT / "docs" / "index.md")
        for target in LINK.findall(start.read_text("utf-8"))
    }
    lost = [page for page in (ROOT / "docs").rglob("*.md") if page not in reached and page.name != "index.md"]
    assert not lost


def test_every_target_of_the_makefile_that_a_page_names_exists_and_is_in_the_help() -> None:
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make (\w+)", helped, re.MULTILINE))
    assert {"demo", "test", "lint", "types", "fault", "external", "bench", "serve", "verify", "clean"} <= targets
    named = {
        target
        for page in pages()
        for code in re.findall(r"`([^`\n]+)`|^(make .+)$", page.read_text("utf-8"), re.MULTILINE)
        for target in re.findall(r"\bmake ([a-z]+)", " ".join(code))
    }
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_command_of_ours_that_a_page_names_exists() -> None:
    nouns = {command.words[0] for command in COMMANDS}
    for page in pages():
        for noun in re.findall(
            r"`stellwerk ([a-z]+)[^`]*`|^\$ stellwerk ([a-z]+)", page.read_text("utf-8"), re.MULTILINE
        ):
            assert (noun[0] or noun[1]) in nouns, page


def test_architecture_stays_short() -> None:
    """Two pages: whoever adds a paragraph finds one that may go."""
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 140
