"""Deadlines without a clock: times are arguments."""

from __future__ import annotations

import pytest

from stellwerk.node.ingress.deadlines import Awaited, Deadline
from stellwerk.node.ingress.strict import IngressLimits

LIMITS = IngressLimits(head_timeout_ms=10, keepalive_timeout_ms=60, body_stall_timeout_ms=30, linger_ms=2)


@pytest.mark.parametrize(
    ("awaited", "limit_ms"),
    [(Awaited.HEAD, 10), (Awaited.NEXT, 60), (Awaited.BODY, 30), (Awaited.READER, 30), (Awaited.END, 2)],
)
def test_what_does_not_move_for_its_limit_has_passed_and_not_a_millisecond_before(
    awaited: Awaited, limit_ms: int
) -> None:
    deadline = Deadline()
    assert not deadline.passed(awaited, 7, 1_000, LIMITS)
    assert not deadline.passed(awaited, 7, 1_000 + limit_ms - 1, LIMITS)
    assert deadline.passed(awaited, 7, 1_000 + limit_ms, LIMITS)


def test_progress_begins_the_time_anew() -> None:
    deadline = Deadline()
    for now_ms in range(0, 1_000, 29):
        assert not deadline.passed(Awaited.BODY, now_ms, now_ms, LIMITS)


def test_waiting_for_something_else_begins_the_time_anew() -> None:
    deadline = Deadline()
    assert not deadline.passed(Awaited.NEXT, 1, 0, LIMITS)
    assert not deadline.passed(Awaited.HEAD, 1, 59, LIMITS)
    assert not deadline.passed(Awaited.NEXT, 1, 68, LIMITS)


def test_a_handler_has_all_the_time_it_wants() -> None:
    deadline = Deadline()
    assert not deadline.passed(Awaited.HANDLER, 0, 0, LIMITS)
    assert not deadline.passed(Awaited.HANDLER, 0, 10**9, LIMITS)
