"""The reconciliation must see each kind of fault, and none where there is none. Hand-made witnesses."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str], ModuleType]


@pytest.fixture
def check(load: Load) -> Callable[..., Any]:
    module = load("reconcile.py")

    def run(
        *, kind: str = "good", status: int = 202, ledger: list[dict[str, Any]], run: dict[str, Any] | None
    ) -> tuple[set[str], dict[str, int]]:
        answer = module.Answer(order={"id": "A1", "total_cents": 500}, kind=kind, status=status)
        runs = {} if run is None else {"A1": run}
        report = module.reconcile([answer], ledger, runs)
        assert all(fault.order == "A1" and "A1" in str(fault) for fault in report.faults)
        return {fault.rule for fault in report.faults}, dict(report.outcomes)

    return run


def charge(number: int = 1, amount: int = 500) -> dict[str, Any]:
    return {"kind": "charge", "order": "A1", "id": f"ch_{number}", "key": f"k{number}", "amount_cents": amount}


def refund(number: int = 1, amount: int = 500) -> dict[str, Any]:
    return {"kind": "refund", "order": "A1", "id": f"re_{number}", "key": f"r{number}", "amount_cents": amount}


def shipped(at_ms: int, answer: str = "accepted") -> dict[str, Any]:
    return {"kind": "shipped", "order": "A1", "at_ms": at_ms, "answer": answer}


NOTICE = {"kind": "notice", "order": "A1"}


def completed(charge_id: str = "ch_1", steps: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"status": "complete", "output": {"charge": charge_id}, "error": None, "steps": steps or []}


def errored(steps: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"status": "errored", "output": None, "error": {"name": "E", "message": "m"}, "steps": steps or []}


def timed_out_wait() -> dict[str, Any]:
    start, end = "1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z"
    return {"type": "waitForEvent", "name": "shipping-1", "start": start, "end": end, "error": {"name": "T"}}


def test_a_completed_order_that_was_charged_once_is_in_order(check: Callable[..., Any]) -> None:
    faults, outcomes = check(ledger=[charge(), NOTICE], run=completed())
    assert faults == set()
    assert outcomes == {"charged and completed": 1}


def test_a_known_order_counts_as_accepted(check: Callable[..., Any]) -> None:
    assert check(status=409, ledger=[charge(), NOTICE], run=completed())[0] == set()


def test_a_refunded_order_that_errored_is_in_order(check: Callable[..., Any]) -> None:
    faults, outcomes = check(ledger=[charge(), refund()], run=errored())
    assert faults == set()
    assert outcomes == {"charged, refunded and errored": 1}


@pytest.mark.parametrize("kind", ["declined", "invalid", "sold_out"])
def test_an_order_that_had_to_fail_is_in_order_when_nothing_was_charged(check: Callable[..., Any], kind: str) -> None:
    faults, outcomes = check(kind=kind, ledger=[{"kind": "declined", "order": "A1", "key": "k"}], run=errored())
    assert faults == set()
    assert outcomes == {f"errored without a charge ({kind})": 1}


def test_a_malformed_order_that_was_refused_is_in_order(check: Callable[..., Any]) -> None:
    assert check(kind="malformed", status=400, ledger=[], run=None) == (set(), {"refused at the gateway": 1})


def test_a_double_charge_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge(1), charge(2), NOTICE], run=completed())[0] == {"charged twice"}


def test_a_double_refund_is_seen(check: Callable[..., Any]) -> None:
    assert "refunded twice" in check(ledger=[charge(), refund(1), refund(2)], run=errored())[0]


def test_an_accepted_order_without_a_run_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[], run=None) == ({"lost"}, {"lost": 1})


@pytest.mark.parametrize("status", ["queued", "running", "waiting", "paused"])
def test_a_run_that_is_not_over_is_seen(check: Callable[..., Any], status: str) -> None:
    faults, outcomes = check(ledger=[], run={**errored(), "status": status})
    assert faults == {"unfinished"}
    assert outcomes == {"unfinished": 1}


def test_a_terminated_run_is_seen(check: Callable[..., Any]) -> None:
    assert "terminated" in check(ledger=[], run={**errored(), "status": "terminated"})[0]


def test_a_completed_order_without_a_charge_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[NOTICE], run=completed())[0] == {"not charged"}


def test_a_completed_order_that_was_paid_back_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge(), refund(), NOTICE], run=completed())[0] == {"refunded"}


def test_a_completed_order_of_which_the_customer_heard_nothing_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge()], run=completed())[0] == {"not notified"}


def test_a_receipt_that_the_ledger_does_not_know_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge(1), NOTICE], run=completed("ch_9"))[0] == {"receipt"}


def test_money_that_did_not_go_back_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge()], run=errored())[0] == {"not refunded"}


def test_a_refund_of_nothing_is_seen(check: Callable[..., Any]) -> None:
    assert "refund of nothing" in check(ledger=[refund()], run=errored())[0]


@pytest.mark.parametrize("ledger", [[charge(amount=400), NOTICE], [charge(amount=501), NOTICE]])
def test_a_wrong_amount_is_seen(check: Callable[..., Any], ledger: list[dict[str, Any]]) -> None:
    assert check(ledger=ledger, run=completed())[0] == {"amount"}


def test_a_wrong_refund_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[charge(), refund(amount=1)], run=errored())[0] == {"amount"}


def test_a_good_order_that_failed_before_it_was_charged_is_seen(check: Callable[..., Any]) -> None:
    assert check(ledger=[], run=errored())[0] == {"no reason"}


@pytest.mark.parametrize("kind", ["declined", "invalid", "sold_out"])
def test_a_charge_of_an_order_that_had_to_fail_is_seen(check: Callable[..., Any], kind: str) -> None:
    assert check(kind=kind, ledger=[charge(), NOTICE], run=completed())[0] == {"must not be charged"}
    assert "must not be charged" in check(kind=kind, ledger=[charge(), refund()], run=errored())[0]


def test_an_acknowledged_event_that_the_run_did_not_get_is_seen(check: Callable[..., Any]) -> None:
    faults, _ = check(ledger=[charge(), refund(), shipped(1_999)], run=errored([timed_out_wait()]))
    assert faults == {"event lost"}


@pytest.mark.parametrize("event", [shipped(2_001), shipped(1_500, answer="ignored")])
def test_an_event_that_came_too_late_is_in_order(check: Callable[..., Any], event: dict[str, Any]) -> None:
    assert check(ledger=[charge(), refund(), event], run=errored([timed_out_wait()]))[0] == set()


def test_a_step_with_two_results_is_seen(check: Callable[..., Any]) -> None:
    attempt = {"success": True}
    step = {"type": "step", "name": "charge-1", "attempts": [{"success": False}, attempt, attempt]}
    assert check(ledger=[charge(), NOTICE], run=completed(steps=[step]))[0] == {"step twice"}


def test_an_order_that_was_refused_without_reason_is_seen(check: Callable[..., Any]) -> None:
    assert check(status=400, ledger=[], run=None)[0] == {"answer"}


def test_a_malformed_order_that_was_accepted_is_seen(check: Callable[..., Any]) -> None:
    assert "answer" in check(kind="malformed", status=202, ledger=[], run=errored())[0]


def test_a_run_and_a_charge_that_nobody_asked_for_are_seen(check: Callable[..., Any]) -> None:
    assert check(kind="malformed", status=400, ledger=[], run=errored())[0] == {"stranger"}
    assert check(kind="malformed", status=400, ledger=[charge()], run=None)[0] == {"stranger"}
