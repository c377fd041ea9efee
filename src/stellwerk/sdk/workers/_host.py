"""What the SDK asks of the process it runs in. The isolate installs its host before any user code is imported.

The SDK imports nothing of Stellwerk: this Protocol is the whole contract, so that the same package can be run over
another host (the test plugin has one).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class RawRequest:
    """A request on its way out. ``body`` is whole (bytes) or comes in pieces."""

    method: str
    url: str
    headers: RawHeaders
    body: bytes | AsyncIterator[bytes] | None = None
    redirect: str = "follow"
    signal: Any = None
    cf: Any = None


@dataclass(slots=True)
class RawResponse:
    """A response on its way in. ``body`` is whole (bytes) or comes in pieces, which must be read or closed."""

    status: int
    headers: RawHeaders
    body: bytes | AsyncIterator[bytes] | None = None
    reason: str = ""
    url: str = ""
    redirected: bool = False


class HeldStub(Protocol):
    """The host's side of a function of another Worker."""

    def release(self) -> None:
        """Lets go of it; later calls fail. Twice is harmless."""


class Host(Protocol):
    """The isolate, as the SDK sees it."""

    def env(self) -> Mapping[str, Any]:
        """The bindings as raw values: vars as text or JSON; the rest as ``ServiceRef`` / ``WorkflowRef``."""

    async def fetch(self, request: RawRequest) -> RawResponse:
        """Outgoing HTTP. Raises ``OSError`` when no answer can be had."""

    async def service_fetch(self, binding: str, request: RawRequest) -> RawResponse: ...

    async def service_rpc(self, binding: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any: ...

    def received_stub(self, place: int) -> HeldStub:
        """While a value is revived: the stub that came with it at this place. Raises ``LookupError``."""

    def received_stream(self, place: int) -> AsyncIterator[bytes]:
        """While a value is revived: the chunks of the stream that came with it at this place."""

    async def stub_rpc(self, stub: HeldStub, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Calls the function, or a method of the ``RpcTarget``."""

    async def workflow(self, binding: str, operation: str, args: dict[str, Any]) -> Any:
        """``create`` {id?, params?} -> {id}; ``create_batch`` {batch} -> [{id}]; ``get`` {id} -> {id};
        ``status`` {id} -> {status, output, error}; ``terminate`` {id}; ``send_event`` {id, type, payload}."""

    def wait_until(self, awaitable: Awaitable[Any]) -> None:
        """Keeps the current invocation alive until ``awaitable`` settles, at most 30 s after its answer."""

    def log(self, level: str, text: str, stack: str = "") -> None: ...

    def compat_flag(self, name: str) -> bool: ...


@dataclass(slots=True, frozen=True)
class ServiceRef:
    binding: str


@dataclass(slots=True, frozen=True)
class WorkflowRef:
    binding: str


@dataclass(slots=True)
class _Current:
    host: Host | None = None
    on_install: list[Callable[[Host], None]] = field(default_factory=list)


_current = _Current()


def install(host: Host) -> None:
    """Makes ``host`` the one that the SDK uses in this process."""
    _current.host = host
    for callback in _current.on_install:
        callback(host)


def host() -> Host:
    """The installed host. Raises ``RuntimeError`` outside a Worker."""
    if _current.host is None:
        raise RuntimeError(
            "This code runs outside a Worker: `workers` has no host here. Run it with `stellwerk dev`, or in a test "
            "with the `stellwerk.testing` plugin."
        )
    return _current.host
