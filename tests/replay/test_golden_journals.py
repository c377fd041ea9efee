"""Journals that older releases wrote: each can be read, and its program replays it to the end that it had."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.replay.programs import EVENTS, PROGRAMS
from tests.replay.record import JOURNALS
from tests.unit.isolate_workflow.little_node import End, live

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.state import from_journal
from stellwerk.core.workflow.status import TERMINAL


def kept(name: str) -> list[tuple[str, bytes]]:
    data = json.loads((JOURNALS / f"{name}.json").read_text())
    assert data["program"] == name
    return [(row["entry"], bytes.fromhex(row["bytes"])) for row in data["journal"]]


def replayed(name: str, journal: list[bytes], **options: Any) -> End:
    sent = EVENTS if name == "events" else []
    completed = sum(isinstance(e.decode(data), e.WaitCompleted) for data in journal)
    taken = completed + from_journal(map(e.decode, journal)).events_count
    return live(PROGRAMS[name], journal=journal, events=sent, events_sent=taken, **options)


def test_every_program_has_its_journal_and_every_journal_its_program() -> None:
    assert {path.stem for path in JOURNALS.glob("*.json")} == set(PROGRAMS)


def test_the_journals_hold_every_kind_of_entry_that_a_program_can_lead_to() -> None:
    found = {kind for name in PROGRAMS for kind, _ in kept(name)}
    assert found >= {
        "Created", "StepSucceeded", "AttemptStarted", "AttemptFailed", "StepErrored", "SleepStarted", "SleepCompleted",
        "SleepCancelled", "WaitStarted", "WaitCompleted", "WaitTimedOut", "Suspended", "RunInterrupted", "Completed",
        "Errored",
    }  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kept_journal_can_be_read(name: str) -> None:
    rows = kept(name)
    entries = [e.decode(data) for _, data in rows]
    assert [type(entry).__name__ for entry in entries] == [kind for kind, _ in rows]
    assert from_journal(entries).status in TERMINAL


@pytest.mark.parametrize("lost", ["node", "isolate"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kept_journal_without_its_end_replays_to_that_end_and_begins_nothing(name: str, lost: str) -> None:
    journal = [data for _, data in kept(name)]
    ended = from_journal(map(e.decode, journal))
    end = replayed(name, journal[:-1], lost=lost)
    assert end.status is ended.status, end.state.reason
    assert end.state.output == ended.output
    assert (end.state.error is None) == (ended.error is None)
    if ended.error is not None:
        assert (end.error.name, end.error.message) == (ended.error.name, ended.error.message)
    assert end.begun == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kept_journal_can_be_taken_up_wherever_a_group_was_delivered(name: str) -> None:
    journal = [data for _, data in kept(name)]
    ended = from_journal(map(e.decode, journal))
    deliveries = [getattr(e.decode(data), "delivery", 0) for data in journal]
    last_of_group = {delivery: n for n, delivery in enumerate(deliveries) if delivery}
    for n in last_of_group.values():
        end = replayed(name, journal[: n + 1], lost="node")
        assert (end.status, end.state.output) == (ended.status, ended.output), f"taken up after entry {n + 1}"
