"""Every status with every input: the move that the table expects, or a refusal that leaves everything as it was."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest
from tests.unit.workflow.builders import (
    ERROR,
    JOURNALLED,
    NOW,
    a_run,
    a_sleep_requested,
    a_step_done,
    a_step_failed,
    a_step_requested,
    a_step_started,
    a_wait_requested,
    picture,
)

from stellwerk.core.errors import ConflictError, IllegalTransitionError
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import ALLOWED, advance, decide
from stellwerk.core.workflow.status import MOVES, TERMINAL, Status

LATER = NOW + 3_000  # the sleep of ``a_run(status=...)`` is due

INPUTS: dict[type, Any] = {
    i.StepDone: a_step_done(),
    i.StepFailed: a_step_failed(),
    i.StepStarted: a_step_started("b"),
    i.StepRequested: a_step_requested("b"),
    i.SleepRequested: a_sleep_requested(),
    i.SleepReleased: i.SleepReleased(1, "sleep:nap-1"),
    i.WaitRequested: a_wait_requested(),
    i.RunSettled: i.RunSettled(1),
    i.RunReturned: i.RunReturned(1, b"\xc0"),
    i.RunFailed: i.RunFailed(1, ERROR),
    i.RunDiverged: i.RunDiverged(1, "another path"),
    i.Interrupted: i.Interrupted("gone"),
    i.TimerFired: i.TimerFired(),
    i.EventSent: i.EventSent("paid", b"\x01"),
    i.Terminate: i.Terminate("api"),
    i.Resume: i.Resume(),
}

# One column per status, in the order of the enumeration. Q queued, R running, W waiting, P paused, p waitingForPause,
# C complete, E errored, T terminated; "!" is refused as illegal, "c" as a conflict of the caller.
COLUMNS = [
    Status.QUEUED, Status.RUNNING, Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE,
    Status.COMPLETE, Status.ERRORED, Status.TERMINATED, Status.UNKNOWN,
]  # fmt: skip
LETTERS = dict(zip("QRWPpCET", COLUMNS, strict=False))
TABLE: dict[type, str] = {
    i.StepDone: "R R R ! p ! ! ! !",
    i.StepFailed: "R R R ! p ! ! ! !",
    i.StepStarted: "R R R ! p ! ! ! !",
    i.StepRequested: "R R R ! p ! ! ! !",
    i.SleepRequested: "R R R ! p ! ! ! !",
    i.SleepReleased: "Q R W ! p ! ! ! !",
    i.WaitRequested: "R R R ! p ! ! ! !",
    i.RunSettled: "Q R W ! p ! ! ! !",
    i.RunReturned: "C C C ! C ! ! ! !",
    i.RunFailed: "E E E ! E ! ! ! !",
    i.RunDiverged: "P P P ! P ! ! ! !",
    i.Interrupted: "Q R W ! p ! ! ! !",
    i.TimerFired: "Q R R ! p ! ! ! !",
    i.EventSent: "Q R R P p c c c !",
    i.Terminate: "T T T T T c c c !",
    i.Resume: "! ! ! Q ! ! ! ! !",
}
PAIRS = [
    pytest.param(status, kind, outcome, id=f"{status}-{kind.__name__}")
    for kind, row in TABLE.items()
    for status, outcome in zip(COLUMNS, row.split(), strict=True)
]


def members(union: Any) -> set[type]:
    return set(typing.get_args(union))


def test_no_status_and_no_input_is_forgotten() -> None:
    assert set(COLUMNS) == set(Status) == set(MOVES)
    assert set(TABLE) == set(INPUTS) == set(ALLOWED) == members(i.Input)
    assert all(type(sample) is kind for kind, sample in INPUTS.items())


@pytest.mark.parametrize(("status", "kind", "outcome"), PAIRS)
def test_an_input_leads_where_the_table_says(status: Status, kind: type, outcome: str) -> None:
    state = a_run(status=status)
    before, out = picture(state), Decision()
    if outcome in "!c":
        assert status not in ALLOWED[kind]
        with pytest.raises(ConflictError if outcome == "c" else IllegalTransitionError, match=status.value):
            _advance_or_terminate(state, kind, out)
        assert picture(state) == before
        assert (out.entries, out.completions, out.grants, out.stop, out.take_up) == ([], [], [], "", False)
        return
    assert status in ALLOWED[kind]
    advance(state, INPUTS[kind], now_ms=LATER, out=out)
    assert state.status is LETTERS[outcome]
    assert state.status is status or state.status in MOVES[status]


def _advance_or_terminate(state: Any, kind: type, out: Decision) -> None:
    try:
        advance(state, INPUTS[kind], now_ms=LATER, out=out)
    except ConflictError as error:
        if kind is i.Terminate:  # Cloudflare's text does not name the status
            assert str(error) == "(instance.cannot_terminate) Cannot terminate instance since its on a finite state"
            raise ConflictError(state.status.value) from error
        raise


@pytest.mark.parametrize(("status", "kind", "outcome"), [pair for pair in PAIRS if pair.values[2] not in ("!", "c")])
def test_to_decide_changes_nothing(status: Status, kind: type, outcome: str) -> None:
    state = a_run(status=status)
    before = picture(state, JOURNALLED)
    decide(state, INPUTS[kind], now_ms=LATER, out=Decision())
    assert picture(state, JOURNALLED) == before


def test_nothing_may_follow_a_terminal_status_and_only_a_caller_gets_there_from_a_pause() -> None:
    for status in TERMINAL:
        assert MOVES[status] == frozenset()
        assert not [kind for kind, allowed in ALLOWED.items() if status in allowed]
    assert {kind for kind, allowed in ALLOWED.items() if Status.PAUSED in allowed} == {
        i.EventSent, i.Terminate, i.Resume,
    }  # fmt: skip


def test_inputs_have_tags_of_their_own_and_survive_the_channel() -> None:
    decode = msgspec.msgpack.Decoder(i.RunReport).decode
    for kind in members(i.RunReport):
        assert decode(msgspec.msgpack.encode(INPUTS[kind])) == INPUTS[kind]
