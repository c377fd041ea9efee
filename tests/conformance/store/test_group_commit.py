"""Groups: all or nothing per decision, a guilty one fails alone, and everyone is told, in order, once it is on disk."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.store.kit import (
    ACCOUNT,
    WORKFLOW,
    Backend,
    a_deployment,
    a_version,
    an_entry,
    an_instance,
    an_update,
    outcomes,
    record,
)

from stellwerk.core import limits
from stellwerk.core.errors import CapacityError, InstanceExistsError, StorageError
from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision, JournalRow, Store

pytestmark = pytest.mark.anyio


async def journal(store: Store, instance_id: str = "order-1") -> list[bytes]:
    run = await store.load_run(ACCOUNT, WORKFLOW, instance_id)
    return [] if run is None else run.journal


async def test_a_taken_id_fails_alone_and_writes_nothing(store: Store) -> None:
    await record(store, Decision([an_entry(0, "mine")], create=an_instance()))

    told = await outcomes(
        store,
        [
            Decision([an_entry(0, instance_id="before")], create=an_instance("before")),
            Decision([an_entry(7, "not mine")], create=an_instance()),
            Decision([an_entry(0, instance_id="after")], create=an_instance("after")),
        ],
    )

    assert [type(error) for error in told] == [type(None), InstanceExistsError, type(None)]
    assert '"order-1"' in str(told[1])
    assert await journal(store) == [b"mine"]
    assert await journal(store, "before") == await journal(store, "after") == [b"entry 0"]


async def test_of_two_creates_of_one_id_in_one_group_the_first_wins(store: Store) -> None:
    told = await outcomes(
        store,
        [
            Decision([an_entry(0, "first")], create=an_instance()),
            Decision([an_entry(0, "second")], create=an_instance()),
        ],
    )

    assert [type(error) for error in told] == [type(None), InstanceExistsError]
    assert await journal(store) == [b"first"]


async def test_the_id_of_an_ended_instance_stays_taken(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    await record(store, Decision(update=an_update(Status.COMPLETE, ended_at=1)))

    told = await outcomes(store, [Decision(create=an_instance())])

    assert isinstance(told[0], InstanceExistsError)


async def test_a_constraint_violation_fails_alone_and_takes_back_all_of_its_own(store: Store) -> None:
    await record(store, *[Decision([an_entry(0, instance_id=name)], create=an_instance(name)) for name in "abc"])
    guilty = Decision(
        [an_entry(1, instance_id="b"), an_entry(0, "twice", instance_id="b")],
        update=an_update(Status.RUNNING, instance_id="b"),
        blobs=[(ACCOUNT, "f" * 64, b"data")],
    )

    told = await outcomes(
        store, [Decision([an_entry(1, instance_id="a")]), guilty, Decision([an_entry(1, instance_id="c")])]
    )
    b = await store.load_run(ACCOUNT, WORKFLOW, "b")

    assert [type(error) for error in told] == [type(None), StorageError, type(None)]
    assert "UNIQUE constraint" in str(told[1]) or "comes where" in str(told[1])
    assert b is not None
    assert (b.row.status, b.journal) == (Status.QUEUED, [b"entry 0"])
    assert await store.blobs(ACCOUNT, ["f" * 64]) == {}
    assert await journal(store, "a") == await journal(store, "c") == [b"entry 0", b"entry 1"]


async def test_the_guilty_one_is_found_among_hundreds(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    decisions = [Decision([an_entry(seq)]) for seq in range(500)]
    decisions.insert(250, Decision([an_entry(3, "again")]))

    told = await outcomes(store, decisions)

    assert [place for place, error in enumerate(told) if error is not None] == [250]
    assert len(await journal(store)) == 500


@pytest.mark.parametrize(
    "row",
    [
        (ACCOUNT, WORKFLOW, "order-1", 1, "not a number", 0, b""),
        (ACCOUNT, WORKFLOW, "order-1", 1, 1, 0, "text instead of bytes"),
        (ACCOUNT, WORKFLOW, "order-1", 1, 2**70, 0, b""),
        (ACCOUNT, WORKFLOW, "order-1", 1, -1, 0, b""),
        (ACCOUNT, WORKFLOW, "\ud800", 1, 1, 0, b""),
        (ACCOUNT, WORKFLOW, "order-1", 1, 1, 0, object()),
        (ACCOUNT, WORKFLOW, "order-1", 1),
    ],
    ids=["type", "text", "size", "negative", "surrogate", "object", "length"],
)
async def test_a_row_that_cannot_be_stored_fails_alone(store: Store, row: JournalRow) -> None:
    await record(store, Decision(create=an_instance()))

    told = await outcomes(store, [Decision([an_entry(0)]), Decision([row]), Decision([an_entry(1)])])

    assert [type(error) for error in told] == [type(None), StorageError, type(None)]
    assert await journal(store) == [b"entry 0", b"entry 1"]


async def test_no_entry_is_stored_over_a_hole(store: Store) -> None:
    """An owner hands over its next decision before it hears that the last one was refused: that one must fail too."""
    await record(store, Decision([an_entry(0)], create=an_instance()))
    refused: JournalRow = (ACCOUNT, WORKFLOW, "order-1", 1, 1, 0, "text instead of bytes")  # type: ignore[assignment]

    told = await outcomes(store, [Decision([refused]), Decision([an_entry(2), an_entry(3)]), Decision([an_entry(4)])])
    again = await outcomes(store, [Decision([an_entry(2)]), Decision([an_entry(1)])])

    assert [type(error) for error in (*told, *again)] == [StorageError] * 4 + [type(None)]
    assert [error.retryable for error in told if isinstance(error, StorageError)] == [False, True, True]
    assert await journal(store) == [b"entry 0", b"entry 1"]


async def test_everyone_is_told_in_the_order_of_submission(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    told: list[int] = []
    over = asyncio.Event()

    def telling(number: int) -> Decision:
        def done(error: Exception | None) -> None:
            told.append(number)
            if number == 99:
                over.set()

        entry = an_entry(number if number < 50 else number - 1)  # one of them fails, and keeps its place
        return Decision([entry], done=done)

    for begin in range(0, 100, 10):
        store.submit([telling(number) for number in range(begin, begin + 10)])
    await over.wait()

    assert told == list(range(100))


async def test_nobody_is_told_inside_submit(store: Store) -> None:
    told: list[Exception | None] = []
    over = asyncio.Event()

    def done(error: Exception | None) -> None:
        told.append(error)
        over.set()

    store.submit([Decision(create=an_instance(), done=done)])

    assert told == []
    assert store.pending
    await over.wait()
    assert (told, store.pending) == ([None], False)


async def test_an_owner_that_fails_when_told_does_not_silence_the_others(store: Store) -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    over = asyncio.Event()

    def failing(error: Exception | None) -> None:
        raise RuntimeError("the owner is broken")

    store.submit(
        [Decision(create=an_instance("a"), done=failing), Decision(create=an_instance("b"), done=lambda _: over.set())]
    )
    await over.wait()
    loop.set_exception_handler(None)

    assert [str(context["exception"]) for context in reported] == ["the owner is broken"]


async def test_a_decision_without_done_is_stored_as_well(store: Store) -> None:
    store.submit([Decision([an_entry(0)], create=an_instance())])
    await record(store, Decision([an_entry(1)]))

    assert await journal(store) == [b"entry 0", b"entry 1"]


async def test_many_decisions_share_few_commits(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    before = store.commits

    await record(store, *[Decision([an_entry(seq)]) for seq in range(1_000)])

    assert 1 <= store.commits - before <= 3


async def test_more_than_a_group_holds_is_stored_in_several(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    before = store.commits
    rows = limits.GROUP_ROWS_MAX

    large = Decision([an_entry(seq) for seq in range(rows + 10)])  # cannot be split, so it goes alone
    await record(store, large, *[Decision([an_entry(rows + 10 + seq)]) for seq in range(rows + 10)])

    assert len(await journal(store)) == 2 * rows + 20
    assert store.commits - before >= 3


async def test_nothing_to_write_is_nothing_to_wait_for(store: Store) -> None:
    store.submit([])

    assert not store.pending


async def test_a_decision_that_writes_nothing_is_told(store: Store) -> None:
    assert await outcomes(store, [Decision()]) == [None]


async def test_too_many_waiting_writes_are_refused(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    too_many = [Decision()] * (limits.WRITES_WAITING_MAX + 1)

    with pytest.raises(CapacityError):
        store.submit(too_many)

    assert not store.pending
    await record(store, Decision([an_entry(0)]))


async def test_a_read_sees_every_write_that_was_acknowledged_before(store: Store) -> None:
    await record(store, Decision(create=an_instance()))
    for seq in range(50):
        await record(store, Decision([an_entry(seq)]))
        assert len(await journal(store)) == seq + 1


async def test_commands_and_decisions_keep_their_order_in_one_group(store: Store) -> None:
    store.submit([Decision(create=an_instance())])
    version = asyncio.ensure_future(store.add_version(a_version("version-1", "a")))
    refused = asyncio.ensure_future(store.add_deployment(a_deployment("deployment-1", ("no-such-version", 100))))
    await asyncio.sleep(0)  # one turn: both have been handed over
    told = await outcomes(store, [Decision([an_entry(0)]), Decision([an_entry(0, "twice")])])

    assert [type(error) for error in told] == [type(None), StorageError]
    assert (await version).number == 1
    with pytest.raises(StorageError):
        await refused


async def test_of_two_nodes_that_race_for_one_state_the_first_is_fenced(backend: Backend) -> None:
    first = await backend.open("node-1")
    await record(first, Decision(create=an_instance("before")))
    second = await backend.open("node-2")

    told = await outcomes(first, [Decision(create=an_instance("claimed")), Decision(create=an_instance("more"))])
    await record(second, Decision([an_entry(0, instance_id="claimed")], create=an_instance("claimed")))
    again = await outcomes(first, [Decision([an_entry(1, instance_id="claimed")])])

    assert [getattr(error, "code", None) for error in told + again] == ["store.fenced"] * 3
    assert not any(getattr(error, "retryable", True) for error in told)
    with pytest.raises(StorageError):
        await first.add_version(a_version("version-1", "a"))
    assert await journal(second, "claimed") == [b"entry 0"]
    await first.close()
    await second.close()


async def test_what_was_stored_is_there_after_reopening(backend: Backend) -> None:
    first = await backend.open()
    await record(first, Decision([an_entry(0)], create=an_instance(versions=("a", "b"))))
    await first.close()

    second = await backend.open()
    await record(second, Decision([an_entry(1)]), Decision(create=an_instance("order-2")))
    told = await outcomes(second, [Decision(create=an_instance())])

    assert isinstance(told[0], InstanceExistsError)
    assert await journal(second) == [b"entry 0", b"entry 1"]
    assert await second.live_versions() == {"a", "b", "version-1"}
    assert [row.instance_id for row in (await second.unfinished(limit=9))[0]] == ["order-1", "order-2"]
    await second.close()


async def test_closing_commits_what_waits(backend: Backend) -> None:
    first = await backend.open()
    told: list[Exception | None] = []
    first.submit([Decision(create=an_instance())])
    for seq in range(100):
        first.submit([Decision([an_entry(seq)], done=told.append)])
    await first.close()

    second = await backend.open()

    assert told == [None] * 100
    assert len(await journal(second)) == 100
    await second.close()


async def test_a_closed_store_refuses(backend: Backend) -> None:
    store = await backend.open()
    await asyncio.gather(store.close(), store.close())
    await store.close()

    with pytest.raises(StorageError):
        store.submit([Decision(create=an_instance())])
    with pytest.raises(StorageError):
        await store.instance(ACCOUNT, WORKFLOW, "order-1")
    with pytest.raises(StorageError):
        await store.add_version(a_version("version-1", "a"))


async def test_a_caller_that_gave_up_does_not_disturb(store: Store) -> None:
    reading = asyncio.ensure_future(store.instance(ACCOUNT, WORKFLOW, "order-1"))
    writing = asyncio.ensure_future(store.add_version(a_version("version-1", "a")))
    await asyncio.sleep(0)
    reading.cancel()
    writing.cancel()

    await record(store, Decision(create=an_instance()))

    assert [row.version_id for row in await store.versions(ACCOUNT, "orders-worker")] == ["version-1"]


async def test_the_durability_settings_are_those_read_back(store: Store) -> None:
    assert store.settings["engine"]
    store.settings["engine"] = "changed by a caller"
    assert store.settings["engine"] != "changed by a caller"
