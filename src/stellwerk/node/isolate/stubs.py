"""Stubs: which isolate holds which function or stream of which other one.

An isolate names what it holds by numbers that mean something in its own table only, as descriptors do to a process. So
there is nothing to guess: a number that the node did not give to this isolate is refused. A function lives as long as
somebody holds it; when the last one lets go, or has ended, its owner is told.

On the way between two isolates a stub is a ``Given`` with a count of its own, so that it cannot end while the isolate
that it goes to is being started.
"""

from __future__ import annotations

from collections.abc import Iterable

from stellwerk.core.errors import CapacityError, InvalidRequestError, IsolateLostError
from stellwerk.core.limits import RPC_STUBS_PER_ISOLATE_MAX
from stellwerk.node.isolate.process import Isolate
from stellwerk.wire import isolate as messages


class Given:
    """A function that an isolate has given away."""

    __slots__ = ("count", "lost", "number", "owner")

    def __init__(self, owner: Isolate, number: int) -> None:
        self.owner, self.number = owner, number
        self.count = 0  # places that hold it, and messages on their way
        self.lost = ""  # why its owner has ended


class _Table:
    """What one isolate holds, and what it has given away."""

    __slots__ = ("given", "held", "next_number")

    def __init__(self) -> None:
        self.given: dict[int, Given] = {}
        self.held: dict[int, Given] = {}
        self.next_number = 2


class Stubs:
    """Every stub of every isolate."""

    def __init__(self) -> None:
        self._tables: dict[Isolate, _Table] = {}

    def taken(self, sender: Isolate, numbers: list[int] | None) -> list[Given]:
        """What a message of ``sender`` takes along, on its way from here on: ``granted`` or ``released`` ends that.

        Raises ``InvalidRequestError`` for a stub that the sender does not hold, and ``CapacityError``.
        """
        taken: list[Given] = []
        if not numbers:
            return taken
        try:
            if len(numbers) > RPC_STUBS_PER_ISOLATE_MAX:
                raise _full("one message may take along")
            table = self._table(sender)
            for number in numbers:
                given = self._own(sender, table, number) if number & 1 else self._of(table, number)
                given.count += 1
                taken.append(given)
        except (InvalidRequestError, CapacityError):
            self.released(taken)
            self.refused(sender, numbers)
            raise
        return taken

    def _own(self, owner: Isolate, table: _Table, number: int) -> Given:
        given = table.given.get(number)
        if given is None:
            if len(table.given) >= RPC_STUBS_PER_ISOLATE_MAX:
                raise _full("one isolate may have given away")
            if not table.given:
                owner.begin()  # once for all of them: they keep it from falling idle, and take no invocation's place
            given = table.given[number] = Given(owner, number)
        return given

    def _of(self, table: _Table, number: int) -> Given:
        given = table.held.get(number)
        if given is None:
            raise InvalidRequestError(f"This isolate holds no stub {number}.")
        return given

    def granted(self, receiver: Isolate, taken: list[Given]) -> list[int] | None:
        """The receiver's own numbers for what arrives at it. Raises ``CapacityError``, and lets go of all of them."""
        if not taken:
            return None
        table = self._table(receiver)
        if len(table.held) + len(taken) > RPC_STUBS_PER_ISOLATE_MAX:
            self.released(taken)
            raise _full("one isolate may hold")
        first = table.next_number
        table.next_number = first + 2 * len(taken)
        numbers = list(range(first, table.next_number, 2))
        table.held.update(zip(numbers, taken, strict=True))
        return numbers

    def target(self, holder: Isolate, number: int) -> Given:
        """The function behind a stub of ``holder``. Raises ``InvalidRequestError`` and ``IsolateLostError``."""
        given = self._of(self._table(holder), number)
        if given.lost:
            raise IsolateLostError(f"The Worker that has this function or stream ended: {given.lost}")
        return given

    # -- letting go ---------------------------------------------------------------------------------------------------

    def dropped(self, holder: Isolate, numbers: list[int]) -> None:
        """``holder`` lets go of stubs; what it does not hold is passed over."""
        held = self._table(holder).held
        self.released([given for number in numbers if (given := held.pop(number, None)) is not None])

    def refused(self, sender: Isolate, numbers: list[int] | None) -> None:
        """Tells the owner of functions that they will not arrive anywhere."""
        given = self._table(sender).given
        unknown = [number for number in numbers or () if number & 1 and number not in given]
        if unknown:
            sender.channel.send(messages.StubsDropped(unknown))

    def released(self, given: Iterable[Given]) -> None:
        """One place less for each; the owners of those that nobody holds are told."""
        ended: dict[Isolate, list[int]] = {}
        for each in given:
            each.count -= 1
            if not each.count and not each.lost:
                ended.setdefault(each.owner, []).append(each.number)
        for owner, numbers in ended.items():
            table = self._table(owner)
            for number in numbers:
                del table.given[number]
            owner.channel.send(messages.StubsDropped(numbers))
            if not table.given:
                owner.end()

    def lost(self, isolate: Isolate, cause: str) -> None:
        """The isolate has ended: what it held is let go, what it has given away is of no use to anybody."""
        table = self._tables.pop(isolate, None)
        if table is None:
            return
        for given in table.given.values():
            given.lost = cause or "it ended"
        if table.given:
            isolate.end()
        self.released(table.held.values())

    def _table(self, isolate: Isolate) -> _Table:
        table = self._tables.get(isolate)
        if table is None:
            table = self._tables[isolate] = _Table()
        return table


def _full(what: str) -> CapacityError:
    return CapacityError(
        f"Functions and streams over RPC: {what} at most {RPC_STUBS_PER_ISOLATE_MAX}.",
        cure="Let go of those that are not needed (del), or pass data.",
    )
