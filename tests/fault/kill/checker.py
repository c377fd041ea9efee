"""The judge: did a run of the kill test keep every promise? It imports nothing of Stellwerk and looks at files only.

    python checker.py FOLDER

``clients.jsonl``: what the clients asked and were told (``op``, ``id``, ``phase`` invoke | ok | fail | unknown, ``at``)
and what they read (``phase`` read). A create that leaves the id to the node is asked for under a word of the client's,
which stands in the params as well (``phase`` ask), and acknowledged under the id. ``ledger.jsonl``: the effects, as the
outside world saw them. ``faults.jsonl``: what was killed, between which two moments, and what was under way.
``final.jsonl``: each instance as the control API showed it after the end. ``plan.json``: the stages of the program, and
where it sleeps. All times are CLOCK_MONOTONIC of one machine, so they can be compared.

Each rule below is one function and yields a sentence per violation. The numbers are those of the invariants in
``docs/reliability.md``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

TERMINAL = {"complete", "errored", "terminated"}
SUCCESS_SHARE_MIN = 0.5
CLOCK_GRAIN_S = 0.002  # wall clocks are kept in whole milliseconds, at both ends of a sleep

Record = dict[str, Any]


@dataclass
class History:
    """Everything that is known about one run of the test."""

    plan: Record
    clients: list[Record]
    ledger: list[Record]
    faults: list[Record]
    final: list[Record]
    effects: dict[tuple[str, str], list[Record]] = field(init=False)
    ended: dict[str, Record] = field(init=False)

    def __post_init__(self) -> None:
        self.effects = defaultdict(list)
        for effect in sorted(self.ledger, key=lambda effect: float(effect["at"])):
            self.effects[effect["instance"], effect["step"]].append(effect)
        self.ended = {instance["id"]: instance for instance in self.final}

    def asked(self, op: str, *phases: str) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.clients:
            if record["op"] == op and record["phase"] in phases:
                found[record["id"]].append(record)
        return found

    def stage(self, instance: str, number: int) -> list[Record]:
        return [effect for step in self.plan["stages"][number] for effect in self.effects.get((instance, step), ())]

    def crash_between(self, one: Record, two: Record) -> bool:
        """Whether what made effect ``one`` was lost before ``two``: its own isolate, the node, or the record of it."""
        return any(
            fault["kind"] != "pause"
            and fault["from"] <= two["at"]
            and fault["to"] >= one["at"]
            and fault.get("isolate") in (None, one["isolate"])
            for fault in self.faults
        )


def read_history(folder: Path) -> History:
    def lines(name: str) -> list[Record]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    plan = json.loads((folder / "plan.json").read_text())
    return History(plan, lines("clients.jsonl"), lines("ledger.jsonl"), lines("faults.jsonl"), lines("final.jsonl"))


def steps_of(instance: Record) -> dict[str, Record]:
    """Steps of a described instance by the name that the program gave them: the API appends the count."""
    return {step["name"].removesuffix("-1"): step for step in instance["steps"] if step["type"] == "step"}


# -- the rules --------------------------------------------------------------------------------------------------------


def created_means_ended(history: History) -> Iterator[str]:
    """I1: an acknowledged create exists and has reached one terminal state: with this program, ``complete``."""
    for instance in history.asked("create", "ok"):
        found = history.ended.get(instance)
        if found is None:
            yield f"I1 {instance}: its creation was acknowledged, and it does not exist"
        elif found["status"] != "complete":
            yield f"I1 {instance}: ended as {found['status']}, not complete: {found.get('error')}"
    for op in ("event", "describe"):
        for instance, records in history.asked(op, "fail").items():
            if any(record["status"] == 404 for record in records):
                yield f"I1 {instance}: its creation was acknowledged, and then ({op}) the node did not know it"


def ends_stay(history: History) -> Iterator[str]:
    """I2: a terminal state that somebody has read is the one that is there at the end, output and all."""
    for instance, reads in history.asked("describe", "read").items():
        found = history.ended.get(instance)
        for read in reads:
            seen = read["found"]
            if found is None:
                yield f"I2 {instance}: was read as {seen['status']}, and does not exist"
            elif seen["status"] in TERMINAL and (seen["status"], seen["output"]) != (found["status"], found["output"]):
                yield f"I2 {instance}: was {seen['status']} {seen['output']}, is {found['status']} {found['output']}"


def results_come_from_the_world(history: History) -> Iterator[str]:
    """I3: what is recorded of a step is what an attempt of it returned that the ledger has seen."""
    for instance in history.final:
        recorded = {name: step["output"] for name, step in steps_of(instance).items() if step["success"]}
        for name, value in recorded.items():
            if value not in [effect["value"] for effect in history.effects.get((instance["id"], name), ())]:
                yield f"I3 {instance['id']}: step {name} is recorded as {value}, which the ledger never saw"
        if instance["status"] == "complete":
            wanted = {step for stage in history.plan["stages"] for step in stage}
            told = {name: value for name, value in instance["output"].items() if name in wanted}
            if told != {name: recorded.get(name) for name in wanted}:
                yield f"I3 {instance['id']}: its output {told} is not what its steps recorded: {recorded}"


def results_stay(history: History) -> Iterator[str]:
    """I3: a result that was once seen, by a reader or by a later step of the program, never changes."""
    final = {
        (instance["id"], name): step["output"]
        for instance in history.final
        for name, step in steps_of(instance).items()
        if step["success"]
    }
    for instance, reads in history.asked("describe", "read").items():
        for read in reads:
            for name, step in steps_of(read["found"]).items():
                if step["success"] and final.get((instance, name)) != step["output"]:
                    yield f"I3 {instance}: step {name} was read as {step['output']}, is {final.get((instance, name))}"
    for effect in history.ledger:
        for name, value in effect["seen"].items():
            if final.get((effect["instance"], name)) != value:
                yield f"I3 {effect['instance']}: {effect['step']} saw {name} as {value}, it is not recorded so"


def finished_steps_rest(history: History) -> Iterator[str]:
    """I4: once a step of the next stage has begun, every step of this one is recorded and never runs again."""
    for instance in {instance for instance, _ in history.effects}:
        for number in range(1, len(history.plan["stages"])):
            later = history.stage(instance, number)
            if not later:
                continue
            begun = min(effect["at"] for effect in later)
            earlier = history.stage(instance, number - 1)
            if {effect["step"] for effect in earlier} != set(history.plan["stages"][number - 1]):
                yield f"I4 {instance}: stage {number} began before every step of the one before it had run"
            for effect in earlier:
                if effect["at"] > begun:
                    late = (effect["at"] - begun) * 1000
                    yield f"I4 {instance}: {effect['step']} ran again {late:.1f} ms after stage {number} had begun"


def repeats_are_explained(history: History) -> Iterator[str]:
    """I5: between two effects of one step lies a crash that overlaps it, or the first of them failed on purpose."""
    for (instance, step), effects in history.effects.items():
        for one, two in pairwise(effects):
            if one["fails"] or history.crash_between(one, two):
                continue
            yield f"I5 {instance}: {step} ran again after {two['at'] - one['at']:.3f} s, and its isolate was not killed"


def attempts_count_up(history: History) -> Iterator[str]:
    """I5: attempts of a step are numbered upwards, and one that failed with nothing killed is followed by the next."""
    for (instance, step), effects in history.effects.items():
        for one, two in pairwise(effects):
            crashed = history.crash_between(one, two)
            if two["attempt"] < one["attempt"] or (not crashed and two["attempt"] != one["attempt"] + 1):
                yield f"I5 {instance}: attempt {two['attempt']} of {step} came after attempt {one['attempt']}"


def nothing_unasked(history: History) -> Iterator[str]:
    """I6: every instance belongs to one create that somebody has asked for, and every effect to an instance."""
    named, nameless = history.asked("create", "invoke"), history.asked("create", "ask")
    made: set[str] = set()
    for instance in history.ended.keys() - named.keys():
        word = history.ended[instance]["params"].get("ask")
        if word not in nameless:
            yield f"I6 {instance}: exists, and nobody asked for it"
        elif word in made:
            yield f"I6 {instance}: exists, and {word} asked for one instance"
        made.add(word)
    for instance in {instance for instance, _ in history.effects} - history.ended.keys():
        yield f"I6 {instance}: has effects, and does not exist"


def sleeps_last(history: History) -> Iterator[str]:
    """I10: no step after the sleep begins before the steps before it plus the time it was to sleep."""
    number = history.plan["nap_before_stage"]
    for instance, found in history.ended.items():
        before, after = history.stage(instance, number - 1), history.stage(instance, number)
        if before and after:
            slept = min(effect["at"] for effect in after) - max(effect["at"] for effect in before)
            if slept < found["params"]["nap_ms"] / 1000 - CLOCK_GRAIN_S:
                yield f"I10 {instance}: woke after {slept:.3f} s of {found['params']['nap_ms']} ms"


def events_arrive(history: History) -> Iterator[str]:
    """I11: the run got an event that was sent to it, and none went to another one."""
    sent = history.asked("event", "invoke")
    for instance in history.final:
        if instance["status"] == "complete" and "event" in instance["output"]:
            payloads = [record["params"] for record in sent.get(instance["id"], ())]
            if instance["output"]["event"] not in payloads:
                yield f"I11 {instance['id']}: got {instance['output']['event']}, sent was {payloads}"


def old_isolates_are_gone(history: History) -> Iterator[str]:
    """When a node says that it is ready, no isolate of the node before it acts any more."""
    for fault in history.faults:
        if fault["kind"] != "node":
            continue
        old = {effect["isolate"] for effect in history.ledger if effect["at"] < fault["from"]}
        for effect in history.ledger:
            if effect["at"] > fault["to"] and effect["isolate"] in old:
                yield f"isolate {effect['isolate']} outlived its node and acted for {effect['instance']}"


def the_run_counts(history: History) -> Iterator[str]:
    """I16: half of the calls succeeded, and every kill hit something that was under way."""
    phases = Counter(record["phase"] for record in history.clients if record["op"] in ("create", "event"))
    calls = phases["invoke"] + phases["ask"]
    if phases["ok"] < SUCCESS_SHARE_MIN * calls or not phases["ok"]:
        yield f"I16 only {phases['ok']} of {calls} calls succeeded: this run proves nothing"
    killed = Counter(fault["kind"] for fault in history.faults)
    for kind, wanted in history.plan["faults"].items():
        if killed[kind] < wanted:
            yield f"I16 {killed[kind]} times {kind}, {wanted} were to be: this run proves nothing"
    acknowledged = {instance: records[0]["at"] for instance, records in history.asked("create", "ok").items()}
    last = {instance: max(e["at"] for e in history.stage(instance, -1)) for instance in _with_last_stage(history)}
    for fault in history.faults:
        hit = [i for i, at in acknowledged.items() if at < fault["from"] and last.get(i, fault["to"]) >= fault["from"]]
        if not hit or not fault["load"]:
            yield f"I16 the fault {fault['kind']} at {fault['from']:.3f} hit nothing that was under way"


def _with_last_stage(history: History) -> set[str]:
    return {instance for instance, step in history.effects if step in history.plan["stages"][-1]}


RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    created_means_ended, ends_stay, results_come_from_the_world, results_stay, finished_steps_rest,
    repeats_are_explained, attempts_count_up, nothing_unasked, sleeps_last, events_arrive, old_isolates_are_gone,
    the_run_counts,
)  # fmt: skip


def check(history: History) -> list[str]:
    """Every violation, in words. Empty: all promises kept, and the run counts."""
    return [violation for rule in RULES for violation in rule(history)]


def main(folder: Path) -> int:
    history = read_history(folder)
    violations = check(history)
    repeats = sum(len(effects) - 1 - sum(e["fails"] for e in effects) for effects in history.effects.values())
    print(
        f"{len(history.final)} instances, {len(history.ledger)} effects, {len(history.faults)} faults, "
        f"{max(repeats, 0)} effects repeated, {len(violations)} violations"
    )
    print("\n".join(violations))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
