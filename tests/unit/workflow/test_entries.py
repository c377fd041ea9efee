"""Entries and messages as bytes: each type comes back, and no two types share a tag."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.inputs import RunReport
from stellwerk.core.workflow.replay import ReplayCursor
from stellwerk.core.workflow.state import evolve, from_journal
from stellwerk.core.workflow.steps import StepConfig
from stellwerk.wire import isolate as messages

ERROR = e.ErrorValue("ValueError", "no", "Traceback ...", "orders:DeclinedError", b"\x91\x01")
CONFIG = StepConfig(3, "1 second", "linear", 500, True)
BLOB = e.BlobRef("ab" * 32, 70_000)
SAMPLES: list[e.AnyEntry] = [
    e.Created(1, b"\x80", "orders", "v1", "Orders", "api", {"orders": "v1", "charge": "v7"}, 100, False),
    e.Created(1, BLOB, "orders", "v1", "Orders", "cron", {}, 100),
    e.StepSucceeded(2, "do:a-1", "a", 1, 2, 3, b"\x01", 4, CONFIG, True),
    e.StepSucceeded(2, "do:a-1", "a", 1, 2, 3, BLOB, 0),
    e.AttemptStarted(3, "do:a-1", "a", 1, 2, CONFIG, True),
    e.AttemptInterrupted(4, "do:a-1", 2, "the node ended"),
    e.AttemptFailed(5, "do:a-1", "a", 1, 2, 3, ERROR, 99, CONFIG, True),
    e.StepErrored(6, "do:a-1", "a", 1, 2, 3, ERROR, 5, CONFIG),
    e.SleepStarted(7, "sleep:nap-1", "nap", 1, 99, True),
    e.SleepCompleted(8, "sleep:nap-1", 6),
    e.SleepCancelled(9, "timer:asyncio-1"),
    e.WaitStarted(10, "wait:pay-1", "pay", 1, "paid", 99, 60_000),
    e.EventReceived(11, "paid", BLOB),
    e.WaitCompleted(12, "wait:pay-1", "paid", b"\x01", 11, 7),
    e.WaitTimedOut(13, "wait:pay-1", ERROR, 8),
    e.Suspended(14, 99),
    e.RunInterrupted(15, "crash", True),
    e.Completed(16, BLOB),
    e.Errored(17, ERROR),
    e.Terminated(18, "api"),
    e.Paused(19, "another path"),
    e.Resumed(20),
]


def tag_of(kind: type) -> int:
    tag = kind.__struct_config__.tag  # type: ignore[attr-defined]
    assert isinstance(tag, int), kind
    return tag


def members(union: Any) -> list[type]:
    return list(typing.get_args(union))


def test_no_type_of_entry_is_forgotten() -> None:
    assert {type(sample) for sample in SAMPLES} == set(members(e.AnyEntry))


@pytest.mark.parametrize("entry", SAMPLES, ids=lambda entry: type(entry).__name__)
def test_an_entry_comes_back_as_it_was(entry: e.AnyEntry) -> None:
    data = e.encode(entry)
    assert e.decode(data) == entry
    assert e.encode(e.decode(data)) == data


def test_tags_of_entries_are_the_numbers_that_journals_hold() -> None:
    assert {kind.__name__: tag_of(kind) for kind in members(e.AnyEntry)} == {
        "Created": 1, "StepSucceeded": 2, "AttemptStarted": 3, "AttemptInterrupted": 4, "AttemptFailed": 5,
        "StepErrored": 6, "SleepStarted": 7, "SleepCompleted": 8, "SleepCancelled": 9, "WaitStarted": 10,
        "EventReceived": 11, "WaitCompleted": 12, "WaitTimedOut": 13, "Suspended": 14, "RunInterrupted": 15,
        "Completed": 16, "Errored": 17, "Terminated": 18, "Paused": 19, "Resumed": 20,
    }  # fmt: skip


def test_no_two_messages_of_the_channel_share_a_tag_and_reports_are_among_them() -> None:
    kinds = members(messages.AnyMessage)
    assert set(members(RunReport)) < set(kinds)
    assert len({tag_of(kind) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", b"\x92\x63\x01", b"\x92\x02\x01", e.encode(SAMPLES[0])[:-1]])
def test_bytes_that_are_no_entry_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        e.decode(data)


def test_entries_of_the_first_release_without_later_fields_are_still_read() -> None:
    started = msgspec.msgpack.encode([3, 5, "do:a-1", "a", 1, 1, None])
    failed = msgspec.msgpack.encode([5, 5, "do:a-1", "a", 1, 1, 4, ["Error", "no"], 9])
    assert e.decode(started) == e.AttemptStarted(5, "do:a-1", "a", 1, 1)
    assert e.decode(failed) == e.AttemptFailed(5, "do:a-1", "a", 1, 1, 4, e.ErrorValue("Error", "no"), 9)


@pytest.mark.parametrize("kind", members(e.AnyEntry), ids=lambda kind: kind.__name__)
def test_state_and_cursor_know_every_type_of_entry(kind: type) -> None:
    before: dict[type, list[e.AnyEntry]] = {
        e.AttemptInterrupted: [e.AttemptStarted(2, "do:a-1", "a", 1, 2)],
        e.Resumed: [e.Paused(2, "held")],
        e.SleepCompleted: [e.SleepStarted(2, "sleep:nap-1", "nap", 1, 9)],
        e.SleepCancelled: [e.SleepStarted(2, "timer:asyncio-1", "asyncio", 1, 9, True)],
        e.WaitCompleted: [e.WaitStarted(2, "wait:pay-1", "pay", 1, "paid", 9, 9)],
        e.WaitTimedOut: [e.WaitStarted(2, "wait:pay-1", "pay", 1, "paid", 9, 9)],
    }
    sample = next(entry for entry in SAMPLES if type(entry) is kind)
    state = from_journal([SAMPLES[0], *before.get(kind, [])])
    evolve(state, sample)
    ReplayCursor([SAMPLES[0], *before.get(kind, []), sample])
