"""Compares what the outside world wrote down with what the pipeline says, order by order.

Three witnesses that know nothing of each other:

- the *answers*: what the client was told when it posted each order;
- the *ledger* of the outside server: what was charged, refunded, shipped and sent, in its own file;
- the *journal*: each run as the control plane describes it.

This module imports nothing but the standard library, and asks nobody: it takes the three and returns every
contradiction, each with the order's id. The demo ends with 0 only if there is none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ACCEPTED = frozenset({202, 409})  # 409: an earlier post of the same order arrived, and its answer was lost
TERMINAL = frozenset({"complete", "errored", "terminated"})

Record = Mapping[str, Any]
Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one line of the input: the order, what it was made to be, and the gateway's last word."""

    order: Mapping[str, Any]
    kind: str  # good, declined, invalid, sold_out, malformed
    status: int

    @property
    def id(self) -> str:
        return str(self.order.get("id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A contradiction."""

    order: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.order}: {self.text} [{self.rule}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that the witnesses say about one accepted order."""

    answer: Answer
    run: Run
    charges: Sequence[Record]
    refunds: Sequence[Record]
    notices: Sequence[Record]
    shipped: Sequence[Record]

    @property
    def status(self) -> str:
        return str(self.run["status"])


@dataclass(slots=True, kw_only=True)
class Report:
    """The verdict: how many orders ended in which way, and every contradiction."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def reconcile(answers: Iterable[Answer], ledger: Iterable[Record], runs: Mapping[str, Run]) -> Report:
    """Holds the three witnesses against each other. ``runs`` has every run of the workflow, by its id."""
    report = Report()
    records: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in ledger:
        records[record["order"]][record["kind"]].append(record)
    accepted: dict[str, Answer] = {}
    for answer in answers:
        if answer.status in ACCEPTED:
            accepted.setdefault(answer.id, answer)
        else:
            report.outcomes["refused at the gateway"] += 1
        report.faults += _check_answer(answer)
    for order_id, answer in accepted.items():
        if order_id not in runs:
            report.faults.append(_fault(order_id, "lost", f"answered {answer.status}, but there is no run of it"))
            report.outcomes["lost"] += 1
            continue
        case = _case(answer, runs[order_id], records[order_id])
        report.outcomes[_outcome(case)] += 1
        report.faults += [fault for rule in RULES for fault in rule(case)]
    report.faults += _strangers(accepted, records, runs)
    return report


def _case(answer: Answer, run: Run, records: Mapping[str, list[Record]]) -> Case:
    return Case(
        answer=answer,
        run=run,
        charges=records.get("charge", []),
        refunds=records.get("refund", []),
        notices=records.get("notice", []),
        shipped=records.get("shipped", []),
    )


def _outcome(case: Case) -> str:
    if case.status == "complete":
        return "charged and completed"
    if case.status not in TERMINAL:
        return "unfinished"
    return "charged, refunded and errored" if case.charges else f"errored without a charge ({case.answer.kind})"


def _check_answer(answer: Answer) -> Iterator[Fault]:
    if answer.kind == "malformed" and answer.status != 400:
        yield _fault(answer.id, "answer", f"is malformed, but was answered {answer.status} instead of 400")
    if answer.kind != "malformed" and answer.status not in ACCEPTED:
        yield _fault(answer.id, "answer", f"is an order, but was answered {answer.status}")


def _is_over(case: Case) -> Iterator[Fault]:
    if case.status not in TERMINAL:
        yield _fault(case.answer.id, "unfinished", f"was accepted, but its run is still {case.status}")
    elif case.status == "terminated":
        yield _fault(case.answer.id, "terminated", "was terminated, and nobody asked for that")


def _is_charged_at_most_once(case: Case) -> Iterator[Fault]:
    if len(case.charges) > 1:
        numbers = ", ".join(charge["id"] for charge in case.charges)
        yield _fault(case.answer.id, "charged twice", f"was charged {len(case.charges)} times: {numbers}")
    if len(case.refunds) > 1:
        yield _fault(case.answer.id, "refunded twice", f"was refunded {len(case.refunds)} times")


def _completed_means_charged(case: Case) -> Iterator[Fault]:
    if case.status != "complete":
        return
    if not case.charges:
        yield _fault(case.answer.id, "not charged", "completed without a charge")
    if case.refunds:
        yield _fault(case.answer.id, "refunded", "completed, but the money went back")
    if not case.notices:
        yield _fault(case.answer.id, "not notified", "completed, but the CRM never sent the notice")
    receipt = case.run.get("output") or {}
    if case.charges and receipt.get("charge") not in {charge["id"] for charge in case.charges}:
        yield _fault(
            case.answer.id, "receipt", f"has the receipt {receipt.get('charge')}, which the ledger does not know"
        )


def _errored_means_paid_back(case: Case) -> Iterator[Fault]:
    if case.status == "errored" and len(case.charges) > len(case.refunds):
        yield _fault(case.answer.id, "not refunded", "errored after it was charged, and the money did not go back")
    if len(case.refunds) > len(case.charges):
        yield _fault(case.answer.id, "refund of nothing", "was refunded more often than it was charged")


def _amounts_agree(case: Case) -> Iterator[Fault]:
    for record in (*case.charges, *case.refunds):
        if record["amount_cents"] != case.answer.order["total_cents"]:
            total = case.answer.order["total_cents"]
            yield _fault(
                case.answer.id, "amount", f"{record['id']} is {record['amount_cents']} cents, the order {total}"
            )


def _ended_as_it_had_to(case: Case) -> Iterator[Fault]:
    if case.answer.kind == "good":
        if case.status == "errored" and not case.charges:
            yield _fault(
                case.answer.id, "no reason", f"is a good order, but failed before it was charged: {_why(case)}"
            )
    elif case.charges or case.status == "complete":
        yield _fault(case.answer.id, "must not be charged", f"is {case.answer.kind}, but ended {_outcome(case)}")


def _no_event_is_lost(case: Case) -> Iterator[Fault]:
    """An event that was acknowledged before the wait's deadline must have been taken by the wait."""
    heard = [record["at_ms"] for record in case.shipped if record["answer"] == "accepted"]
    for step in case.run.get("steps", []):
        if heard and step["type"] == "waitForEvent" and step.get("error") and min(heard) < _ms(step["end"]):
            yield _fault(case.answer.id, "event lost", "timed out, though the carrier's event had been acknowledged")


def _no_step_succeeded_twice(case: Case) -> Iterator[Fault]:
    for step in case.run.get("steps", []):
        done = sum(attempt.get("success") is True for attempt in step.get("attempts", []))
        if done > 1:
            yield _fault(case.answer.id, "step twice", f"has {done} results of the step {step['name']}")


RULES: tuple[Callable[[Case], Iterator[Fault]], ...] = (
    _is_over,
    _is_charged_at_most_once,
    _completed_means_charged,
    _errored_means_paid_back,
    _amounts_agree,
    _ended_as_it_had_to,
    _no_event_is_lost,
    _no_step_succeeded_twice,
)


def _strangers(
    accepted: Mapping[str, Answer], records: Mapping[str, Mapping[str, list[Record]]], runs: Mapping[str, Run]
) -> Iterator[Fault]:
    """Nothing may exist that nobody asked for."""
    for order_id in sorted(set(runs) - set(accepted)):
        yield _fault(order_id, "stranger", "has a run, but no order of that id was accepted")
    for order_id in sorted(set(records) - set(accepted)):
        if records[order_id].get("charge"):
            yield _fault(order_id, "stranger", "was charged, but no order of that id was accepted")


def _why(case: Case) -> str:
    return str((case.run.get("error") or {}).get("message", "no error given"))


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _fault(order: str, rule: str, text: str) -> Fault:
    return Fault(order=order, rule=rule, text=text)
