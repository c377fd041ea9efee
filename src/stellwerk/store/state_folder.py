"""The state folder: everything a node keeps, and the two locks that keep it to one node at a time.

``node.lock`` is held exclusively for the node's whole life: a second node is refused at once, by name. ``alive`` is
about processes that outlive their node: each isolate holds its own opening of it with a *shared* lock. A starting node
takes it *exclusively* and waits until every process of its predecessor is gone, so that no effect of an old isolate
comes after the new node's first one; then it goes down to a shared lock, so that its own isolates can take theirs. Both
are flocks: the kernel drops them when the last holder dies, however it dies, so a crash leaves nothing to clean up.

Order: ``node.lock`` first. Who has it is the only one that may wait on ``alive``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stellwerk.core import limits
from stellwerk.core.errors import StateFolderError

UNSAFE_FILE_SYSTEMS: Final = {
    "tmpfs": "lives in memory and is empty after a restart of the machine",
    "ramfs": "lives in memory and is empty after a restart of the machine",
    "nfs": "does not keep the locks and the shared memory that the database needs",
    "nfs4": "does not keep the locks and the shared memory that the database needs",
    "cifs": "does not keep the locks and the shared memory that the database needs",
    "smb3": "does not keep the locks and the shared memory that the database needs",
    "9p": "does not keep the locks and the shared memory that the database needs",
    "fuse.sshfs": "does not keep the locks and the shared memory that the database needs",
}
PREDECESSOR_TIMEOUT_MS: Final = 10_000  # isolates die within milliseconds of their node; ten seconds is a stuck one
_POLL_S: Final = 0.01  # flock has no time-out of its own
_TOKEN_BYTES: Final = 32  # 256 bits


class StateFolder:
    """A state folder that this process holds, from ``open`` to ``close``."""

    def __init__(self, path: Path, lock: int, alive: int) -> None:
        """Use ``open``: it takes the locks."""
        self.path = path
        self._locks = [lock, alive]

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        force: bool = False,
        predecessor_timeout_ms: int = PREDECESSOR_TIMEOUT_MS,
        new_token: Callable[[int], str] = secrets.token_urlsafe,
    ) -> StateFolder:
        """Opens or creates the folder (mode 0700) with its token, its ballast and its subfolders.

        Blocks while processes of a predecessor end, at most ``predecessor_timeout_ms``. Raises ``StateFolderError``
        when another node holds it, when a predecessor's process does not end, when it belongs to somebody else or
        holds other files, or, without ``force``, on a file system that cannot keep the promise.
        """
        path = path.absolute()
        _make_private_folder(path)
        if not force:
            _refuse_unsafe_file_system(path)
        lock = _lock_node(path / "node.lock")
        try:
            alive = _wait_for_predecessor(path / "alive", predecessor_timeout_ms)
        except BaseException:
            os.close(lock)
            raise
        folder = cls(path, lock, alive)
        try:
            folder._furnish(new_token)
        except BaseException:
            folder.close()
            raise
        return folder

    def close(self) -> None:
        """Lets go of the locks. Closing twice is harmless."""
        while self._locks:
            os.close(self._locks.pop())

    @property
    def database(self) -> Path:
        return self.path / "stellwerk.db"

    @property
    def bundles(self) -> Path:
        """The files of versions, by content."""
        return self.path / "bundles"

    @property
    def dependencies(self) -> Path:
        """Installed packages, by content of what was asked for."""
        return self.path / "dependencies"

    @property
    def token(self) -> Path:
        """The bearer token of the control plane: one line, mode 0600."""
        return self.path / "token"

    @property
    def alive(self) -> Path:
        """What each isolate opens for itself and locks shared, for as long as it lives."""
        return self.path / "alive"

    @property
    def ballast(self) -> Path:
        """Space held in reserve, so that a full disk can still be cleaned up."""
        return self.path / "ballast"

    def release_ballast(self) -> bool:
        """Gives the reserve back to a full disk. False when it was gone already; the next ``open`` makes it anew."""
        try:
            self.ballast.unlink()
        except FileNotFoundError:
            return False
        return True

    def _furnish(self, new_token: Callable[[int], str]) -> None:
        for folder in (self.bundles, self.dependencies):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not self.token.exists():
            _write_secret(self.token, new_token(_TOKEN_BYTES))
        self.token.chmod(0o600)
        _reserve(self.ballast, limits.BALLAST_BYTES)


def _make_private_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()} - {"lost+found"}
        if names and "node.lock" not in names:
            # A slip such as --state /tmp must not close that folder to everybody else.
            raise StateFolderError(
                f"{path} holds other files and is not a state folder.", cure="Name an empty or a new folder."
            )
        path.chmod(0o700)
    except OSError as error:
        raise StateFolderError(
            f"The state folder {path} cannot be used: {error.strerror}.",
            cure="Name a folder that belongs to the user who runs the node.",
        ) from error


def _lock_node(path: Path) -> int:
    """The lock for life. The pid in the file is for people; the lock alone decides."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or _holders(descriptor)
        os.close(descriptor)
        raise StateFolderError(
            f"The state folder {path.parent} is held by the node with pid {holder or 'unknown'}.",
            cure="Stop that node, or name another state folder.",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _wait_for_predecessor(path: Path, timeout_ms: int) -> int:
    """Exclusive until nobody else holds it, then shared."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
        holders = _holders(descriptor)
        os.close(descriptor)
        raise StateFolderError(
            f"Processes of the node before still hold {path.parent} after {timeout_ms} ms: pid {holders or 'unknown'}.",
            cure="They are isolates that did not end with their node: end them, then start again.",
        )
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _holders(descriptor: int) -> str:
    """Pids that hold a flock on this file, as /proc/locks tells; "" where there is none."""
    status = os.fstat(descriptor)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return ""
    fields = [line.split() for line in lines]
    return ", ".join(sorted({row[4] for row in fields if len(row) > 5 and row[1] == "FLOCK" and row[5] == wanted}))


def _refuse_unsafe_file_system(path: Path) -> None:
    kind = file_system_of(path)
    if kind in UNSAFE_FILE_SYSTEMS:
        raise StateFolderError(
            f"The state folder {path} is on {kind}, which {UNSAFE_FILE_SYSTEMS[kind]}.",
            cure="Name a folder on a local disk, or insist with --force for a state that may be lost.",
        )


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds ``path``, or "" where the machine does not tell (no /proc)."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    real = path.resolve()
    found, kind = Path("/"), ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = Path(_unescape(left.split()[4]))
        # A later line covers an earlier one on the same place.
        if real.is_relative_to(mount) and len(mount.parts) >= len(found.parts):
            found, kind = mount, right.split()[0]
    return kind


def _unescape(text: str) -> str:
    """The kernel writes blanks and backslashes of a path as octal."""
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, sign)
    return text


def _write_secret(path: Path, secret: str) -> None:
    """Whole or not at all: a crash must not leave an empty token."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _reserve(path: Path, size_bytes: int) -> None:
    """Allocated for real, not sparse. A disk that is full already goes without: the node must come up to clean it."""
    if path.exists() and path.stat().st_size >= size_bytes:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EOPNOTSUPP):
            raise
        path.unlink()
    finally:
        os.close(descriptor)
