"""Versions and deployments: numbered per Worker, never stored twice, the newest deployment serves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.conformance.store.kit import ACCOUNT, NOW, Backend, a_deployment, a_version

from stellwerk.core.errors import InvalidRequestError, StorageError
from stellwerk.store.base import Store

pytestmark = pytest.mark.anyio
WORKER = "orders-worker"


async def uploaded(store: Store, *names: str, worker: str = WORKER) -> None:
    for name in names:
        await store.add_version(a_version(name, f"content of {name}", worker=worker))


async def test_a_version_comes_back_as_it_was_given_with_its_number(store: Store) -> None:
    row = a_version("version-1", "a")

    stored = await store.add_version(row)

    assert stored == replace(row, number=1)
    assert await store.version("version-1") == stored
    assert await store.version("version-2") is None


async def test_versions_are_numbered_per_worker_and_listed_newest_first(store: Store) -> None:
    await uploaded(store, "a", "b", "c")
    await uploaded(store, "x", worker="other")

    listed = [(row.number, row.version_id) for row in await store.versions(ACCOUNT, WORKER)]

    assert listed == [(3, "c"), (2, "b"), (1, "a")]
    assert [row.number for row in await store.versions(ACCOUNT, "other")] == [1]
    assert await store.versions("someone-else", WORKER) == []


async def test_the_same_upload_again_is_the_same_version(store: Store) -> None:
    first = await store.add_version(a_version("version-1", "a"))

    again = await store.add_version(a_version("version-2", "a", created_at=NOW + 5))

    assert again == first
    assert await store.version("version-2") is None
    assert len(await store.versions(ACCOUNT, WORKER)) == 1


async def test_equal_content_of_another_worker_is_another_version(store: Store) -> None:
    await store.add_version(a_version("version-1", "a"))

    other = await store.add_version(a_version("version-2", "a", worker="other"))

    assert (other.version_id, other.number) == ("version-2", 1)


async def test_equal_uploads_at_the_same_moment_make_one_version(store: Store) -> None:
    rows = await asyncio.gather(*[store.add_version(a_version(f"version-{number}", "a")) for number in range(10)])

    assert len({row.version_id for row in rows}) == 1


async def test_a_version_id_is_used_once_over_all_accounts(store: Store) -> None:
    await store.add_version(a_version("version-1", "a"))

    with pytest.raises(StorageError):
        await store.add_version(a_version("version-1", "b", account_id="someone-else"))


async def test_the_newest_deployment_serves_whatever_its_time_says(store: Store) -> None:
    await uploaded(store, "a", "b")
    first = a_deployment("deployment-1", ("a", 100.0), created_at=NOW)
    second = a_deployment("deployment-2", ("b", 90.0), ("a", 10.0), created_at=NOW - 5_000)  # the clock went back

    await store.add_deployment(first)
    await store.add_deployment(second)

    assert await store.deployments(ACCOUNT, WORKER) == [second, first]
    assert await store.current_deployments() == [second]


async def test_every_worker_of_every_account_has_its_current_deployment(store: Store) -> None:
    await uploaded(store, "a")
    await uploaded(store, "x", worker="other")
    await store.add_version(a_version("s", "s", account_id="someone-else"))
    mine = a_deployment("deployment-1", ("a", 100.0))
    other = a_deployment("deployment-2", ("x", 100.0), worker="other")
    theirs = a_deployment("deployment-3", ("s", 100.0), account_id="someone-else")

    for row in (theirs, other, mine):
        await store.add_deployment(row)

    assert await store.current_deployments() == [mine, other, theirs]


@pytest.mark.parametrize(
    "versions",
    [(), (("a", 99.0),), (("a", 60.0), ("b", 60.0)), (("a", 40.0), ("b", 30.0), ("c", 30.0))],
    ids=["none", "too little", "too much", "three"],
)
async def test_a_split_that_is_none_is_the_callers_error(store: Store, versions: tuple[tuple[str, float], ...]) -> None:
    await uploaded(store, "a", "b", "c")

    with pytest.raises(InvalidRequestError):
        await store.add_deployment(a_deployment("deployment-1", *versions))

    assert await store.current_deployments() == []


@pytest.mark.parametrize(
    "versions",
    [(("nobody", 100.0),), (("x", 100.0),), (("a", 50.0), ("a", 50.0)), (("a", 110.0), ("b", -10.0))],
    ids=["unknown", "of another worker", "twice", "negative"],
)
async def test_a_deployment_that_cannot_serve_is_refused_whole(
    store: Store, versions: tuple[tuple[str, float], ...]
) -> None:
    await uploaded(store, "a", "b")
    await uploaded(store, "x", worker="other")
    serving = a_deployment("deployment-1", ("a", 100.0))
    await store.add_deployment(serving)

    with pytest.raises(StorageError):
        await store.add_deployment(a_deployment("deployment-2", *versions))

    assert await store.deployments(ACCOUNT, WORKER) == [serving]


async def test_a_removed_worker_serves_no_more_and_its_versions_stay(store: Store) -> None:
    await uploaded(store, "a")
    await store.add_deployment(a_deployment("deployment-1", ("a", 100.0)))

    assert await store.remove_worker(ACCOUNT, WORKER) is True
    assert await store.remove_worker(ACCOUNT, WORKER) is False
    assert await store.current_deployments() == []
    assert await store.deployments(ACCOUNT, WORKER) == []
    assert await store.version("a") is not None


async def test_a_removed_worker_can_be_deployed_again_and_goes_on_counting(store: Store) -> None:
    await uploaded(store, "a")
    await store.add_deployment(a_deployment("deployment-1", ("a", 100.0)))
    await store.remove_worker(ACCOUNT, WORKER)

    await uploaded(store, "b")
    await store.add_deployment(a_deployment("deployment-2", ("b", 100.0)))

    assert [row.number for row in await store.versions(ACCOUNT, WORKER)] == [2, 1]
    assert [row.deployment_id for row in await store.current_deployments()] == ["deployment-2"]


async def test_versions_and_deployments_are_there_after_reopening(backend: Backend) -> None:
    first = await backend.open()
    await uploaded(first, "a")
    await first.add_deployment(a_deployment("deployment-1", ("a", 100.0)))
    await first.close()

    second = await backend.open()

    assert [row.versions for row in await second.current_deployments()] == [(("a", 100.0),)]
    await second.close()
