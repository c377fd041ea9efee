"""What the index row of a run is made to say, and when: a row costs pages, so what is over in a moment is not shown."""

from __future__ import annotations

from tests.unit.workflow.builders import a_created

from stellwerk.core import limits
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.state import RunState, evolve
from stellwerk.core.workflow.status import Status
from stellwerk.node.workflow.live import LiveRun

BEGAN = 10_000
DONE = e.StepSucceeded(BEGAN, "do:a-1", "a", 1, 1, BEGAN, b"\x01", 1)
LASTS = e.AttemptStarted(BEGAN + 25, "do:b-1", "b", 1, 1)


class ARun:
    """A queued run, and what its row is made to say after further entries."""

    def __init__(self) -> None:
        state = RunState()
        evolve(state, a_created())
        self.live = LiveRun(
            account_id="local", workflow="flow", instance_id="run", incarnation=1, number=1, state=state, seq=1,
            written=Status.QUEUED, journal=None,
        )  # fmt: skip

    def row_after(self, *entries: e.AnyEntry, now_ms: int = BEGAN) -> str | None:
        for entry in entries:
            evolve(self.live.state, entry)
        update = self.live.index_update(now_ms, list(entries))
        return None if update is None else update[0]


def test_a_run_that_goes_from_step_to_step_is_not_shown_as_running_in_its_first_second() -> None:
    run = ARun()

    assert run.row_after(DONE) is None
    assert run.row_after(e.Completed(BEGAN + 5, b"\xc0"), now_ms=BEGAN + 5) == "complete"


def test_an_attempt_that_lasts_is_shown_at_once() -> None:
    run = ARun()

    assert run.row_after(DONE) is None
    assert run.row_after(LASTS, now_ms=BEGAN + 25) == "running"


def test_a_run_is_shown_as_running_when_it_has_had_results_for_a_second() -> None:
    run = ARun()
    second = e.StepSucceeded(BEGAN, "do:b-1", "b", 1, 1, BEGAN, b"\x01", 2)

    assert run.row_after(DONE) is None
    assert run.row_after(second, now_ms=BEGAN + limits.RUNNING_SHOWN_AFTER_MS) == "running"
    assert run.row_after(e.Suspended(BEGAN + 2_000, 0), now_ms=BEGAN + 2_000) == "waiting"


def test_a_run_that_wakes_is_shown_at_once_for_its_row_says_when_it_is_due() -> None:
    run = ARun()
    asleep = (e.SleepStarted(BEGAN, "sleep:nap-1", "nap", 1, BEGAN + 5_000), e.Suspended(BEGAN, BEGAN + 5_000))

    assert run.row_after(*asleep) == "waiting"
    assert run.row_after(e.SleepCompleted(BEGAN + 5_000, "sleep:nap-1", 1), now_ms=BEGAN + 5_000) == "running"


def test_what_is_shown_already_is_not_written_again() -> None:
    run = ARun()

    assert run.row_after(LASTS) == "running"
    assert run.row_after(DONE, now_ms=BEGAN + 9_000) is None
