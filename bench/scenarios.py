"""The measurements. Each returns figures; a yardstick is measured in the same round, so that their ratio counts."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import apsw
import ceiling
from nodes import Node, a_node

WRK = ["wrk", "-t1", "-c64", "--latency"]
UVICORN_APP = """
async def app(scope, receive, send):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"12")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello world!"})
"""
BODY_BYTES = len(b"Hello world!")


def wrk(url: str, seconds: float) -> dict[str, float]:
    """Requests/s and p99 in ms. Refuses a run with an answer that is not 2xx, or one that is too short."""
    text = subprocess.run([*WRK, f"-d{int(seconds)}s", url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{url} answered badly:\n{text}")
    total = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    read, unit = re.search(r"([\d.]+)([KMG]?B) read", text).groups()  # type: ignore[union-attr]
    read_bytes = float(read) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[unit]
    if read_bytes < total * BODY_BYTES:
        raise RuntimeError(f"{url} sent short bodies:\n{text}")
    value, scale = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return {
        "requests_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        "p99_ms": float(value) * {"us": 0.001, "ms": 1, "s": 1000}[scale],
    }


def hello(seconds: float = 4) -> dict[str, float]:
    """Hello through ingress and isolate, beside a bare uvicorn ASGI app."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare.py").write_text(UVICORN_APP)
        command = [
            "-m",
            "uvicorn",
            "bare:app",
            "--port",
            "0",
            "--no-access-log",
            "--loop",
            "uvloop",
            "--http",
            "httptools",
        ]
        bare = subprocess.Popen([sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, text=True)
        try:
            assert bare.stderr is not None
            for line in bare.stderr:
                found = re.search(r"running on (http://\S+)", line)
                if found:
                    break
            wrk(found[1], 1)
            yardstick = wrk(found[1], seconds)
        finally:
            bare.kill()
            bare.wait()
            bare.stderr.close()
    with a_node() as node:
        wrk(node.url, 1)
        ours = wrk(node.url, seconds)
    return {
        "requests_s": ours["requests_s"],
        "p99_ms": ours["p99_ms"],
        "uvicorn_requests_s": yardstick["requests_s"],
        "uvicorn_p99_ms": yardstick["p99_ms"],
        "ratio": ours["requests_s"] / yardstick["requests_s"],
        "p99_ratio": ours["p99_ms"] / yardstick["p99_ms"],
    }


def steps_per_second(node: Node, in_flight: int, runs: int) -> float:
    """From the journal's own times, between the first and the last tenth of the runs, seen from outside."""
    workflow = f"ten-{in_flight}"
    before = node.sql("SELECT coalesce(max(run), 0) FROM instance")[0][0]
    node.create_many(workflow, runs - 1)
    node.create_and_wait(workflow)
    while True:  # the last one created need not be the last one to end
        left = node.sql(f"SELECT count(*) FROM instance WHERE run > {before} AND status != 'complete'")[0][0]
        if not left:
            break
        time.sleep(0.02)
    times = node.sql(
        f"SELECT at, count(*) FROM journal WHERE run > {before} AND seq BETWEEN 1 AND 10 GROUP BY at ORDER BY at"
    )
    created = node.sql(f"SELECT max(at) FROM journal WHERE run > {before} AND seq = 0")[0][0]
    quiet = [row for row in times if row[0] > created] or times
    if len(quiet) < 20:  # everything ran while it was created
        quiet = times
    quiet = quiet[len(quiet) // 10 : len(quiet) * 9 // 10]
    return sum(count for _, count in quiet[1:]) / ((quiet[-1][0] - quiet[0][0]) / 1000)


def steps(seconds: float = 3) -> dict[str, float]:
    """Durable steps per second of ten-step workflows, beside the ceiling."""
    figures: dict[str, float] = {}
    with a_node() as node:
        steps_per_second(node, 64, 500)  # warm
        for in_flight, runs in ((1, 400), (16, 3_000), (64, 10_000), (256, 10_000)):
            figures[f"steps_s_{in_flight}"] = steps_per_second(node, in_flight, runs)
            figures[f"ceiling_s_{in_flight}"] = ceiling.measure(in_flight, seconds)
            figures[f"ratio_{in_flight}"] = figures[f"steps_s_{in_flight}"] / figures[f"ceiling_s_{in_flight}"]
    return figures


class Commits:
    """The machine's smallest durable commit: one row, in a database of its own."""

    def __init__(self, folder: str) -> None:
        self._db = apsw.Connection(f"{folder}/db")
        for pragma in ("journal_mode = wal", "synchronous = full"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, value BLOB)")

    def times_ms(self, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            begin = time.perf_counter()
            self._db.execute("INSERT INTO row (value) VALUES (?)", (b"x" * 60,))
            taken.append((time.perf_counter() - begin) * 1000)
        return taken


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def times_ms(node: Node, workflow: str, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        node.create_and_wait(workflow)
        taken.append((time.perf_counter() - begin) * 1000)
    return taken


def latency() -> dict[str, float]:
    """Create to seen complete, over the control plane, one at a time; commits on that path.

    The yardstick is taken in turns with what it measures, ten and ten: the machine's speed drifts, and
    a disk that is asked without a pause answers sooner than one that is asked by a program that does something else.
    """
    with a_node() as node, tempfile.TemporaryDirectory() as folder:
        yardstick = Commits(folder)
        times_ms(node, "one", 50)
        commits = node.metric("stellwerk_commits_total")
        one, commit_ms = [], []
        for _ in range(40):
            one += times_ms(node, "one", 10)
            commit_ms += yardstick.times_ms(10)
        commits = (node.metric("stellwerk_commits_total") - commits) / len(one)
        times_ms(node, "hundred", 5)
        hundred = times_ms(node, "hundred", 60)
        bare = []
        for _ in range(300):  # what the two HTTP ends alone take: a call that decides nothing
            begin = time.perf_counter()
            node.api.ask("GET", "/healthz")
            bare.append((time.perf_counter() - begin) * 1000)
    commit = statistics.median(commit_ms)
    p50 = statistics.median(one)
    return {
        "one_p50_ms": p50,
        "one_p99_ms": percentile(one, 0.99),
        "one_commits": commits,
        "commit_p50_ms": commit,
        "one_p50_in_commits": p50 / commit,
        "bare_call_p50_ms": statistics.median(bare),
        "hundred_p50_ms": statistics.median(hundred),
    }


def loaded(seconds: float = 6) -> dict[str, float]:
    """The same two while 64 keep-alive connections ask for hello."""
    with a_node() as node:
        steps_per_second(node, 64, 500)
        times_ms(node, "one", 50)
        quiet = steps_per_second(node, 64, 6_000)
        results: list[dict[str, float]] = []

        def load() -> None:
            results.append(wrk(node.url, seconds))

        thread = threading.Thread(target=load)
        thread.start()
        end = time.monotonic() + seconds / 2
        one = []
        while time.monotonic() < end:
            one += times_ms(node, "one", 10)
        thread.join()
        thread = threading.Thread(target=load)
        thread.start()
        busy = steps_per_second(node, 64, 6_000)
        thread.join()
    return {
        "one_p50_ms": statistics.median(one),
        "one_p99_ms": percentile(one, 0.99),
        "steps_s_quiet": quiet,
        "steps_s_loaded": busy,
        "ratio": busy / quiet,
        "hello_requests_s": statistics.mean(result["requests_s"] for result in results),
    }


def growth(sizes: tuple[int, ...] = (1_000, 10_000, 100_000)) -> dict[str, float]:
    """Sleeping runs: how fast they are made, what the node's memory is, how long a restart takes."""
    figures: dict[str, float] = {}
    for size in sizes:
        with a_node() as node:
            begin = time.perf_counter()
            node.create_many("sleeper", size)
            created = time.perf_counter() - begin
            while node.sql("SELECT count(*) FROM instance WHERE status = 'waiting'")[0][0] < size:
                time.sleep(0.05)
            asleep = time.perf_counter() - begin
            figures[f"create_s_{size}"] = size / created
            figures[f"asleep_s_{size}"] = size / asleep
            figures[f"rss_mib_{size}"] = node.rss_mib
            figures[f"tree_rss_mib_{size}"] = node.tree_rss_mib
            node.api.close()
            node.process.kill()
            node.process.wait()
            begin = time.perf_counter()
            node.start()
            figures[f"restart_s_{size}"] = time.perf_counter() - begin
    return figures


def replay() -> dict[str, float]:
    """A run of a thousand steps is parked, then woken by an event: replayed from the top."""
    with a_node() as node:
        node.api.call("POST", "/thousand/instances", {"instance_id": "long"})
        while node.sql("SELECT status FROM instance WHERE instance_id = 'long'") != [("waiting",)]:
            time.sleep(0.05)
        time.sleep(1.5)  # it lingers in memory for a second before it is parked
        begin = time.perf_counter()
        node.api.call("POST", "/thousand/instances/long/events/go", {})
        while node.sql("SELECT status FROM instance WHERE instance_id = 'long'") != [("complete",)]:
            time.sleep(0.002)
        return {"replay_1000_ms": (time.perf_counter() - begin) * 1000}
