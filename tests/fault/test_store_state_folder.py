"""One node per state folder, and none before the last process of the node before is gone.

The other processes are real ones, and some are killed: flocks must go with their holder, without anybody cleaning up.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stellwerk.core import limits
from stellwerk.core.errors import StateFolderError
from stellwerk.store.state_folder import StateFolder, file_system_of

NODE = """
import sys, pathlib
from stellwerk.store.state_folder import StateFolder
folder = StateFolder.open(pathlib.Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""
ISOLATE = """
import fcntl, sys
alive = open(sys.argv[1])
fcntl.flock(alive, fcntl.LOCK_SH)
print("holds", flush=True)
sys.stdin.read()
"""
DEADLINE_S = 20


@contextmanager
def process(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds its lock until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "holds\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.005)


def is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private_and_has_its_parts(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "a" / "state")

    assert mode(folder.path) == 0o700
    assert mode(folder.token) == 0o600
    assert len(folder.token.read_text().strip()) >= 43  # 256 bits in base64
    assert folder.bundles.is_dir()
    assert folder.dependencies.is_dir()
    assert folder.database.parent == folder.path
    folder.close()


def test_the_token_is_made_once(tmp_path: Path) -> None:
    first = StateFolder.open(tmp_path / "state")
    token = first.token.read_text()
    first.token.chmod(0o644)  # as after a careless copy
    first.close()

    second = StateFolder.open(tmp_path / "state")

    assert second.token.read_text() == token
    assert mode(second.token) == 0o600
    second.close()


def test_a_token_half_written_by_a_crash_is_no_token(tmp_path: Path) -> None:
    StateFolder.open(tmp_path / "state").close()
    (tmp_path / "state" / "token").unlink()
    (tmp_path / "state" / "token.new").touch()

    folder = StateFolder.open(tmp_path / "state", new_token=lambda size: f"{size} bytes")

    assert folder.token.read_text() == "32 bytes\n"
    folder.close()


def test_the_ballast_takes_real_space_and_can_be_given_back_once(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "state")

    assert folder.ballast.stat().st_blocks * 512 >= limits.BALLAST_BYTES
    assert folder.release_ballast() is True
    assert folder.release_ballast() is False
    folder.close()
    again = StateFolder.open(tmp_path / "state")
    assert again.ballast.stat().st_size == limits.BALLAST_BYTES
    again.close()


def test_a_second_node_is_refused_at_once_and_told_who_holds_it(tmp_path: Path) -> None:
    with process(NODE, tmp_path / "state") as node:
        begun = time.monotonic()
        with pytest.raises(StateFolderError, match=f"pid {node.pid}"):
            StateFolder.open(tmp_path / "state")

        assert time.monotonic() - begun < 5  # not the ten seconds of a predecessor's processes


def test_a_killed_node_leaves_nothing_to_clean_up(tmp_path: Path) -> None:
    with process(NODE, tmp_path / "state") as node:
        node.send_signal(signal.SIGKILL)
        node.wait()

        StateFolder.open(tmp_path / "state", predecessor_timeout_ms=0).close()


def test_a_closed_folder_can_be_opened_again_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "state")
    folder.close()
    folder.close()

    StateFolder.open(tmp_path / "state").close()


def test_isolates_can_hold_the_folder_of_a_running_node(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "state")

    with process(ISOLATE, folder.alive), process(ISOLATE, folder.alive):
        pass

    folder.close()


def test_an_isolate_that_outlives_its_node_keeps_the_next_one_out_and_is_named(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "state")
    with process(ISOLATE, folder.alive) as isolate:
        folder.close()

        with pytest.raises(StateFolderError, match=rf"after 50 ms: pid {isolate.pid}\b"):
            StateFolder.open(tmp_path / "state", predecessor_timeout_ms=50)

    StateFolder.open(tmp_path / "state", predecessor_timeout_ms=0).close()  # the refused one left no lock behind


def test_a_starting_node_waits_for_the_last_isolate_of_the_node_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    StateFolder.open(path).close()
    opened: list[StateFolder] = []
    with process(ISOLATE, path / "alive") as isolate:
        starting = threading.Thread(target=lambda: opened.append(StateFolder.open(path)))
        starting.start()
        until(lambda: is_locked(path / "node.lock"))
        assert opened == []

        os.kill(isolate.pid, signal.SIGKILL)
        starting.join(DEADLINE_S)

    assert len(opened) == 1
    opened[0].close()


def test_the_locks_do_not_leak_into_child_processes(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "state")
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        folder.close()

        StateFolder.open(tmp_path / "state", predecessor_timeout_ms=0).close()
    finally:
        child.kill()
        child.communicate()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").write_text("not yours")

    with pytest.raises(StateFolderError, match="holds other files"):
        StateFolder.open(tmp_path)

    assert mode(tmp_path) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_path_that_is_a_file_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(StateFolderError, match="cannot be used"):
        StateFolder.open(tmp_path / "state")


def test_a_file_system_in_memory_is_refused_unless_forced() -> None:
    assert file_system_of(Path("/dev/shm")) == "tmpfs"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name) / "state"

        with pytest.raises(StateFolderError, match="tmpfs, which lives in memory"):
            StateFolder.open(path)
        StateFolder.open(path, force=True).close()


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"40 22 0:40 / {tmp_path} rw - nfs4 server:/export rw\n"
        f"41 40 0:41 / {tmp_path}/with\\040blank rw - xfs /dev/vdb rw\n"
        f"42 40 0:42 / {tmp_path}/wit rw - tmpfs tmpfs rw\n"
    )

    assert file_system_of(tmp_path / "state", mounts) == "nfs4"
    assert file_system_of(tmp_path / "with blank" / "state", mounts) == "xfs"
    assert file_system_of(Path("/"), mounts) == "ext4"
    assert file_system_of(Path("/"), tmp_path / "no-proc") == ""
