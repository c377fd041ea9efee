"""Who holds which function: the node's table, with isolates that say what no honest one would."""

from __future__ import annotations

from typing import Any, cast

import pytest

from stellwerk.core.errors import CapacityError, InvalidRequestError, IsolateLostError
from stellwerk.core.limits import RPC_STUBS_PER_ISOLATE_MAX
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.stubs import Stubs
from stellwerk.wire.isolate import StubsDropped


class AnIsolate:
    """As much of an isolate as the table uses. ``dropped`` are its functions that it was told nobody holds."""

    def __init__(self) -> None:
        self.load = 0
        self.dropped: list[int] = []
        self.channel = self

    def begin(self) -> None:
        self.load += 1

    def end(self) -> None:
        self.load -= 1

    def send(self, message: StubsDropped) -> None:
        self.dropped += message.stubs


def isolates(count: int) -> Any:
    return [cast(Isolate, AnIsolate()) for _ in range(count)]


def passed(stubs: Stubs, sender: Isolate, receiver: Isolate, *numbers: int) -> list[int]:
    found = stubs.granted(receiver, stubs.taken(sender, list(numbers)))
    assert found is not None
    return found


def test_a_function_lives_until_its_last_holder_lets_go() -> None:
    stubs = Stubs()
    owner, one, two = isolates(3)
    (at_one,) = passed(stubs, owner, one, 1)
    (at_two,) = passed(stubs, one, two, at_one)
    assert stubs.target(two, at_two) is stubs.target(one, at_one)
    stubs.dropped(one, [at_one])
    assert (owner.dropped, owner.load) == ([], 1)
    stubs.dropped(two, [at_two, at_two])
    assert (owner.dropped, owner.load) == ([1], 0)


def test_a_function_on_its_way_outlives_the_sender_that_let_go_of_it() -> None:
    stubs = Stubs()
    owner, one, two = isolates(3)
    (at_one,) = passed(stubs, owner, one, 1)
    taken = stubs.taken(one, [at_one])
    stubs.dropped(one, [at_one])
    assert owner.dropped == []
    assert stubs.granted(two, taken) is not None
    assert owner.dropped == []


def test_a_number_means_nothing_in_another_isolates_table() -> None:
    stubs = Stubs()
    owner, holder, spy = isolates(3)
    (number,) = passed(stubs, owner, holder, 1)
    for guess in (number, 1, 0, -2, 2**62):
        with pytest.raises(InvalidRequestError):
            stubs.target(spy, guess)
    with pytest.raises(InvalidRequestError):
        stubs.taken(spy, [number])
    assert stubs.target(holder, number).number == 1


def test_what_was_let_go_cannot_be_called_or_passed_on() -> None:
    stubs = Stubs()
    owner, holder = isolates(2)
    (number,) = passed(stubs, owner, holder, 1)
    stubs.dropped(holder, [number])
    with pytest.raises(InvalidRequestError):
        stubs.target(holder, number)
    with pytest.raises(InvalidRequestError):
        stubs.taken(holder, [number])


def test_a_message_with_one_lie_in_it_gives_nothing_away_and_the_owner_is_told() -> None:
    stubs = Stubs()
    (liar,) = isolates(1)
    with pytest.raises(InvalidRequestError):
        stubs.taken(liar, [1, 3, 2])
    assert set(liar.dropped) == {1, 3}
    assert liar.load == 0


def test_an_isolate_may_not_give_away_more_than_the_limit() -> None:
    stubs = Stubs()
    owner, holder, other = isolates(3)
    passed(stubs, owner, holder, *range(1, 2 * RPC_STUBS_PER_ISOLATE_MAX - 1, 2))
    last = 2 * RPC_STUBS_PER_ISOLATE_MAX - 1
    passed(stubs, owner, other, last)
    with pytest.raises(CapacityError, match=str(RPC_STUBS_PER_ISOLATE_MAX)):
        stubs.taken(owner, [last + 2])
    with pytest.raises(CapacityError, match=str(RPC_STUBS_PER_ISOLATE_MAX)):
        stubs.taken(holder, [2] * (RPC_STUBS_PER_ISOLATE_MAX + 1))
    assert owner.dropped == [last + 2]


def test_an_isolate_may_not_hold_more_than_the_limit_and_nothing_of_that_message_arrives() -> None:
    stubs = Stubs()
    one, two, holder = isolates(3)
    passed(stubs, one, holder, *range(1, 2 * RPC_STUBS_PER_ISOLATE_MAX - 1, 2))
    taken = stubs.taken(two, [1, 3])
    with pytest.raises(CapacityError, match=str(RPC_STUBS_PER_ISOLATE_MAX)):
        stubs.granted(holder, taken)
    assert (two.dropped, two.load) == ([1, 3], 0)


def test_the_end_of_a_holder_is_told_to_the_owners() -> None:
    stubs = Stubs()
    one, two, holder = isolates(3)
    passed(stubs, one, holder, 1, 3)
    passed(stubs, two, holder, 1)
    stubs.lost(holder, "killed")
    assert (one.dropped, two.dropped) == ([1, 3], [1])
    assert (one.load, two.load) == (0, 0)


def test_the_end_of_an_owner_is_told_to_who_calls() -> None:
    stubs = Stubs()
    owner, holder = isolates(2)
    (number,) = passed(stubs, owner, holder, 1)
    (home,) = passed(stubs, holder, owner, number)
    assert stubs.target(owner, home).number == 1
    stubs.lost(owner, "killed by signal 9")
    assert (owner.dropped, owner.load) == ([], 0)
    with pytest.raises(IsolateLostError, match="killed by signal 9"):
        stubs.target(holder, number)
    stubs.dropped(holder, [number])
    assert owner.dropped == []


def test_functions_that_cannot_arrive_are_told_to_their_owner() -> None:
    stubs = Stubs()
    owner, holder = isolates(2)
    passed(stubs, owner, holder, 1)
    stubs.refused(owner, [1, 3, 2])
    assert owner.dropped == [3]
