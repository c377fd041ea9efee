"""Dependencies: the packages of a version, installed once for all versions that name the same.

They are installed by ``uv pip install --target`` into a folder named by the hash of the requirements, the Python and
the platform; only wheels are taken, since building a source distribution runs a stranger's program. (Building inside
an isolate is not there yet; a Worker that asks for it, ``allow_sdist``, is refused with a sentence that says so.)

The node's environment and the operator's own uv configuration count (``UV_INDEX_URL``, ``UV_EXTRA_INDEX_URL``, proxies,
credentials); a configuration in the Worker's folder does not, so uv runs where it finds none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uv

from stellwerk.core import limits
from stellwerk.core.errors import DependencyError
from stellwerk.node.clock import Clock
from stellwerk.node.deployment.bundles import unwritable
from stellwerk.node.deployment.content_folders import ContentFolders
from stellwerk.node.deployment.interpreter import Interpreter, this_interpreter
from stellwerk.node.deployment.requirements import PYPROJECT, REQUIREMENTS, VENDORED, Requirements, read_requirements

_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_NOISE = ("Using CPython", "Using Python", "Using PyPy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Where a version's packages are. ``folders`` go on ``sys.path`` after the main module's own."""

    folders: tuple[Path, ...] = ()
    digest: str | None = None  # names the installed folder; None: nothing had to be installed
    notices: tuple[str, ...] = ()


class Dependencies:
    """The installed packages of one node, in ``<state>/dependencies/<sha256>/``."""

    def __init__(self, root: Path, clock: Clock, interpreter: Interpreter | None = None) -> None:
        self._folders = ContentFolders(root)
        self._clock = clock
        self._interpreter = interpreter or this_interpreter()
        self._installations: dict[str, asyncio.Task[Path]] = {}
        self._slots = asyncio.Semaphore(limits.INSTALLS_PARALLEL_MAX)

    async def start(self) -> None:
        """Makes the folder and sweeps what a killed process left half-installed."""
        await asyncio.to_thread(self._folders.sweep)

    async def stop(self) -> None:
        """Ends installations under way. Stopping twice is harmless."""
        running = list(self._installations.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def ensure(self, bundle: Path, *, allow_sdist: bool = False) -> Installed:
        """The packages that the files in ``bundle`` ask for; installs them unless they are there.

        Installed ones come before vendored ones (``python_modules/``): what Cloudflare's tools vendor was built for
        WebAssembly, and is only used where nothing says what it was made from.

        Raises ``DependencyError`` with the installer's own words when something cannot be had, or takes longer than
        five minutes; ``StorageError`` when the disk refuses.
        """
        wanted = await asyncio.to_thread(self._read, bundle)
        vendored = (bundle / VENDORED,) if wanted.vendored else ()
        if not wanted.lines:
            return Installed(folders=vendored, notices=wanted.notices)
        if allow_sdist:
            raise DependencyError(
                "allow_sdist = true: building source distributions is not supported yet.",
                cure="Remove allow_sdist to install wheels only, or vendor the package in python_modules/.",
            )
        digest = self._digest(wanted.lines)
        folder = self._folders.path(digest)
        if not self._folders.claim(digest, now_ms=self._clock.now_ms()):
            folder = await self._install_once(digest, wanted.lines)
        return Installed(folders=(folder, *vendored), digest=digest, notices=wanted.notices)

    def digest_of(self, files: Mapping[str, bytes]) -> str | None:
        """The name of the folder that ``files`` need, without installing it."""
        wanted = read_requirements(files, python_version=self._interpreter.version)
        return self._digest(wanted.lines) if wanted.lines else None

    def claim(self, digest: str) -> bool:
        """Whether the folder exists; if so, its grace time starts anew."""
        return self._folders.claim(digest, now_ms=self._clock.now_ms())

    async def collect(self, keep: Iterable[str]) -> list[str]:
        """Removes the folders that are not in ``keep`` and were not claimed within the grace time; returns them."""
        before_ms = self._clock.now_ms() - limits.BUNDLE_GRACE_MS
        return await asyncio.to_thread(self._folders.retire, keep=frozenset(keep), unused_since_ms=before_ms)

    def _read(self, bundle: Path) -> Requirements:
        return read_requirements(dependency_files(bundle), python_version=self._interpreter.version)

    def _digest(self, lines: tuple[str, ...]) -> str:
        text = "\n".join([self._interpreter.abi, self._interpreter.platform, *lines])
        return hashlib.sha256(text.encode()).hexdigest()

    async def _install_once(self, digest: str, lines: tuple[str, ...]) -> Path:
        """One installation however many ask for it; the one who gives up waiting does not end it for the others."""
        task = self._installations.get(digest)
        if task is None:
            task = asyncio.create_task(self._install(digest, lines), name=f"install {digest[:12]}")
            self._installations[digest] = task
            task.add_done_callback(lambda _: self._installations.pop(digest, None))
        return await asyncio.shield(task)

    async def _install(self, digest: str, lines: tuple[str, ...]) -> Path:
        try:
            return await self._install_folder(digest, lines)
        except OSError as error:
            raise unwritable("The dependencies", error) from error

    async def _install_folder(self, digest: str, lines: tuple[str, ...]) -> Path:
        async with self._slots:
            scratch = self._folders.scratch(f"{digest}-{self._clock.new_uuid()}")
            try:
                await self._run_uv(scratch, lines)
                return await asyncio.to_thread(self._folders.publish, scratch, digest, now_ms=self._clock.now_ms())
            finally:
                # After a success there is nothing under this name any more.
                await asyncio.to_thread(self._folders.discard, scratch)

    async def _run_uv(self, target: Path, lines: tuple[str, ...]) -> None:
        process = await asyncio.create_subprocess_exec(
            *_command(self._interpreter, target),
            cwd="/",  # uv reads its configuration from here and above: none of the Worker's must count
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limits.INSTALL_TIMEOUT_MS / 1000):
                output, _ = await process.communicate("\n".join(lines).encode())
        except TimeoutError:
            raise DependencyError(
                f"The dependencies were not installed within {limits.INSTALL_TIMEOUT_MS // 1000} seconds.",
                cure="Look at the network and the package index, then deploy again.",
            ) from None
        finally:
            await _end(process)
        if process.returncode != 0:
            raise DependencyError(
                f"The dependencies cannot be installed. uv says: {shorten(output.decode(errors='replace'))}",
                cure="Name a version that has a wheel for this Python, or vendor the package in python_modules/.",
            )


def dependency_files(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle that say something about dependencies; a vendored folder is there as one entry."""
    names = [name for name in (PYPROJECT, REQUIREMENTS) if (bundle / name).is_file()]
    files = {name: (bundle / name).read_bytes() for name in names}
    if (bundle / VENDORED).is_dir():
        files[f"{VENDORED}/"] = b""
    return files


def shorten(output: str) -> str:
    """What uv said, without its small talk and without passwords, at most ``INSTALL_ERROR_CHARS_MAX`` long."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip() and not line.startswith(_NOISE)]
    text = _CREDENTIALS.sub("://***@", "\n".join(lines))
    limit = limits.INSTALL_ERROR_CHARS_MAX
    return text if len(text) <= limit else text[:limit] + " ..."


def _command(interpreter: Interpreter, target: Path) -> list[str]:
    return [
        uv.find_uv_bin(),
        "pip",
        "install",
        "--requirements=-",
        "--only-binary=:all:",
        f"--target={target}",
        f"--python={interpreter.executable}",
        "--no-python-downloads",
        "--link-mode=copy",  # a hard link would let a Worker write into uv's cache, and so into other Workers
        "--compile-bytecode",  # isolates cannot write here, so what is not compiled now is compiled at every start
        "--no-progress",
        "--color=never",
    ]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends uv and whatever it started, and waits until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
