"""Decisions that come while a group is being written join it, and change nothing for those that were there before."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.store.kit import ACCOUNT, NOW, WORKFLOW, a_version, an_entry, an_instance

from stellwerk.core import limits
from stellwerk.core.errors import InstanceExistsError, StorageError
from stellwerk.store.base import InstanceRow, JournalRow
from stellwerk.store.sqlite.committer import Committer, Inbox
from stellwerk.store.sqlite.connection import open_database
from stellwerk.store.sqlite.messages import AddVersion, Outcome, Record, Write, encode, frame
from stellwerk.store.sqlite.workflow import load_run


def a_record(*entries: JournalRow, create: InstanceRow | None = None) -> Record:
    return Record(list(entries), create, None, [])


class Writing:
    """The writing process in this one: what the node sends lies in a real socket, what is written in a real file."""

    def __init__(self, path: Path) -> None:
        opened = open_database(path, owner="node-1", now_ms=NOW)
        opened.writer.close()
        self.reader = opened.reader
        self.node, self.ours = socket.socketpair()
        self.inbox = Inbox(self.ours)
        self.committer = Committer(path, epoch=opened.epoch)

    def sends(self, *writes: Write) -> None:
        self.node.sendall(frame(encode(list(writes))))

    def commits(self, *meanwhile: Write) -> Outcome:
        """Takes what was sent; ``meanwhile`` is sent when that is written, and not committed."""

        def latecomers() -> list[Record]:
            if meanwhile:
                self.sends(*meanwhile)
            return self.inbox.latecomers()

        return self.committer.commit(self.inbox.next_group(), latecomers)

    def journal(self, instance_id: str = "order-1") -> list[bytes]:
        run = load_run(self.reader, ACCOUNT, WORKFLOW, instance_id)
        return [] if run is None else run.journal

    def close(self) -> None:
        self.node.close()
        self.ours.close()
        self.reader.close()
        self.committer.close()


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
