"""``make bench``: every scenario in three alternating rounds, the medians against their bars, and a record of it all.

    python bench/run.py [SCENARIO ...] [--rounds N]

Writes ``bench/results/<commit>.json`` with every round, the machine and its load, and prints a table. The exit code is
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import scenarios
from nodes import circumstances

SCENARIOS: dict[str, Callable[[], dict[str, float]]] = {
    "hello": scenarios.hello,
    "steps": scenarios.steps,
    "latency": scenarios.latency,
    "loaded": scenarios.loaded,
    "growth": scenarios.growth,
    "replay": scenarios.replay,
}
ONCE = {"growth"}  # takes minutes, and has no yardstick to alternate with
BARS: dict[tuple[str, str], Callable[[dict[str, float]], tuple[str, bool]]] = {
    ("hello", "ratio"): lambda f: (">= 1.0", f["ratio"] >= 1.0),
    ("hello", "p99_ratio"): lambda f: ("<= 2", f["p99_ratio"] <= 2),
    ("steps", "ratio_64"): lambda f: (">= 0.3", f["ratio_64"] >= 0.3),
    ("latency", "one_p50_ms"): lambda f: (
        "<= 1.5, or 5 commits",
        f["one_p50_ms"] <= 1.5 or f["one_p50_in_commits"] <= 5,
    ),
    ("latency", "one_commits"): lambda f: ("<= 3", f["one_commits"] <= 3.02),
    ("latency", "hundred_p50_ms"): lambda f: ("<= 10", f["hundred_p50_ms"] <= 10),
    ("loaded", "one_p99_ms"): lambda f: ("<= 25", f["one_p99_ms"] <= 25),
    ("loaded", "ratio"): lambda f: (">= 0.5", f["ratio"] >= 0.5),
    ("growth", "rss_mib_10000"): lambda f: ("<= 100", f["rss_mib_10000"] <= 100),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    where = circumstances()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in given.scenarios}
    for number in range(given.rounds):
        for name in given.scenarios:
            if number and name in ONCE:
                continue
            print(f"round {number + 1}: {name} ...", file=sys.stderr, flush=True)
            rounds[name].append(SCENARIOS[name]())
    medians = {
        name: {key: statistics.median(round[key] for round in taken) for key in taken[0]}
        for name, taken in rounds.items()
    }
    missed = report(medians)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    record = {"where": where, "load_after": circumstances()["load"], "medians": medians, "rounds": rounds}
    (folder / f"{where['commit']}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{where['machine']}, Python {where['python']}, commit {where['commit']}, load {where['load']}")
    return 1 if missed else 0


def report(medians: dict[str, dict[str, float]]) -> int:
    missed = 0
    for name, figures in medians.items():
        print(f"\n{name}")
        for key, value in figures.items():
            bar = BARS.get((name, key))
            verdict = ""
            if bar is not None:
                text, met = bar(figures)
                missed += not met
                verdict = f"   {'met' if met else 'MISSED'}: {text}"
            print(f"  {key:<24}{value:>14,.2f}{verdict}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
