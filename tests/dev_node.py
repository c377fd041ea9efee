"""``stellwerk dev`` as a user starts it: a child process on free ports, with its output at hand."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import httpx

START_S = 30.0  # a busy machine; usually it takes about a second
STOP_S = 15.0
PAUSE_S = 0.05
READY = re.compile(r"Ready on (http://\S+)")


def stellwerk(*arguments: str | Path) -> list[str]:
    """The command line of this environment."""
    return [str(Path(sys.executable).with_name("stellwerk")), *map(str, arguments)]


class DevNode:
    """A node on the Workers of ``workspace``. ``with DevNode(...) as node``: it serves inside, and is gone after."""

    def __init__(self, workspace: Path, state: Path) -> None:
        self.state = state
        self.lines: list[str] = []
        self.url = ""
        self._news = threading.Condition()
        ports = ("--port", "0", "--control-port", "0")
        self._process = subprocess.Popen(
            stellwerk("dev", workspace, "--state", state, *ports),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> DevNode:
        self._reader.start()
        with self._news:
            self._news.wait_for(lambda: self.url or self._process.poll() is not None, START_S)
        if not self.url:
            self.stop()
            raise AssertionError(f"the node did not become ready:\n{self.output}")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line)
                    if found := READY.search(line):
                        self.url = found[1]
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=START_S)

    def until(self, path: str, status: str, *, within_s: float) -> dict[str, object]:
        """Asks ``path`` for a JSON object until its ``status`` is this one."""
        deadline = time.monotonic() + within_s
        while True:
            answer: dict[str, object] = self.get(path).raise_for_status().json()
            if answer["status"] == status:
                return answer
            assert answer["status"] in ("queued", "running", "waiting"), answer
            assert time.monotonic() < deadline, f"still {answer['status']} after {within_s} s"
            time.sleep(PAUSE_S)  # bounded by the deadline

    def stop(self) -> int:
        """Ends it as Ctrl-C does; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            if self._reader.is_alive():
                self._reader.join(STOP_S)
