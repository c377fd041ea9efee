"""A disk that is full, or fails: what was acknowledged stays, what was not is said so, and the store comes back.

Full is made twice: a small file system where this machine lets us mount one, and a limit on the size of files, which
every machine has. A failing fsync is made with SQLite's own seam below the file: a VFS that counts and refuses.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from tests.conformance.store.kit import ACCOUNT, NOW, WORKFLOW, a_version, an_entry, an_instance, outcomes, record

from stellwerk.core import limits
from stellwerk.core.errors import StorageError
from stellwerk.store.base import Decision
from stellwerk.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio
SMALL_BYTES = 12 * 1024 * 1024
TEXT = "x" * 20_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Disk(NamedTuple):
    """A folder with little room, and how to make more."""

    folder: Path
    free: Callable[[], None]


def _limited(tmp_path: Path) -> Iterator[Disk]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, hard))
    try:
        yield Disk(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _mounted(tmp_path: Path) -> Iterator[Disk]:
    """Falls back to the limit where mounting is not allowed: the test runs everywhere."""
    options = f"size={2 * SMALL_BYTES}"
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True, check=False)
    if mount.returncode:
        yield from _limited(tmp_path)
        return
    try:
        filler = tmp_path / "filler"
        filler.write_bytes(bytes(SMALL_BYTES // 2))
        yield Disk(tmp_path, filler.unlink)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture(params=[_mounted, _limited], ids=["mounted", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    yield from request.param(tmp_path)


async def test_a_full_disk_refuses_and_loses_nothing_and_recovers_with_space(disk: Disk) -> None:
    path = disk.folder / "stellwerk.db"
    store = await SqliteStore.open(path, owner="node-1", now_ms=NOW)
    await record(store, Decision(create=an_instance()))
    acknowledged: list[int] = []
    refused: list[int] = []
    while len(refused) < 20:  # the disk takes a few hundred; the size of the disk bounds this loop
        wave = range(len(acknowledged), len(acknowledged) + 8)
        told = await outcomes(store, [Decision([an_entry(number, f"{number} {TEXT}")]) for number in wave])
        for number, error in zip(wave, told, strict=True):
            (acknowledged if error is None else refused).append(number)
            assert error is None or (type(error) is StorageError and error.retryable)

    full = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    assert full is not None
    assert [int(entry.split()[0]) for entry in full.journal] == acknowledged
    assert acknowledged

    disk.free()
    following = len(acknowledged)
    await record(store, Decision([an_entry(following, f"{following} again")]))
    await store.close()
    store = await SqliteStore.open(path, owner="node-1", now_ms=NOW)
    recovered = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert recovered is not None
    assert {int(entry.split()[0]) for entry in recovered.journal} == {*acknowledged, following}


class FailingDisk(apsw.VFS):
    """The machine's file system, except that syncs of the write-ahead log fail while ``broken``."""

    def __init__(self, base: str) -> None:
        super().__init__("failing", base=base, makedefault=True)
        self.base = base
        self.broken = False
        self.heals = False  # after one failure
        self.failed: list[int] = []  # which opening of the log was asked to sync and could not
        self.synced_after_failure = False
        self.openings = 0

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(disk.base, name, flags)
        self.disk = disk
        self.is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        self.number = disk.openings
        disk.openings += 1

    def xSync(self, flags: int) -> None:
        if self.is_log and self.disk.broken:
            self.disk.failed.append(self.number)
            self.disk.broken = not self.disk.heals
            raise apsw.IOError("the disk does not answer")
        if self.number in self.disk.failed:
            self.disk.synced_after_failure = True
        super().xSync(flags)


@pytest.fixture
def failing_disk() -> Iterator[FailingDisk]:
    before = apsw.vfs_names()[0]  # the first one is the default
    disk = FailingDisk(before)
    yield disk
    apsw.set_default_vfs(before)
    disk.unregister()


async def test_after_a_failed_sync_nothing_is_acknowledged_and_no_sync_is_repeated(
    tmp_path: Path, failing_disk: FailingDisk
) -> None:
    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
    await record(store, Decision([an_entry(0)], create=an_instance()))

    failing_disk.broken = True
    told = await outcomes(store, [Decision([an_entry(1)]), Decision([an_entry(0, "twice")]), Decision([an_entry(2)])])
    with pytest.raises(StorageError):
        await store.add_version(a_version("version-1", "a"))
    failing_disk.broken = False
    commits = store.commits
    await record(store, Decision([an_entry(1, "anew")]), Decision(create=an_instance("order-2")))
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert [type(error) for error in told] == [StorageError] * 3
    assert failing_disk.failed
    assert not failing_disk.synced_after_failure
    assert commits == 1
    assert run is not None
    assert run.journal == [b"entry 0", b"anew"]


async def test_what_waits_behind_a_failed_group_does_not_leave_a_hole_in_a_journal(
    tmp_path: Path, failing_disk: FailingDisk
) -> None:
    """The disk fails for one group. The next one was handed over before anybody heard of it, and would be written."""
    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
    await record(store, Decision([an_entry(0)], create=an_instance()), Decision(create=an_instance("order-2")))
    failing_disk.broken = failing_disk.heals = True
    whole_group = [an_entry(seq) for seq in range(1, 1 + limits.GROUP_ROWS_MAX)]
    behind = an_entry(1 + limits.GROUP_ROWS_MAX)

    told = await outcomes(
        store, [Decision(whole_group), Decision([behind]), Decision([an_entry(0, instance_id="order-2")])]
    )
    await record(store, Decision([an_entry(1, "decided anew")]))
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert [type(error) for error in told] == [StorageError, StorageError, type(None)]
    assert run is not None
    assert run.journal == [b"entry 0", b"decided anew"]


async def test_what_failed_once_may_be_submitted_again(tmp_path: Path, failing_disk: FailingDisk) -> None:
    """Also the memory of the writer must go: it may have believed in a manifest or a run that was never stored."""
    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
    failing_disk.broken = True
    first = await outcomes(store, [Decision([an_entry(0)], create=an_instance(versions=("a", "b")))])
    orphan = await outcomes(store, [Decision([an_entry(1)])])
    failing_disk.broken = False

    missing = await outcomes(store, [Decision([an_entry(1)])])
    await record(store, Decision([an_entry(0)], create=an_instance(versions=("a", "b"))))
    live = await store.live_versions()
    await store.close()

    assert [type(error) for error in (*first, *orphan, *missing)] == [StorageError] * 3
    assert live == {"a", "b"}


async def test_a_store_that_cannot_be_reopened_yet_fails_each_group_and_comes_back(
    tmp_path: Path, failing_disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stellwerk.db"
    store = await SqliteStore.open(path, owner="node-1", now_ms=NOW)
    await record(store, Decision(create=an_instance()))
    failing_disk.broken = True
    await outcomes(store, [Decision([an_entry(0)])])
    failing_disk.broken = False

    away = path.with_suffix(".away")
    path.rename(away)  # as when a mount is lost
    gone = await outcomes(store, [Decision([an_entry(0)])])
    away.rename(path)
    await record(store, Decision([an_entry(0)]))
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert isinstance(gone[0], StorageError)
    assert run is not None
    assert run.journal == [b"entry 0"]


def test_an_event_loop_that_ended_before_its_store_leaves_no_thread_behind(tmp_path: Path) -> None:
    async def careless() -> SqliteStore:
        store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
        store.submit([Decision([an_entry(seq)], create=an_instance() if seq == 0 else None) for seq in range(3_000)])
        return store

    store = asyncio.run(careless())
    del store

    async def careful() -> int:
        store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-1", now_ms=NOW)
        found = await store.unfinished(limit=10)
        await store.close()
        return len(found)

    assert asyncio.run(careful()) in (0, 1)  # nobody was told; the file is whole either way
