"""Dependencies with the real uv and a real index: one tiny wheel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stellwerk.core import limits
from stellwerk.core.errors import DependencyError
from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.dependencies import Dependencies, Installed, shorten

PYPROJECT = """
[project]
name = "orders"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["iniconfig", "workers-py"]

[dependency-groups]
dev = ["a-package-that-does-not-exist-anywhere"]
"""


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextlib.contextmanager
def a_silent_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """An index that takes connections and never answers; the node's environment points at it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setenv("UV_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        yield server


def a_bundle(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / {"pyproject": "pyproject.toml", "requirements": "requirements.txt"}[name]).write_text(text)
    return folder


@contextlib.asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Dependencies]:
    dependencies = Dependencies(root, SystemClock())
    await dependencies.start()
    try:
        yield dependencies
    finally:
        await dependencies.stop()


def test_a_package_of_pyproject_can_be_imported_from_the_installed_folder(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle", pyproject=PYPROJECT)

    async def run() -> Installed:
        async with opened(tmp_path / "dependencies") as dependencies:
            first, second = await asyncio.gather(dependencies.ensure(bundle), dependencies.ensure(bundle))
            assert first.folders == second.folders
            return first

    installed = asyncio.run(run())
    [folder] = installed.folders
    shown = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(folder)!r}); import iniconfig; print(iniconfig.__file__)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(str(folder))
    assert list(folder.rglob("*.pyc")), "compiled once, since isolates cannot write here"
    assert names_in(tmp_path / "dependencies") == [installed.digest]
    assert installed.notices == ("workers-py is not installed: every Worker has the SDK already.",)


def test_what_is_installed_once_needs_no_index_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig  # a comment\n")

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            first = await dependencies.ensure(bundle)
        monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        async with opened(tmp_path / "dependencies") as dependencies:
            assert await dependencies.ensure(bundle) == first

    asyncio.run(run())


def test_the_index_of_the_nodes_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "http://reader:s3cret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig")

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            with pytest.raises(DependencyError, match=r"127\.0\.0\.1:9") as caught:
                await dependencies.ensure(bundle)
            assert "s3cret" not in str(caught.value)
        assert names_in(tmp_path / "dependencies") == []

    asyncio.run(run())


def test_a_package_that_cannot_be_had_fails_with_uvs_own_words_and_leaves_nothing(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig==99999.0")

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            with pytest.raises(DependencyError, match=r"(?s)uv says: .*iniconfig==99999\.0") as caught:
                await dependencies.ensure(bundle)
            assert "Using CPython" not in str(caught.value)
        assert names_in(tmp_path / "dependencies") == []

    asyncio.run(run())


def test_an_installation_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is a socket that accepts and never answers."""
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig")
    monkeypatch.setattr(limits, "INSTALL_TIMEOUT_MS", 300)

    async def run() -> None:
        with a_silent_index(monkeypatch):
            async with opened(tmp_path / "dependencies") as dependencies:
                with pytest.raises(DependencyError, match="not installed within"):
                    await dependencies.ensure(bundle)
        assert names_in(tmp_path / "dependencies") == []

    asyncio.run(run())


def test_one_who_gives_up_does_not_end_the_installation_for_the_other(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig")

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            hasty = asyncio.create_task(dependencies.ensure(bundle))
            patient = asyncio.create_task(dependencies.ensure(bundle))
            async with asyncio.timeout(20):
                while not names_in(tmp_path / "dependencies"):  # noqa: ASYNC110 - a folder has no event
                    await asyncio.sleep(0)
            hasty.cancel()
            [folder] = (await patient).folders
            assert (folder / "iniconfig").is_dir()
            assert hasty.cancelled()

    asyncio.run(run())


def test_stopping_ends_uv_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig")

    async def run() -> None:
        with a_silent_index(monkeypatch) as server:
            async with opened(tmp_path / "dependencies") as dependencies:
                waiting = asyncio.create_task(dependencies.ensure(bundle))
                async with asyncio.timeout(20):
                    connection, _ = await asyncio.get_running_loop().sock_accept(server)
                with connection:
                    await dependencies.stop()
                    with pytest.raises(asyncio.CancelledError):
                        await waiting
        assert names_in(tmp_path / "dependencies") == []

    asyncio.run(run())


def test_a_worker_without_dependencies_installs_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            assert await dependencies.ensure(a_bundle(tmp_path / "none")) == Installed()
        assert names_in(tmp_path / "dependencies") == []

    asyncio.run(run())


def test_vendored_packages_are_on_the_path_as_they_are(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle")
    (bundle / "python_modules/vendored").mkdir(parents=True)

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            assert await dependencies.ensure(bundle) == Installed(folders=(bundle / "python_modules",))

    asyncio.run(run())


def test_asking_for_source_distributions_is_refused_by_name(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path / "bundle", requirements="iniconfig")

    async def run() -> None:
        async with opened(tmp_path / "dependencies") as dependencies:
            with pytest.raises(DependencyError, match="allow_sdist"):
                await dependencies.ensure(bundle, allow_sdist=True)

    asyncio.run(run())


def test_uvs_words_are_shortened_and_lose_their_passwords() -> None:
    long = "error: x\n" + "y" * 10_000
    assert len(shorten(long)) < limits.INSTALL_ERROR_CHARS_MAX + 10
    assert shorten("Using CPython 3.11\nerror: at https://me:secret@host/simple") == "error: at https://***@host/simple"
