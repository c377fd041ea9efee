"""Every (status, input) pair of the isolate's table: the expected move, or the error."""

from __future__ import annotations

import itertools

import pytest

from stellwerk.core.errors import StellwerkError
from stellwerk.core.isolate.machine import ENDED, MOVES, Input, IsolateTransitionError, Status, move

S, N = Status, Input

# Written out apart from the table under test: what must come out of each pair that is allowed.
EXPECTED = {
    (S.STARTING, N.BOOTED): S.READY,
    (S.STARTING, N.REFUSED): S.KILLING,
    (S.STARTING, N.DRAIN): S.KILLING,
    (S.STARTING, N.KILL): S.KILLING,
    (S.STARTING, N.SEVERED): S.SEVERED,
    (S.STARTING, N.EXITED): S.CRASHED,
    (S.STARTING, N.DIED): S.CRASHED,
    (S.READY, N.DRAIN): S.DRAINING,
    (S.READY, N.KILL): S.KILLING,
    (S.READY, N.SEVERED): S.SEVERED,
    (S.READY, N.EXITED): S.CRASHED,
    (S.READY, N.DIED): S.CRASHED,
    (S.DRAINING, N.DRAIN): S.DRAINING,
    (S.DRAINING, N.KILL): S.KILLING,
    (S.DRAINING, N.SEVERED): S.DRAINING,
    (S.DRAINING, N.EXITED): S.STOPPED,
    (S.DRAINING, N.DIED): S.CRASHED,
    (S.KILLING, N.BOOTED): S.KILLING,
    (S.KILLING, N.REFUSED): S.KILLING,
    (S.KILLING, N.DRAIN): S.KILLING,
    (S.KILLING, N.KILL): S.KILLING,
    (S.KILLING, N.SEVERED): S.KILLING,
    (S.KILLING, N.EXITED): S.STOPPED,
    (S.KILLING, N.DIED): S.STOPPED,
    (S.SEVERED, N.DRAIN): S.SEVERED,
    (S.SEVERED, N.KILL): S.SEVERED,
    (S.SEVERED, N.EXITED): S.CRASHED,
    (S.SEVERED, N.DIED): S.CRASHED,
}


@pytest.mark.parametrize(("status", "incoming"), list(itertools.product(Status, Input)))
def test_each_pair_moves_as_written_or_is_refused(status: Status, incoming: Input) -> None:
    expected = EXPECTED.get((status, incoming))
    if expected is not None:
        assert move(status, incoming) is expected
        return
    with pytest.raises(IsolateTransitionError) as caught:
        move(status, incoming)
    assert str(status) in str(caught.value)
    assert str(incoming) in str(caught.value)
    assert isinstance(caught.value, StellwerkError)
    assert caught.value.code == "isolate.illegal_transition"


def test_the_table_knows_every_status_and_nothing_leaves_an_end() -> None:
    assert set(MOVES) == set(Status)
    assert {status for status, moves in MOVES.items() if not moves} == ENDED


def test_whatever_happens_the_end_of_the_process_ends_the_isolate() -> None:
    for status in set(Status) - ENDED:
        assert move(status, Input.EXITED) in ENDED
        assert move(status, Input.DIED) in ENDED


def test_what_we_ended_is_never_called_a_crash_and_what_broke_always_is() -> None:
    assert {move(Status.KILLING, how) for how in (Input.EXITED, Input.DIED)} == {Status.STOPPED}
    for status in (Status.STARTING, Status.READY, Status.SEVERED):
        assert {move(status, how) for how in (Input.EXITED, Input.DIED)} == {Status.CRASHED}
