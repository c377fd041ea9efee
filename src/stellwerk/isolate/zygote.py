"""The zygote: a process with everything imported and nothing secret, which forks isolates for the node.

It is single-threaded (fork copies one thread only) and never runs user code. It is the isolates' parent, for it must
reap them and because the death signal then reaches them when it, or the node above it, ends. The node gets a pidfd
for each.

    node ──Fork + channel, output pipe──▶ zygote ──fork──▶ isolate
         ◀──Forked + pidfd, Exited──────

A child that is no longer wanted needs no message: the node kills it through its pidfd.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from stellwerk.isolate import process_limits
from stellwerk.wire import zygote as messages

Entry = Callable[[socket.socket], Coroutine[Any, Any, None]]

_FD_MAX = 2**31 - 1


def main(control_fd: int, node_pid: int, launch_json: str) -> NoReturn:
    """Serves the node until it goes away. The node's main thread must be what started this process."""
    process_limits.die_with_parent(node_pid)
    process_limits.name_process("sw:zygote")
    launch = messages.decode_launch(launch_json)
    for name in launch.preload:
        importlib.import_module(name)
    # A Worker shall find the packages that it names, not those that happen to be installed for us.
    sys.path[:] = [entry for entry in sys.path if entry not in launch.paths]
    tasks = len(list(Path("/proc/self/task").iterdir()))
    if tasks != 1:
        raise RuntimeError(f"the zygote has {tasks} threads after its imports; a fork would copy only one of them")
    gc.disable()
    gc.collect()
    gc.freeze()  # what is imported is never collected, and so not copied page by page into the isolates
    Zygote(socket.socket(fileno=control_fd), launch.alive).serve()


class Zygote:
    def __init__(self, control: socket.socket, alive: str) -> None:
        self._control, self._alive = control, alive
        self._pid = os.getpid()
        self._poll = select.poll()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd -> (number, pid)

    def serve(self) -> NoReturn:
        control = self._control.fileno()
        self._poll.register(control, select.POLLIN)
        self._send(messages.Up(pid=self._pid))
        while True:
            for ready, _ in self._poll.poll():
                if ready == control:
                    self._order()
                else:
                    self._reap(ready)

    def _send(
        self, message: messages.Up | messages.Forked | messages.ForkRefused | messages.Exited, fd: int = -1
    ) -> None:
        try:
            socket.send_fds(self._control, [messages.encode(message)], [fd] if fd >= 0 else [])
        except OSError:
            os._exit(0)  # the node is gone, and with us go the isolates

    def _order(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, messages.MESSAGE_BYTES_MAX, 2, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # the node was killed, with words of ours unread
            os._exit(0)
        if not data:
            os._exit(0)
        order = messages.decode(data)
        if not isinstance(order, messages.Fork) or len(fds) != 2:
            raise RuntimeError(f"the node sent {order!r} with {len(fds)} descriptors; the releases do not match")
        try:
            pid = os.fork()
        except OSError as error:
            self._send(messages.ForkRefused(number=order.number, reason=str(error)))
        else:
            if pid == 0:
                self._become(order, channel_fd=fds[0], output_fd=fds[1])
            pidfd = os.pidfd_open(pid)  # safe: nobody but us can reap it, so the pid is still its own
            self._children[pidfd] = (order.number, pid)
            self._poll.register(pidfd, select.POLLIN)
            self._send(messages.Forked(number=order.number, pid=pid), pidfd)
        finally:
            for fd in fds:
                os.close(fd)

    def _reap(self, pidfd: int) -> None:
        number, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        # What the isolate left behind in its own session goes with it. Before the reaping: until then its number,
        # which is the group's, belongs to nobody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        assert found is not None
        exited = found.si_code == os.CLD_EXITED
        code, number_of_signal = (found.si_status, None) if exited else (None, found.si_status)
        self._send(messages.Exited(number=number, code=code, signal=number_of_signal))

    def _become(self, order: messages.Fork, *, channel_fd: int, output_fd: int) -> NoReturn:
        """The child's side of the fork: never returns into the zygote's loop."""
        code = 1
        try:
            self._control.detach()  # its number is closed below, and may then mean something else
            channel = _settle_in(order, channel_fd, output_fd, zygote_pid=self._pid, alive=self._alive)
            uvloop.run(_find(order.entry)(channel))
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except BaseException:
            with contextlib.suppress(OSError):
                os.write(2, traceback.format_exc().encode(errors="replace"))
        finally:
            os._exit(code & 0xFF)  # no atexit, no joining of threads: a thread of the user must not keep a dead isolate


def _settle_in(order: messages.Fork, channel_fd: int, output_fd: int, *, zygote_pid: int, alive: str) -> socket.socket:
    """From a copy of the zygote to a process of its own that has the channel, its output, and nothing else."""
    channel_fd, output_fd = _only(channel_fd, output_fd)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.close(null)
    os.close(output_fd)
    os.setsid()  # its own group: a kill(0) in user code must not hit the zygote and all the others
    process_limits.die_with_parent(zygote_pid)
    # After the death signal: a child that comes so late that the next node holds the file already, ends here.
    _hold(alive)
    process_limits.limit_process(address_space_bytes=order.address_space_bytes)
    process_limits.name_process(f"sw:{order.worker}")
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)  # where is it? (the node asks before it kills)
    sys.dont_write_bytecode = True  # a bundle is what was uploaded, and stays so
    gc.enable()
    return socket.socket(fileno=channel_fd)


def _only(channel_fd: int, output_fd: int) -> tuple[int, int]:
    """Closes every descriptor but the standard ones and these two; gives their new, low numbers."""
    spare = max(channel_fd, output_fd, 4) + 1
    for fd in (channel_fd, output_fd):
        os.dup2(fd, spare + (fd == output_fd), inheritable=False)
    os.dup2(spare, 3, inheritable=False)
    os.dup2(spare + 1, 4, inheritable=False)
    os.closerange(5, _FD_MAX)
    return 3, 4


def _hold(alive: str) -> None:
    """A shared lock on an opening of our own, for as long as this process lives.

    The next node takes the file exclusively and so waits for every isolate of this one.
    """
    fd = os.open(alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _find(entry: str) -> Entry:
    module, _, function = entry.partition(":")
    found: Entry = getattr(importlib.import_module(module), function)
    return found
