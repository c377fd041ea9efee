"""A disk that is full, or fails: what was acknowledged stays, what was not is said so, and the store comes back.

Full is made twice: a small file system where this machine lets us mount one, and a limit on the size of files, which
every machine has. A failing fsync is made with SQLite's own seam below the file: a VFS that counts and refuses; the
committer is then asked directly, since it is what the writing process consists of.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import apsw
import psutil
import pytest
from tests.conformance.store.kit import ACCOUNT, NOW, WORKFLOW, a_version, an_entry, an_instance, outcomes, record
from tests.fault.committer_kit import CommitterKit, a_record

from stellwerk.core.errors import StorageError
from stellwerk.store.base import Decision
from stellwerk.store.sqlite import messages
from stellwerk.store.sqlite.committer import Committer
from stellwerk.store.sqlite.store import SqliteStore
from stellwerk.store.sqlite.workflow import live_versions

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
    """The process that writes inherits the limit, and is freed of it with the others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def free() -> None:
        for process in (psutil.Process(), *psutil.Process().children()):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, hard))
    try:
        yield Disk(tmp_path, free)
    finally:
        free()


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


@pytest.fixture
def kit(tmp_path: Path, failing_disk: FailingDisk) -> Iterator[CommitterKit]:
    made = CommitterKit(tmp_path / "stellwerk.db")
    yield made
    made.close()


REFUSED = StorageError.code


def test_after_a_failed_sync_nothing_is_acknowledged_and_no_sync_is_repeated(
    kit: CommitterKit, failing_disk: FailingDisk
) -> None:
    assert kit.told(a_record(an_entry(0), create=an_instance())) == [""]

    failing_disk.broken = True
    told = kit.told(a_record(an_entry(1)), a_record(an_entry(0, "twice")), a_record(an_entry(2)))
    command = kit.told(messages.AddVersion(a_version("version-1", "a")))
    failing_disk.broken = False
    anew = kit.told(a_record(an_entry(1, "anew")), a_record(create=an_instance("order-2")))

    assert told == [REFUSED] * 3
    assert command == [REFUSED]
    assert failing_disk.failed
    assert not failing_disk.synced_after_failure
    assert anew == ["", ""]
    assert kit.journal() == [b"entry 0", b"anew"]


def test_what_waits_behind_a_failed_group_does_not_leave_a_hole_in_a_journal(
    kit: CommitterKit, failing_disk: FailingDisk
) -> None:
    """The disk fails for one group. The next one was handed over before anybody heard of it, and would be written."""
    kit.told(a_record(an_entry(0), create=an_instance()), a_record(create=an_instance("order-2")))
    failing_disk.broken = failing_disk.heals = True

    failed = kit.told(a_record(an_entry(1), an_entry(2)))
    behind = kit.told(a_record(an_entry(3)), a_record(an_entry(0, instance_id="order-2")))
    anew = kit.told(a_record(an_entry(1, "decided anew")))

    assert (failed, behind, anew) == ([REFUSED], [REFUSED, ""], [""])
    assert kit.journal() == [b"entry 0", b"decided anew"]


def test_what_failed_once_may_be_written_again(kit: CommitterKit, failing_disk: FailingDisk) -> None:
    """Also the memory of the writer must go: it may have believed in a manifest or a run that was never stored."""
    failing_disk.broken = True
    first = kit.told(a_record(an_entry(0), create=an_instance(versions=("a", "b"))))
    orphan = kit.told(a_record(an_entry(1)))
    failing_disk.broken = False

    missing = kit.told(a_record(an_entry(1)))
    again = kit.told(a_record(an_entry(0), create=an_instance(versions=("a", "b"))))

    assert (first, orphan, missing, again) == ([REFUSED], [REFUSED], [REFUSED], [""])
    assert live_versions(kit.reader) == {"a", "b"}


def test_a_file_that_cannot_be_reopened_yet_fails_each_group_and_comes_back(
    kit: CommitterKit, failing_disk: FailingDisk
) -> None:
    kit.told(a_record(create=an_instance()))
    failing_disk.broken = True
    kit.told(a_record(an_entry(0)))
    failing_disk.broken = False

    away = kit.path.with_suffix(".away")
    kit.path.rename(away)  # as when a mount is lost
    gone = kit.told(a_record(an_entry(0)))
    away.rename(kit.path)

    assert gone == [REFUSED]
    assert kit.told(a_record(an_entry(0))) == [""]
    assert kit.journal() == [b"entry 0"]


def test_runs_are_numbered_behind_those_of_a_writer_before_with_the_same_epoch(kit: CommitterKit) -> None:
    """A process that writes may die and be followed by another one, while their node goes on."""
    kit.told(a_record(an_entry(0), create=an_instance("order-1")))
    kit.committer.close()
    kit.committer = Committer(kit.path, epoch=1)

    assert kit.told(a_record(an_entry(0, "second", instance_id="order-2"), create=an_instance("order-2"))) == [""]
    assert (kit.journal("order-1"), kit.journal("order-2")) == ([b"entry 0"], [b"second"])


async def test_a_process_that_died_with_its_store_leaves_no_process_behind(tmp_path: Path) -> None:
    """What was handed over and not acknowledged may be in the file or not; the file is whole either way."""
    script = f"""
import asyncio, os
from pathlib import Path
from tests.conformance.store.kit import an_entry, an_instance
from stellwerk.store.base import Decision
from stellwerk.store.sqlite.store import SqliteStore

async def careless():
    store = await SqliteStore.open(Path({str(tmp_path / "stellwerk.db")!r}), owner="node-1", now_ms=1)
    print(store.writer_pid, flush=True)
    await asyncio.sleep(0)
    store.submit([Decision([an_entry(seq)], create=None if seq else an_instance()) for seq in range(3_000)])
    os._exit(0)

asyncio.run(careless())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    with suppress(psutil.NoSuchProcess):
        assert psutil.wait_procs([psutil.Process(int(done.stdout))], timeout=10)[0]

    store = await SqliteStore.open(tmp_path / "stellwerk.db", owner="node-2", now_ms=NOW)
    run = await store.load_run(ACCOUNT, WORKFLOW, "order-1")
    await store.close()

    assert run is None or run.journal == [b"entry %d" % seq for seq in range(len(run.journal))]
