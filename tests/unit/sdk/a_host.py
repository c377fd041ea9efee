"""A host for the SDK's tests: other Workers are Python objects, and values go through the real codec."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import workers._host
from workers._host import HeldStub, RawRequest, RawResponse
from workers._js import JsDict

from stellwerk.wire import values

T = TypeVar("T")
Answer = Callable[[RawRequest], RawResponse | Awaitable[RawResponse]]


def over_the_wire(value: Any) -> Any:
    return values.decode(values.encode(value), mapping=JsDict)


def echo(request: RawRequest) -> RawResponse:
    return RawResponse(200, [(b"content-type", b"text/plain")], f"{request.method} {request.url}".encode(), "OK")


class AHost:
    """Remembers what it was asked."""

    def __init__(
        self,
        bindings: Mapping[str, Any] | None = None,
        *,
        answer: Answer = echo,
        services: Mapping[str, Any] | None = None,
        workflow: Callable[[str, dict[str, Any]], Any] | None = None,
    ) -> None:
        self.bindings = dict(bindings or {})
        self.answer = answer
        self.services = dict(services or {})
        self.workflow_answer = workflow
        self.requests: list[tuple[str, RawRequest]] = []
        self.operations: list[tuple[str, str, dict[str, Any]]] = []
        self.logged: list[tuple[str, str]] = []
        self.waiting: list[asyncio.Future[Any]] = []

    def env(self) -> Mapping[str, Any]:
        return self.bindings

    async def _answer(self, target: str, request: RawRequest) -> RawResponse:
        self.requests.append((target, request))
        answer = self.answer(request)
        return answer if isinstance(answer, RawResponse) else await answer

    async def fetch(self, request: RawRequest) -> RawResponse:
        return await self._answer("", request)

    async def service_fetch(self, binding: str, request: RawRequest) -> RawResponse:
        return await self._answer(binding, request)

    async def service_rpc(self, binding: str, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        sent_args, sent_kwargs = over_the_wire([args, kwargs])
        return over_the_wire(getattr(self.services[binding], method)(*sent_args, **sent_kwargs))

    def received_stub(self, place: int) -> HeldStub:
        raise LookupError(place)  # values here come without stubs

    def received_stream(self, place: int) -> AsyncIterator[bytes]:
        raise LookupError(place)

    async def stub_rpc(self, stub: HeldStub, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    async def workflow(self, binding: str, operation: str, args: dict[str, Any]) -> Any:
        sent = over_the_wire(args)
        self.operations.append((binding, operation, sent))
        assert self.workflow_answer is not None
        return self.workflow_answer(operation, sent)

    def wait_until(self, awaitable: Awaitable[Any]) -> None:
        self.waiting.append(asyncio.ensure_future(awaitable))

    def log(self, level: str, text: str, stack: str = "") -> None:
        self.logged.append((level, text))

    def compat_flag(self, name: str) -> bool:
        return name == "python_workflows"


@contextmanager
def installed(host: AHost) -> Iterator[AHost]:
    before = workers._host._current.host
    workers._host.install(host)
    try:
        yield host
    finally:
        workers._host._current.host = before


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 10))


async def pieces(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk
