"""Stubs: functions and streams of this isolate that others hold, and those of others that this isolate holds.

A function that was given away is kept here until the node says that nobody holds it any more. A stub that has arrived
is let go when the program forgets it, and at the latest when the invocation that received it ends.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from workers._body import Body, JsBody
from workers._js import JsDict
from workers._streams import ReadableStream
from workers._stubs import RpcStub, RpcTarget
from workers.entrypoints import rpc_methods
from workers.rpc import _RpcStubWrapper

from stellwerk.core.errors import CapacityError
from stellwerk.core.limits import RPC_STUBS_PER_ISOLATE_MAX, RPC_VALUE_BYTES_MAX
from stellwerk.isolate.failures import StepError
from stellwerk.isolate.invocation import NOBODY, Invocation, book, is_workflow_code
from stellwerk.isolate.streams import GivenStream, ReceivedStream
from stellwerk.wire import isolate as messages
from stellwerk.wire import values
from stellwerk.wire.channel import Channel


@lru_cache(maxsize=256)
def methods_of(cls: type) -> frozenset[str]:
    """What of an entrypoint or an ``RpcTarget`` may be called from outside."""
    return frozenset(rpc_methods(cls))


class Lease:
    """What an answer has given away: the invocation that made it lasts until nobody holds any of it, because it may
    need what that invocation holds itself."""

    __slots__ = ("count", "over")

    def __init__(self, over: asyncio.Future[None]) -> None:
        self.count, self.over = 0, over

    def end_one(self) -> None:
        self.count -= 1
        if not self.count and not self.over.done():
            self.over.set_result(None)


class Given:
    """A function, an ``RpcTarget`` or a ``GivenStream`` that others hold."""

    __slots__ = ("lease", "target")

    def __init__(self, target: Any) -> None:
        self.target = target
        self.lease: Lease | None = None

    def method(self, name: str) -> Callable[..., Any]:
        """Raises ``TypeError`` for what may not be called from outside."""
        target = self.target
        if not name:
            if not callable(target):
                raise TypeError(f"An object of {type(target)} is not a function; call one of its methods.")
            return target  # type: ignore[no-any-return]
        cls: Any = type(target)
        if not issubclass(cls, RpcTarget) or name not in methods_of(cls):
            raise TypeError(f"Method {name} does not exist")
        method: Callable[..., Any] = getattr(target, name)
        return method


class Stubs:
    """Both kinds. ``on_empty`` is called when nobody holds anything of this isolate any more."""

    def __init__(self, channel: Channel, on_empty: Callable[[], None]) -> None:
        self._channel, self._on_empty = channel, on_empty
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.given: dict[int, Given] = {}
        self._next = 1
        self._held: set[int] = set()
        self._unsent: deque[int] = deque()  # let go, and the node does not know yet
        self._scheduled = False

    # -- given --------------------------------------------------------------------------------------------------------

    def give(self, target: Any) -> int:
        """Raises ``CapacityError``."""
        if len(self.given) >= RPC_STUBS_PER_ISOLATE_MAX:
            raise CapacityError(
                f"One isolate may have given away at most {RPC_STUBS_PER_ISOLATE_MAX} functions over RPC.",
                cure="Let go of those that are not needed (del), or pass data.",
            )
        number, self._next = self._next, self._next + 2
        self.given[number] = Given(target)
        return number

    def lease(self, numbers: list[int] | None) -> asyncio.Future[None] | None:
        """What is over when nobody holds any of these functions; None if none of them is this isolate's."""
        mine = [number for number in numbers or () if number & 1]
        if not mine:
            return None
        lease = Lease(self._loop.create_future())
        for number in mine:
            self.given[number].lease = lease
        lease.count = len(mine)
        return lease.over

    def dropped(self, message: messages.StubsDropped) -> None:
        """From the node: nobody holds these any more."""
        self.take_back(message.stubs)

    def take_back(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            given = self.given.pop(number, None)
            if given is None:
                continue
            if isinstance(given.target, GivenStream):
                given.target.end()
            if given.lease is not None:
                given.lease.end_one()
        if not self.given:
            self._on_empty()

    # -- held ---------------------------------------------------------------------------------------------------------

    def arrived(self, numbers: list[int], invocation: Invocation) -> Arrival:
        """Stubs for this invocation. Raises ``StepError`` where nobody's end would be theirs."""
        self._held.update(numbers)
        arrival = Arrival(self, numbers, invocation)
        if getattr(invocation, "over", False) or not book(invocation, arrival):  # a step has no such attribute
            arrival.close()
            raise StepError(
                "A function or stream over RPC lives until the end of the invocation that receives it, and here is "
                "none: receive it in a handler, a method, or a step of a workflow."
            )
        return arrival

    def holds(self, number: int) -> bool:
        return number in self._held

    def let_go(self, numbers: Iterable[int]) -> None:
        """From any thread, and any number of times."""
        found = [number for number in numbers if number in self._held]
        self._held.difference_update(found)
        self._unsent.extend(found)
        if not found or self._scheduled or self._channel.closed:
            return
        self._scheduled = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._tell)
        else:
            self._loop.call_soon_threadsafe(self._tell)

    def unwanted(self, numbers: list[int] | None) -> None:
        """These came too late: nobody waits for the answer any more."""
        if numbers:
            self._channel.send(messages.StubsDropped(numbers))

    def _tell(self) -> None:
        self._scheduled = False
        self.unwanted([self._unsent.popleft() for _ in range(len(self._unsent))])


class Arrival:
    """The stubs that one message has brought."""

    __slots__ = ("_claimed", "_numbers", "_stubs", "invocation")

    def __init__(self, stubs: Stubs, numbers: list[int], invocation: Invocation) -> None:
        self._stubs, self._numbers, self.invocation = stubs, numbers, invocation
        self._claimed: dict[int, HeldStub] = {}

    def decode(self, data: bytes) -> Any:
        """The value that came with them."""
        token = _arriving.set(self)
        try:
            return values.decode(data, mapping=JsDict)
        finally:
            _arriving.reset(token)
            self._claimed.clear()  # from here on the program holds them, and what it forgets is let go

    def claim(self, place: int) -> HeldStub:
        held = self._claimed.get(place)
        if held is None:
            held = self._claimed[place] = HeldStub(self._stubs, self._numbers[place])
        return held

    @property
    def ended(self) -> bool:
        return not any(map(self._stubs.holds, self._numbers))

    def close(self) -> None:
        self._stubs.let_go(self._numbers)


_arriving: ContextVar[Arrival] = ContextVar("arriving")


def received(place: int) -> tuple[HeldStub, Invocation]:
    """For whoever revives a value: the stub at this place, and whose it is. Raises ``LookupError`` if there is none."""
    arrival = _arriving.get()
    return arrival.claim(place), arrival.invocation


class HeldStub:
    """What the program has of a stub. It is let go with it."""

    __slots__ = ("_stubs", "number")

    def __init__(self, stubs: Stubs, number: int) -> None:
        self._stubs, self.number = stubs, number

    def check(self) -> None:
        """Raises ``StepError`` when it is over."""
        if not self._stubs.holds(self.number):
            raise StepError(
                "This stub is not valid any more: it lived until the end of the invocation that received it, or was "
                "let go. Ask for the function again."
            )

    def release(self) -> None:
        self._stubs.let_go((self.number,))

    def __del__(self) -> None:
        self.release()


class Packing:
    """What goes into one message: ``encode`` makes the value, and ``numbers`` are the stubs beside it."""

    __slots__ = ("_invocation", "_streams", "_stubs", "numbers")

    def __init__(self, stubs: Stubs, invocation: Invocation) -> None:
        self._stubs, self._invocation = stubs, invocation
        self.numbers: list[int] | None = None
        self._streams: list[int] | None = None  # those of them that are streams of this isolate

    def encode(self, value: Any) -> bytes:
        """Raises what ``values.encode`` does, and ``CapacityError``."""
        try:
            return values.encode_carrying(value, self._carry, size_max=RPC_VALUE_BYTES_MAX)
        except BaseException:
            if self.numbers:
                self._stubs.take_back(number for number in self.numbers if number & 1)
            raise

    def _carry(self, value: Any) -> tuple[str, Any] | None:
        if isinstance(value, _RpcStubWrapper):
            value = value._binding
        if isinstance(value, RpcStub) and isinstance(held := value._held, HeldStub):
            held.check()
            return "RpcStub", self._place(held.number)
        if isinstance(value, RpcTarget) or _is_function(value):
            return "RpcStub", self._place(self._give(value, value))
        if isinstance(value, JsBody):
            value = value._owner()
        if isinstance(value, Body):
            stream = value._as_stream()
            described: tuple[str, Any] | None = None if stream is None else value._described(stream)
            return described
        if isinstance(value, ReadableStream):
            return "ReadableStream", self._place(self._stream(value))
        return None

    def _give(self, value: Any, target: Any) -> int:
        if is_workflow_code(self._invocation):
            raise TypeError(
                f"{type(value)} cannot be sent over RPC from here: workflow code between steps is run again, and "
                "nobody could use it then. Send it from a step."
            )
        return self._stubs.give(target)

    def _stream(self, stream: ReadableStream) -> int:
        if stream.locked:
            raise TypeError("This ReadableStream is locked to a reader and cannot be sent over RPC.")
        source = stream._chunks
        if isinstance(source, ReceivedStream) and source.untouched:
            source.held.check()
            stream._acquire()
            return source.held.number
        number = self._give(stream, None)
        self._stubs.given[number].target = GivenStream(stream, self._invocation)
        if self._streams is None:
            self._streams = []
        self._streams.append(number)
        return number

    def lend(self) -> None:
        """For arguments: the invocation lasts until its streams have been read, as if by waitUntil."""
        invocation = self._invocation
        if self._streams is None or type(invocation) is not Invocation or invocation is NOBODY:
            return
        lent = [self._stubs.given[number].target for number in self._streams]
        over = self._stubs.lease(self._streams)
        assert over is not None
        if invocation.pending is None:
            invocation.pending = set()
        pending = invocation.pending
        pending.add(over)

        def ended(over: asyncio.Future[None]) -> None:
            pending.discard(over)
            if over.cancelled():
                for stream in lent:
                    stream.end()

        over.add_done_callback(ended)

    def _place(self, number: int) -> int:
        if self.numbers is None:
            self.numbers = []
        self.numbers.append(number)
        return len(self.numbers) - 1


def _is_function(value: Any) -> bool:
    return (
        callable(value)
        and not isinstance(value, (type, tuple, bytearray))
        and not hasattr(type(value), "__rpc_value__")
        and not inspect.isawaitable(value)
    )
