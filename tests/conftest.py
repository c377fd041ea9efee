"""What holds for every test: asyncio, no network but this machine, nothing left running, and never "ran no test"."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from typing import Any, Final

import psutil
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine. Hypothesis' first draw of text builds a table, and in a
# fresh clone that alone was too slow for it once.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

_state = {"network": True}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _is_here(address: object) -> bool:
    """Whether an address of a socket is this machine's own. Paths (of unix sockets) are."""
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return True
    try:
        return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    except ValueError:
        return address[0] in ("localhost", "")


def _refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and not _state["network"] and not _is_here(arguments[1]):
        raise PermissionError(f"a test that is not marked external connects to {arguments[1]!r}")


sys.addaudithook(_refuse_the_network)


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only tests against foreign programs may leave this machine."""
    _state["network"] = request.node.get_closest_marker("external") is not None
    yield
    _state["network"] = True


def left_running() -> list[str]:
    """Children of this process that still run: a test did not end what it started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{child.pid} {' '.join(child.cmdline())[:160]}")
        except psutil.NoSuchProcess:
            continue
    return found


LONG: Final = (
    "tests/integration/demo", "tests/fault/kill", "tests/docs", "tests/integration/node", "tests/integration",
)  # fmt: skip
"""Folders whose files take longest. They come first: one that begins last has a processor to itself for a minute."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG))

    items.sort(key=place)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A function is shown by its name: its address would be another one in each process."""
    return getattr(val, "__qualname__", None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which everything was skipped proves nothing; one that leaves processes has not cleaned up."""
    if session.config.option.collectonly:
        return
    with_workers = bool(session.config.getoption("numprocesses", None))  # pytest-xdist: each worker looks after its own
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and exitstatus == pytest.ExitCode.OK and not reporter.stats.get("passed"):
        reporter.write_line("no test passed: nothing was shown", red=True)
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
    if not with_workers and (remaining := left_running()):
        print("\n".join(["left running:", *remaining]), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
