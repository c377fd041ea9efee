"""The tutorial is true: each command in it is run, in order, and says what the page says it says.

Blocks tagged ``console`` have commands after ``$`` and what they print below. In the expected text ``...`` stands for
anything, within a line or for whole lines, and runs of blanks count as one. ``console background`` starts a program and
waits for its last line; ``console repeat`` is for "ask until it looks like this". Ports are replaced by free ones.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```console(?: (background|repeat))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("8787", "8788", "9090")
PATIENCE_S = 30.0
PAUSE_S = 0.1
STOP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    text: str
    expected: str
    mode: str  # "", "background" or "repeat"


def parse_commands(page: str) -> list[Command]:
    found = []
    for mode, body in BLOCK.findall(page):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            text, _, expected = part.partition("\n")
            found.append(Command(text=text, expected=expected, mode=mode))
    return found


def is_as_expected(expected: str, printed: str) -> bool:
    """Line by line; a line of ``...`` stands for any number of lines."""
    pattern = ""
    for line in expected.rstrip("\n").split("\n"):
        if line == "...":
            pattern += r"(?:.*\n)*"
            continue
        words = re.split(r"(\.\.\.| +)", line.strip())
        pattern += "".join(".*" if w == "..." else r"[ ]+" if w and w.isspace() else re.escape(w) for w in words)
        pattern += r" *\n"
    return (
        expected == ""
        or re.fullmatch(pattern, "".join(f"{line.strip()}\n" for line in printed.replace("\t", " ").splitlines()))
        is not None
    )


@pytest.mark.parametrize(
    ("expected", "printed", "fits"),
    [
        ("", "anything", True),
        ("a b\n", "a   b\n", True),
        ("a  b\n", "a\tb\n", True),  # a table, and how it is printed into a pipe
        ("a\n", "a\nb\n", False),
        ("a\n...\n", "a\nb\nc\n", True),
        ("...\nc\n", "a\nb\nc\n", True),
        ("...\nc\n", "a\nb\nd\n", False),
        ('{..."x": 1}\n', '{"y": 2, "x": 1}\n', True),
        ('{"x": 1...}\n', '{"y": 1}\n', False),
    ],
)
def test_expected_text_is_compared_as_announced(expected: str, printed: str, fits: bool) -> None:
    assert is_as_expected(expected, printed) == fits


class Background:
    """A program of the tutorial that keeps running; its output is collected by a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, expected: str) -> None:
        last = expected.splitlines()[-1]

        def seen() -> bool:
            return any(last in line for line in self.lines)

        with self._news:
            self._news.wait_for(lambda: seen() or self._ended, PATIENCE_S)
            assert seen(), f"never printed {last!r}, but:\n{''.join(self.lines)}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(STOP_S)


class Terminal:
    """Where the tutorial's reader sits: a copy of the example, and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder / "order-pipeline" / "workers"
        ignored = shutil.ignore_patterns(".dev.vars", "ledger.jsonl", ".stellwerk", "__pycache__")
        shutil.copytree(ROOT / "examples" / "order-pipeline", self.cwd.parent, ignore=ignored)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "COLUMNS": "400"}
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.background: list[Background] = []
        for example in self.cwd.glob("*/.dev.vars.example"):
            example.write_text(self.on_my_ports(example.read_text()))

    def on_my_ports(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: self.ports[found[0]], text)

    def run(self, command: Command) -> None:
        text, expected = self.on_my_ports(command.text), self.on_my_ports(command.expected)
        if command.mode == "background":
            self.start(text).wait_for(expected)
            return
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(
                ["bash", "-c", text], cwd=self.cwd, env=self.environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 0 and is_as_expected(expected, done.stdout):
                return
            if command.mode != "repeat" or time.monotonic() > deadline:
                pytest.fail(f"$ {text}\n{done.stdout}{done.stderr}\nexit code {done.returncode}; expected:\n{expected}")
            time.sleep(PAUSE_S)  # a reader who asks again; bounded by the deadline

    def start(self, text: str) -> Background:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {text}"],
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.background.append(Background(process))
        return self.background[-1]

    def close(self) -> None:
        for program in reversed(self.background):
            program.stop()


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [str(free.getsockname()[1]) for free in sockets]
    finally:
        for free in sockets:
            free.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_each_command_of_the_tutorial_works_and_prints_what_the_page_says(terminal: Terminal) -> None:
    commands = parse_commands(TUTORIAL.read_text())
    assert len(commands) > 20
    for command in commands:
        terminal.run(command)


def test_the_tutorial_has_the_six_steps() -> None:
    steps = re.findall(r"^## (\d)\. ", TUTORIAL.read_text(), re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5", "6"]
