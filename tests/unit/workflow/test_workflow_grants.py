"""An attempt that may begin is granted until it has begun, whatever happened between the record and the isolate."""

from __future__ import annotations

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision, Grant
from stellwerk.core.workflow.machine import advance
from stellwerk.core.workflow.state import from_journal
from stellwerk.core.workflow.steps import DEFAULT_CONFIG

CREATED = e.Created(1, b"", "w", "v", "C", "api", {}, 100)
FAILED = e.AttemptFailed(5, "do:charge-1", "charge", 1, 1, 4, e.ErrorValue("Error", "no"), 10)


def test_a_retry_that_fell_due_without_an_isolate_is_granted_when_the_next_isolate_asks_for_it() -> None:
    state = from_journal([CREATED, FAILED])
    due = Decision()
    advance(state, i.TimerFired(), now_ms=10, out=due)
    assert [type(entry) for entry in due.entries] == [e.AttemptStarted]  # recorded; its grant reaches nobody

    asked = Decision()
    request = i.StepRequested(1, "do:charge-1", "charge", 1, 2, DEFAULT_CONFIG, False)
    advance(state, request, now_ms=11, out=asked)
    assert asked.grants == [Grant("do:charge-1", 2)]
    assert asked.entries == []
