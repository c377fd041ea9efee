"""What runs in the isolates of these tests: the least that speaks the channel, and does on demand what users do.

Loaded by the zygote by name, so it imports nothing of the tests.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import Channel


async def run(channel_socket: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    env: dict[str, Any] = {}

    def boot(channel: Channel, message: messages.Boot) -> None:
        env.update({binding.name: binding.value for binding in message.bindings})
        match env.get("BOOT"):
            case "fail":
                stack = "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'nowhere'"
                error = ErrorValue(name="ModuleNotFoundError", message="No module named 'nowhere'", stack=stack)
                channel.send(messages.BootFailed(error=error))
            case "exit":
                os.write(2, b"cannot go on\n")
                os._exit(3)
            case "hang":
                return
            case "old":
                channel.send(messages.Ready(protocol=0, exports=[], import_ms=0))
            case _:
                exports = [messages.Export(name="Default", kind="entrypoint", methods=["fetch"])]
                channel.send(messages.Ready(protocol=messages.PROTOCOL, exports=exports, import_ms=1))

    def on_messages(channel: Channel, batch: list[Any]) -> None:
        for message in batch:
            if isinstance(message, messages.Boot):
                boot(channel, message)
            elif isinstance(message, messages.Drain):
                if env.get("DRAIN") != "never":
                    channel.close()
            elif isinstance(message, messages.Ping):
                channel.send(messages.Pong())
            elif isinstance(message, messages.RpcCall):
                answer = BEHAVIOURS[message.method](channel, env)
                channel.send(messages.RpcResult(call=message.call, value=json.dumps(answer).encode()))

    def on_lost(channel: Channel, error: Exception | None) -> None:
        if not over.done():
            over.set_result(None)

    await loop.create_unix_connection(lambda: Channel(on_messages, on_lost), sock=channel_socket)
    await over


def surroundings(channel: Channel, env: dict[str, Any]) -> dict[str, Any]:
    """Everything that a curious program could find of the node in its process."""
    links = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            links[fd] = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        except OSError:
            continue  # the one that listdir itself had open
    status = Path("/proc/self/status").read_text()
    return {
        "environ": dict(os.environ),
        "fds": links,
        "no_new_privs": "NoNewPrivs:\t1" in status,
        "name": Path("/proc/self/comm").read_text().strip(),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "session": os.getsid(0) == os.getpid(),
        "loop": type(asyncio.get_running_loop()).__module__,
        "utf8": sys.flags.utf8_mode,
        "env": env,
    }


def alive(channel: Channel, env: dict[str, Any]) -> bool:
    """Whether the alive file is locked by an opening of this very process."""
    return any("alive" in line for line in _locks())


def _locks() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fdinfo"):  # noqa: PTH208
        path = Path(f"/proc/self/fdinfo/{fd}")
        try:
            if "FLOCK" in path.read_text():
                found.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        except OSError:
            continue
    return found


def exit_3(channel: Channel, env: dict[str, Any]) -> None:
    os._exit(3)


def system_exit(channel: Channel, env: dict[str, Any]) -> None:
    """In a task, as all users' code is."""

    async def leave() -> None:
        raise SystemExit(4)

    env["TASK"] = asyncio.ensure_future(leave())


def segfault(channel: Channel, env: dict[str, Any]) -> None:
    ctypes.string_at(0)


def raw(channel: Channel, env: dict[str, Any]) -> None:
    """As C code does it: past sys.stdout, straight to the descriptor."""
    libc = ctypes.CDLL(None)
    libc.puts(b"written by C")
    libc.fflush(None)


def chance(channel: Channel, env: dict[str, Any]) -> float:
    return random.random()


def garbage(channel: Channel, env: dict[str, Any]) -> None:
    assert channel._transport is not None
    channel._transport.write(b"\xff\xff\xff\xff\xff\xff")


def log(channel: Channel, env: dict[str, Any]) -> None:
    channel.send(messages.Log(records=[messages.LogRecord(at=7, level="info", text="hello")], dropped=2))


def spin(channel: Channel, env: dict[str, Any]) -> None:
    """Busy for good: what only SIGKILL ends."""
    while True:
        pass


def spin_quietly(channel: Channel, env: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.get_running_loop().call_soon(spin, channel, env)


def offspring(channel: Channel, env: dict[str, Any]) -> int:
    """A process of its own that would outlive it."""
    return subprocess.Popen(["sleep", "600"]).pid


def hold(channel: Channel, env: dict[str, Any]) -> bool:
    """Whether somebody could take the alive file exclusively while we live."""
    path = next(line for line in _locks() if "alive" in line)
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


BEHAVIOURS = {
    behaviour.__name__: behaviour
    for behaviour in (
        surroundings,
        alive,
        exit_3,
        system_exit,
        segfault,
        raw,
        chance,
        garbage,
        log,
        spin,
        spin_quietly,
        offspring,
        hold,
    )
}
