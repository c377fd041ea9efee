"""Instances and journals: what is stored comes back, in the order and with the limits that the contract names."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest
from tests.conformance.store.kit import (
    ACCOUNT,
    NOW,
    WORKFLOW,
    an_entry,
    an_instance,
    an_update,
    outcomes,
    record,
)

from stellwerk.core.errors import InstanceExistsError, InvalidRequestError, StorageError
from stellwerk.core.workflow.status import TERMINAL, Status
from stellwerk.store.base import Decision, InstanceRow, Store

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def created(store: Store, *rows: InstanceRow) -> None:
    await record(store, *[Decision(create=row) for row in rows])


async def ids(
    store: Store, *, status: Status | None = None, limit: int = 50, cursor: str = ""
) -> tuple[list[str], str]:
    rows, following = await store.instances(ACCOUNT, WORKFLOW, status=status, limit=limit, cursor=cursor)
    return [row.instance_id for row in rows], following


async def every_page(ask: Callable[..., Awaitable[tuple[list[T], str]]], limit: int) -> list[T]:
    """What a list has, read page by page."""
    seen: list[T] = []
    cursor = ""
    while True:
        page, cursor = await ask(limit=limit, cursor=cursor)
        assert len(page) <= limit
        seen += page
        if not cursor:
            return seen


async def test_a_created_instance_comes_back_as_it_was_given(store: Store) -> None:
    row = an_instance(wake_at=NOW + 5, status=Status.WAITING, versions=("version-1", "version-2"))

    await created(store, row)

    assert await store.instance(ACCOUNT, WORKFLOW, "order-1") == row


async def test_an_instance_without_a_manifest_needs_its_own_version(store: Store) -> None:
    await created(store, an_instance(version_id="version-7"))

    found = await store.instance(ACCOUNT, WORKFLOW, "order-1")

    assert found is not None
    assert found.versions == ("version-7",)


async def test_an_owned_instance_carries_the_epoch_of_its_holder(store: Store) -> None:
    await created(store, an_instance(owner="node-1"))

    found = await store.instance(ACCOUNT, WORKFLOW, "order-1")

    assert found is not None
    assert (found.owner, found.epoch >= 1) == ("node-1", True)


async def test_unknown_instances_are_none(store: Store) -> None:
    await created(store, an_instance())

    assert await store.instance(ACCOUNT, WORKFLOW, "order-2") is None
    assert await store.instance(ACCOUNT, "invoices", "order-1") is None
    assert await store.instance("someone-else", WORKFLOW, "order-1") is None
    assert await store.load_run(ACCOUNT, WORKFLOW, "order-2") is None


async def test_a_run_is_loaded_with_its_journal_in_order_of_seq(store: Store) -> None:
    await record(
        store,
        Decision([an_entry(0)], create=an_instance()),
        Decision([an_entry(1), an_entry(2)]),
        Decision([an_entry(0, instance_id="order-2")], create=an_instance("order-2")),
        Decision([an_entry(3)]),
    )

    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")

    assert run is not None
    assert run.row.instance_id == "order-1"
    assert run.journal == [b"entry 0", b"entry 1", b"entry 2", b"entry 3"]


async def test_an_update_moves_the_row_and_keeps_the_first_start(store: Store) -> None:
    await created(store, an_instance())

    await record(store, Decision(update=an_update(Status.RUNNING, at=NOW + 1, started_at=NOW + 1)))
    await record(store, Decision(update=an_update(Status.WAITING, at=NOW + 2, wake_at=NOW + 99)))
    found = await store.instance(ACCOUNT, WORKFLOW, "order-1")

    assert found is not None
    assert (found.status, found.modified_at, found.started_at, found.wake_at) == (
        Status.WAITING,
        NOW + 2,
        NOW + 1,
        NOW + 99,
    )


async def test_updates_of_one_instance_in_one_group_count_in_their_order(store: Store) -> None:
    await record(
        store,
        Decision(create=an_instance()),
        Decision(update=an_update(Status.RUNNING)),
        Decision(update=an_update(Status.WAITING, wake_at=NOW + 9)),
        Decision(update=an_update(Status.RUNNING)),
    )

    found = await store.instance(ACCOUNT, WORKFLOW, "order-1")

    assert found is not None
    assert (found.status, found.wake_at) == (Status.RUNNING, None)


@pytest.mark.parametrize("terminal", sorted(TERMINAL))
async def test_a_terminal_instance_never_moves(store: Store, terminal: Status) -> None:
    await record(store, Decision(create=an_instance(status=terminal, ended_at=NOW)))

    told = await outcomes(store, [Decision([an_entry(1)], update=an_update(Status.RUNNING))])
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")

    assert isinstance(told[0], StorageError)
    assert run is not None
    assert (run.row.status, run.journal) == (terminal, [])


@pytest.mark.parametrize("status", [status for status in Status if status not in TERMINAL])
async def test_only_a_terminal_status_has_an_end(store: Store, status: Status) -> None:
    told = await outcomes(
        store,
        [
            Decision(create=an_instance("ended", status=status, ended_at=NOW)),
            Decision(create=an_instance("endless", status=Status.COMPLETE, ended_at=None)),
            Decision(create=an_instance("right", status=status)),
        ],
    )

    assert [type(error) for error in told] == [StorageError, StorageError, type(None)]


async def test_an_update_of_an_instance_that_does_not_exist_fails(store: Store) -> None:
    told = await outcomes(store, [Decision(update=an_update(Status.RUNNING, instance_id="nobody"))])

    assert isinstance(told[0], StorageError)


async def test_an_entry_of_an_instance_that_does_not_exist_fails(store: Store) -> None:
    told = await outcomes(store, [Decision([an_entry(0, instance_id="nobody")])])

    assert isinstance(told[0], StorageError)


async def test_the_next_incarnation_stands_for_the_instance(store: Store) -> None:
    await record(store, Decision([an_entry(0, "first life")], create=an_instance()))
    restart = Decision(
        [an_entry(0, "second life", incarnation=2)],
        create=an_instance(incarnation=2, created_at=NOW + 5),
        update=an_update(Status.TERMINATED, ended_at=NOW + 5),
    )

    await record(store, restart)
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")

    assert run is not None
    assert (run.row.incarnation, run.journal) == (2, [b"second life"])
    assert await ids(store) == (["order-1"], "")
    assert await store.status_counts(ACCOUNT) == {(WORKFLOW, Status.QUEUED): 1}
    assert [row.incarnation for row in (await store.unfinished(limit=10))[0]] == [2]


async def test_a_restart_in_the_group_that_ends_the_life_before_is_in_order(store: Store) -> None:
    await record(
        store,
        Decision(create=an_instance()),
        Decision(update=an_update(Status.TERMINATED, ended_at=NOW + 1)),
        Decision([an_entry(0, "again", incarnation=2)], create=an_instance(incarnation=2)),
    )

    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")

    assert run is not None
    assert (run.row.incarnation, run.journal) == (2, [b"again"])


@pytest.mark.parametrize("incarnation", [2, 3])
async def test_a_restart_needs_an_ended_life_right_before_it(store: Store, incarnation: int) -> None:
    await created(store, an_instance())  # it lives

    told = await outcomes(store, [Decision(create=an_instance(incarnation=incarnation))])

    assert isinstance(told[0], StorageError)
    assert not isinstance(told[0], InstanceExistsError)
    assert [row.incarnation for row in (await store.unfinished(limit=10))[0]] == [1]


async def test_pages_of_instances_are_newest_first_and_complete(store: Store) -> None:
    same_time = [an_instance(f"same-{number}", created_at=NOW) for number in range(4)]
    later = [an_instance(f"later-{number}", created_at=NOW + 1 + number) for number in range(3)]
    await created(store, *same_time, *later, an_instance("other", workflow="invoices"))

    seen = await every_page(partial(ids, store), 2)

    assert seen == ["later-2", "later-1", "later-0", "same-3", "same-2", "same-1", "same-0"]


async def test_instances_of_all_statuses_come_in_one_order(store: Store) -> None:
    rows = [
        an_instance(f"order-{number}", created_at=NOW + number % 5, status=status, ended_at=ended_at)
        for number in range(20)
        for status in [list(Status)[number * 7 % len(Status)]]
        for ended_at in [NOW if status in TERMINAL else None]
    ]
    await created(store, *rows)

    seen = await every_page(partial(ids, store), 3)

    newest = sorted(rows, key=lambda row: (row.created_at, row.instance_id), reverse=True)
    assert seen == [row.instance_id for row in newest]


async def test_a_page_that_ends_with_the_last_instance_has_no_cursor(store: Store) -> None:
    await created(store, an_instance("a"), an_instance("b"))

    assert await ids(store, limit=2) == (["b", "a"], "")


async def test_instances_of_one_status_are_listed_alone(store: Store) -> None:
    await created(store, *[an_instance(f"order-{number}", created_at=NOW + number) for number in range(6)])
    for number in (1, 3, 5):
        update = an_update(Status.ERRORED, instance_id=f"order-{number}", ended_at=NOW)
        await record(store, Decision(update=update))

    first, cursor = await ids(store, status=Status.ERRORED, limit=2)
    second, end = await ids(store, status=Status.ERRORED, limit=2, cursor=cursor)

    assert (first, second, end) == (["order-5", "order-3"], ["order-1"], "")


@pytest.mark.parametrize("cursor", ["x", "12", "x.order-1", "-5.order-1", "9" * 19 + ".order-1", "²³.order-1"])
async def test_a_cursor_that_is_none_is_the_callers_error(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequestError):
        await ids(store, cursor=cursor)


async def test_unfinished_are_those_that_a_starting_node_takes_up(store: Store) -> None:
    for number, status in enumerate(Status):
        ended_at = NOW if status in TERMINAL else None
        await created(store, an_instance(f"{9 - number}-{status}", status=status, ended_at=ended_at))

    rows, _ = await store.unfinished(limit=10)

    assert [row.status for row in rows] == [Status.QUEUED, Status.RUNNING, Status.WAITING_FOR_PAUSE]


async def test_unfinished_instances_come_in_pages(store: Store) -> None:
    """Of two accounts, three statuses and two manifests: where a page ends in the middle of one, the next goes on."""
    rows = [
        an_instance(f"order-{number}", status=status, account_id=account, versions=versions)
        for number, (status, account, versions) in enumerate(
            (status, account, versions)
            for status in (Status.QUEUED, Status.RUNNING, Status.WAITING_FOR_PAUSE, Status.WAITING)
            for account in (ACCOUNT, "someone-else")
            for versions in (("a",), ("b",))
            for _ in range(2)
        )
    ]
    await created(store, *rows)
    wanted = sorted(row.instance_id for row in rows if row.status is not Status.WAITING)

    for limit in (1, 2, 3, 8, 23, 24, 25):
        seen = await every_page(store.unfinished, limit)
        assert sorted(row.instance_id for row in seen) == wanted


async def test_due_are_waiting_instances_whose_time_has_come_the_earliest_first(store: Store) -> None:
    await created(
        store,
        an_instance("late", status=Status.WAITING, wake_at=NOW + 3),
        an_instance("early", status=Status.WAITING, wake_at=NOW + 1),
        an_instance("now", status=Status.WAITING, wake_at=NOW + 2),
        an_instance("event only", status=Status.WAITING),
        an_instance("paused", status=Status.PAUSED, wake_at=NOW),
    )

    due = await store.due(now_ms=NOW + 2, limit=10)

    assert [row.instance_id for row in due] == ["early", "now"]
    assert [row.instance_id for row in await store.due(now_ms=NOW + 9, limit=1)] == ["early"]
    assert await store.next_wake_at() == NOW + 1


async def test_nothing_wakes_when_nothing_waits(store: Store) -> None:
    await created(store, an_instance())

    assert await store.next_wake_at() is None
    assert await store.due(now_ms=NOW * 2, limit=10) == []


async def test_a_woken_instance_is_not_due_again(store: Store) -> None:
    await created(store, an_instance(status=Status.WAITING, wake_at=NOW))

    await record(store, Decision(update=an_update(Status.RUNNING)))

    assert await store.due(now_ms=NOW + 9, limit=10) == []
    assert await store.next_wake_at() is None


async def test_status_counts_are_per_workflow_and_account(store: Store) -> None:
    await created(
        store,
        an_instance("a"),
        an_instance("b"),
        an_instance("c", status=Status.COMPLETE, ended_at=NOW),
        an_instance("d", workflow="invoices"),
        an_instance("e", account_id="someone-else"),
    )

    assert await store.status_counts(ACCOUNT) == {
        (WORKFLOW, Status.QUEUED): 2,
        (WORKFLOW, Status.COMPLETE): 1,
        ("invoices", Status.QUEUED): 1,
    }


async def test_live_versions_are_those_that_a_run_without_an_end_names(store: Store) -> None:
    await created(
        store,
        an_instance("sleeping", status=Status.WAITING, wake_at=NOW, versions=("a", "b")),
        an_instance("paused", status=Status.PAUSED, versions=("b", "c")),
        an_instance("done", status=Status.COMPLETE, ended_at=NOW, versions=("d", "a")),
        an_instance("stranger", account_id="someone-else", versions=("e",)),
    )

    before = await store.live_versions()
    await record(store, Decision(update=an_update(Status.TERMINATED, instance_id="paused", ended_at=NOW)))

    assert before == {"a", "b", "c", "e"}
    assert await store.live_versions() == {"a", "b", "e"}


async def test_unfinished_runs_on_a_version_are_counted_sleeping_ones_too(store: Store) -> None:
    await created(
        store,
        an_instance("sleeping", status=Status.WAITING, wake_at=NOW, versions=("a", "b")),
        an_instance("running", status=Status.RUNNING, versions=("a",)),
        an_instance("done", status=Status.COMPLETE, ended_at=NOW, versions=("a", "b")),
    )

    assert await store.unfinished_on("a") == 2
    assert await store.unfinished_on("b") == 1
    assert await store.unfinished_on("never") == 0


async def test_a_version_is_needed_in_every_status_without_an_end(store: Store) -> None:
    for status in Status:
        ended_at = NOW if status in TERMINAL else None
        await created(store, an_instance(status, status=status, ended_at=ended_at, versions=(f"of {status}",)))

    living = {f"of {status}" for status in Status if status not in TERMINAL}
    assert await store.live_versions() == living
    assert [await store.unfinished_on(version) for version in sorted(living)] == [1] * len(living)


async def test_a_manifest_stays_known_after_a_decision_that_named_it_first_failed(store: Store) -> None:
    wrong = Decision(create=an_instance("wrong", status=Status.COMPLETE, versions=("a", "b")))
    right = Decision(create=an_instance("right", versions=("a", "b")))

    told = await outcomes(store, [wrong, right])
    await created(store, an_instance("later", versions=("a", "b")))

    assert [type(error) for error in told] == [StorageError, type(None)]
    assert await store.live_versions() == {"a", "b"}


async def test_blobs_come_back_by_their_hash_and_an_equal_one_is_kept_once(store: Store) -> None:
    data = b"large" * 100_000
    sha256 = hashlib.sha256(data).hexdigest()
    other = hashlib.sha256(b"other").hexdigest()
    await record(
        store,
        Decision([an_entry(0)], create=an_instance(), blobs=[(ACCOUNT, sha256, data), (ACCOUNT, other, b"other")]),
        Decision([an_entry(1)], blobs=[(ACCOUNT, sha256, data)]),
    )

    assert await store.blobs(ACCOUNT, [sha256, other, "0" * 64]) == {sha256: data, other: b"other"}
    assert await store.blobs("someone-else", [sha256]) == {}
    assert await store.blobs(ACCOUNT, []) == {}
