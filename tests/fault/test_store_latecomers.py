"""What the writing process hears from its node: decisions that come while a group is being written join it, and change
nothing for those that were there before; and the node's end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.store.kit import a_version, an_entry, an_instance
from tests.fault.committer_kit import CommitterKit, a_record

from stellwerk.core import limits
from stellwerk.core.errors import InstanceExistsError, StorageError
from stellwerk.store.sqlite.committer import Inbox, serve
from stellwerk.store.sqlite.messages import AddVersion, Outcome, Record, Write, encode, frame


class Writing(CommitterKit):
    """With a real socket to the node."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.node, self.ours = socket.socketpair()
        self.inbox = Inbox(self.ours)

    def sends(self, *writes: Write) -> None:
        self.node.sendall(frame(encode(list(writes))))

    def commits(self, *meanwhile: Write) -> Outcome:
        """Takes what was sent; ``meanwhile`` is sent when that is written, and not committed."""

        def latecomers() -> list[Record]:
            if meanwhile:
                self.sends(*meanwhile)
            return self.inbox.latecomers()

        return self.committer.commit(self.inbox.next_group(), latecomers)

    def close(self) -> None:
        self.node.close()
        self.ours.close()
        super().close()


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path / "stellwerk.db")
    yield made
    made.close()


def test_a_decision_that_comes_before_the_commit_is_on_disk_with_it(writing: Writing) -> None:
    writing.sends(a_record(an_entry(0), create=an_instance()))

    outcome = writing.commits(a_record(an_entry(1, "late")), a_record(create=an_instance("order-2")))

    assert (outcome.count, outcome.failed, outcome.failures) == (3, None, {})
    assert writing.journal() == [b"entry 0", b"late"]


def test_one_that_is_refused_names_its_own_place_and_takes_nobody_along(writing: Writing) -> None:
    writing.sends(a_record(an_entry(0), create=an_instance()))

    outcome = writing.commits(a_record(create=an_instance()), a_record(an_entry(7)), a_record(an_entry(1)))

    told = {place: failed.code for place, failed in outcome.failures.items()}
    assert (outcome.count, outcome.failed) == (4, None)
    assert told == {1: InstanceExistsError.code, 2: StorageError.code}
    assert writing.journal() == [b"entry 0", b"entry 1"]


def test_a_command_waits_for_a_group_of_its_own_and_keeps_its_place_in_the_order(writing: Writing) -> None:
    writing.sends(a_record(an_entry(0), create=an_instance()))

    first = writing.commits(AddVersion(a_version("version-1", "a")), a_record(an_entry(1)))
    second = writing.commits()

    assert (first.count, second.count) == (1, 2)
    assert second.failures == {}
    assert writing.journal() == [b"entry 0", b"entry 1"]


def test_a_group_does_not_grow_past_its_rows(writing: Writing) -> None:
    room = limits.GROUP_ROWS_MAX - 2  # one row of the first record, and one for itself
    writing.sends(a_record(create=an_instance()))
    small = [a_record(an_entry(number)) for number in range(room)]

    first = writing.commits(*small)
    second = writing.commits()

    assert first.count == 1 + room // 2
    assert first.count + second.count == 1 + room
    assert len(writing.journal()) == room


def test_a_record_that_no_group_can_hold_waits_for_its_own(writing: Writing) -> None:
    writing.sends(a_record(create=an_instance()))

    first = writing.commits(a_record(*map(an_entry, range(limits.GROUP_ROWS_MAX + 1))))
    second = writing.commits()

    assert (first.count, second.count) == (1, 1)
    assert len(writing.journal()) == limits.GROUP_ROWS_MAX + 1


def test_what_a_killed_node_had_sent_is_written_and_its_end_is_no_error(writing: Writing) -> None:
    """It had not read all that it was told, so the kernel resets the connection."""
    writing.sends(a_record(an_entry(0), create=an_instance()))
    writing.ours.sendall(b"an answer that nobody reads")
    writing.node.close()
    writing.committer.close()

    serve(writing.ours, str(writing.path), epoch=writing.epoch)

    assert writing.journal() == [b"entry 0"]
