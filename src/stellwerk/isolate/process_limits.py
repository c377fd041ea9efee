"""The one place where a process of ours is limited by the kernel: what it may use, and that it dies with its parent.

Called between fork and the first line of user code. The order matters: the death signal is cleared by a change of
user, so whatever changes the user goes before ``die_with_parent``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from stellwerk.core import limits

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_NAME_BYTES_MAX = 15  # the kernel's, without the closing zero

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(ctypes.c_int(option), value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL for this process when the thread that made it ends. Ends at once if that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the signal was set, and nobody is left to tell


def name_process(name: str) -> None:
    """The name that ``ps`` and ``top`` show: at most 15 bytes, the rest is cut."""
    _prctl(_PR_SET_NAME, name.encode()[:_NAME_BYTES_MAX])


def limit_process(*, address_space_bytes: int = 0) -> None:
    """No rights beyond today's, no core files, few descriptors.

    ``address_space_bytes`` is a distant backstop only (0: none): address space is not memory, numpy alone reserves
    145 MiB of it. What an isolate really uses is measured by the node.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, limits.ISOLATE_OPEN_FILES_MAX)
    if address_space_bytes:
        _lower(resource.RLIMIT_AS, address_space_bytes)


def _lower(kind: int, most: int) -> None:
    """Sets both the soft and the hard limit, so that user code cannot raise it again; never above the present one."""
    hard = resource.getrlimit(kind)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (value, value))
