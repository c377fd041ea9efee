"""Bundles on a real disk: content decides the name, and a folder with a name is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stellwerk.core import limits
from stellwerk.core.errors import BundleError, StorageError
from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.bundles import Bundles, bundle_hash, check_files

FILES = {"src/entry.py": b"x = 1\n", "src/lib/a.py": b"", "data.txt": b"hello"}


class ManualClock(SystemClock):
    """The machine's clock, moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_has_exactly_the_files_it_was_given(tmp_path: Path) -> None:
    async def run() -> None:
        bundles = Bundles(tmp_path / "bundles", SystemClock())
        await bundles.start()
        digest = await bundles.put(FILES)
        assert digest == bundle_hash(FILES)
        assert files_in(bundles.path(digest)) == FILES
        assert names_in(tmp_path / "bundles") == [digest]

    asyncio.run(run())


def test_equal_files_share_a_folder_and_other_files_do_not(tmp_path: Path) -> None:
    async def run() -> None:
        bundles = Bundles(tmp_path, SystemClock())
        await bundles.start()
        first, again, other = await asyncio.gather(
            bundles.put(FILES), bundles.put(dict(reversed(FILES.items()))), bundles.put({**FILES, "data.txt": b"hellO"})
        )
        assert first == again != other
        assert names_in(tmp_path) == sorted([first, other])

    asyncio.run(run())


def test_many_uploads_of_the_same_files_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    async def run() -> None:
        bundles = Bundles(tmp_path, SystemClock())
        await bundles.start()
        digests = await asyncio.gather(*(bundles.put(FILES) for _ in range(20)))
        assert set(digests) == {bundle_hash(FILES)}
        assert names_in(tmp_path) == [digests[0]]
        assert files_in(bundles.path(digests[0])) == FILES

    asyncio.run(run())


def test_the_border_between_path_and_content_is_part_of_the_hash() -> None:
    assert bundle_hash({"ab": b"c"}) != bundle_hash({"a": b"bc"})
    assert bundle_hash({"a": b"1", "b": b""}) != bundle_hash({"a": b"", "b": b"1"})


def test_what_a_killed_node_left_half_written_is_swept_and_written_anew(tmp_path: Path) -> None:
    digest = bundle_hash(FILES)
    left = tmp_path / f".scratch-{digest}-0f"
    (left / "src").mkdir(parents=True)
    (left / "src/entry.py").write_bytes(b"x =")

    async def run() -> None:
        bundles = Bundles(tmp_path, SystemClock())
        await bundles.start()
        assert not left.exists()
        assert await bundles.put(FILES) == digest
        assert files_in(bundles.path(digest)) == FILES

    asyncio.run(run())


def test_files_of_a_bundle_cannot_be_opened_for_writing_by_accident(tmp_path: Path) -> None:
    async def run() -> None:
        bundles = Bundles(tmp_path, SystemClock())
        await bundles.start()
        folder = bundles.path(await bundles.put(FILES))
        assert (folder / "src/entry.py").stat().st_mode & 0o222 == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up.py",
        "a/../b",
        "a//b",
        "a/./b",
        "",
        ".",
        "a/",
        "a\\b",
        "a\x00b",
        "a\nb",
        "\udc80",
        "x" * 256,
        "a/" * 300 + "b",
    ],
)
def test_an_unsafe_path_is_refused(path: str) -> None:
    with pytest.raises(BundleError, match="cannot be in a bundle"):
        check_files({path: b""})


def test_a_path_cannot_be_a_file_and_a_folder() -> None:
    with pytest.raises(BundleError, match="'a/b' is a file and the folder of 'a/b/c'"):
        check_files({"a/b": b"", "a/b/c": b""})


def test_too_many_files_are_refused_with_the_number_allowed() -> None:
    check_files({f"f{n}": b"" for n in range(limits.BUNDLE_FILES_MAX)})
    with pytest.raises(BundleError, match="20,001 files; a bundle may have 20,000"):
        check_files({f"f{n}": b"" for n in range(limits.BUNDLE_FILES_MAX + 1)})


def test_too_many_bytes_are_refused_with_the_largest_file() -> None:
    chunk = bytes(limits.BUNDLE_BYTES_MAX // 2)
    check_files({"a": chunk, "b": chunk})
    with pytest.raises(BundleError, match=r"The largest is c "):
        check_files({"a": chunk[:-10], "c": chunk + b"12345678901"})


def test_collecting_spares_what_is_needed_and_what_is_young(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        bundles = Bundles(tmp_path, clock)
        await bundles.start()
        needed, unneeded = await bundles.put({"a": b"1"}), await bundles.put({"a": b"2"})
        assert await bundles.collect([needed]) == []
        clock.ahead_ms = limits.BUNDLE_GRACE_MS + 10_000
        young = await bundles.put({"a": b"3"})
        assert await bundles.collect([needed]) == [unneeded]
        assert names_in(tmp_path) == sorted([needed, young])

    asyncio.run(run())


def test_an_upload_of_the_same_files_starts_the_grace_time_anew(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        bundles = Bundles(tmp_path, clock)
        await bundles.start()
        digest = await bundles.put(FILES)
        clock.ahead_ms = limits.BUNDLE_GRACE_MS + 10_000
        assert await bundles.put(FILES) == digest
        assert await bundles.collect([]) == []
        clock.ahead_ms *= 2
        assert bundles.path(digest).exists()
        assert await bundles.collect([]) == [digest]
        assert not bundles.claim(digest)

    asyncio.run(run())


def test_a_disk_that_refuses_is_the_platforms_fault_and_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        bundles = Bundles(tmp_path / "bundles", SystemClock())
        await bundles.start()
        (tmp_path / "bundles").rename(tmp_path / "moved")
        (tmp_path / "bundles").touch()
        with pytest.raises(StorageError, match="cannot be written: Not a directory"):
            await bundles.put(FILES)
        assert names_in(tmp_path / "moved") == []

    asyncio.run(run())
