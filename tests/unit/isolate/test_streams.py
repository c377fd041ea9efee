"""What an isolate gives away and holds, without a node: the channel remembers what was said."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.unit.sdk.a_host import AHost, installed
from workers._js import JsDict
from workers._streams import ReadableStream

from stellwerk.core.errors import CapacityError
from stellwerk.core.limits import RPC_STUBS_PER_ISOLATE_MAX
from stellwerk.isolate.failures import StepError
from stellwerk.isolate.invocation import NOBODY, Invocation
from stellwerk.isolate.stubs import HeldStub, Packing, Stubs, received
from stellwerk.wire import values
from stellwerk.wire.channel import Channel


class AChannel:
    closed = False

    def __init__(self) -> None:
        self.dropped: list[int] = []

    def send(self, message: Any) -> None:
        self.dropped += message.stubs


def some_stubs() -> tuple[Stubs, AChannel]:
    channel = AChannel()
    return Stubs(cast(Channel, channel), lambda: None), channel


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def a_stream(said: list[str]) -> ReadableStream:
    return ReadableStream({"pull": lambda controller: None, "cancel": lambda reason: said.append("cancelled")})


def test_a_lent_stream_keeps_its_invocation_and_is_cancelled_when_that_waits_no_longer() -> None:
    async def main() -> None:
        stubs, _ = some_stubs()
        said: list[str] = []
        invocation = Invocation("i")
        packing = Packing(stubs, invocation)
        packing.encode([a_stream(said)])
        packing.lend()
        assert invocation.pending is not None
        (lent,) = invocation.pending
        lent.cancel()  # what the end of waitUntil's 30 s does
        await turns()
        assert (said, invocation.pending) == (["cancelled"], set())

    asyncio.run(main())


def test_a_lent_stream_that_everybody_has_let_go_of_keeps_nobody() -> None:
    async def main() -> None:
        stubs, _ = some_stubs()
        said: list[str] = []
        invocation = Invocation("i")
        packing = Packing(stubs, invocation)
        packing.encode([a_stream(said), len])
        packing.lend()
        assert packing.numbers is not None
        stubs.take_back(packing.numbers)
        await turns()
        assert (said, invocation.pending, stubs.given) == (["cancelled"], set(), {})

    asyncio.run(main())


def test_a_value_that_cannot_be_sent_gives_nothing_away() -> None:
    async def main() -> None:
        stubs, _ = some_stubs()
        said: list[str] = []
        with pytest.raises(values.NotSerialisableError):
            Packing(stubs, Invocation("i")).encode([len, a_stream(said), (1,)])
        await turns()
        assert (said, stubs.given) == (["cancelled"], {})

    asyncio.run(main())


def test_more_functions_than_the_limit_are_refused_where_they_are_sent() -> None:
    async def main() -> None:
        stubs, _ = some_stubs()
        with pytest.raises(CapacityError, match=str(RPC_STUBS_PER_ISOLATE_MAX)):
            Packing(stubs, Invocation("i")).encode([len] * (RPC_STUBS_PER_ISOLATE_MAX + 1))
        assert stubs.given == {}

    asyncio.run(main())


def test_an_answer_is_held_until_the_last_of_its_functions_is_let_go() -> None:
    async def main() -> None:
        stubs, _ = some_stubs()
        packing = Packing(stubs, Invocation("i"))
        packing.encode([len, abs])
        lease = stubs.lease(packing.numbers)
        assert lease is not None
        stubs.take_back([1])
        assert not lease.done()
        stubs.take_back([1, 3])
        assert lease.done()

    asyncio.run(main())


@pytest.mark.parametrize("over", [False, True])
def test_stubs_that_nobodys_end_would_end_are_refused_and_let_go(over: bool) -> None:
    async def main() -> None:
        stubs, channel = some_stubs()
        invocation = NOBODY
        if over:
            invocation = Invocation("i")
            invocation.over = True
        with pytest.raises(StepError, match="here is none"):
            stubs.arrived([2, 4], invocation)
        await turns()
        assert channel.dropped == [2, 4]

    asyncio.run(main())


def test_what_arrives_is_let_go_once_when_it_is_forgotten() -> None:
    async def main() -> None:
        stubs, channel = some_stubs()
        arrival = stubs.arrived([2, 4], Invocation("i"))
        held = arrival.claim(1)
        assert arrival.claim(1) is held
        arrival.decode(values.encode(None))
        assert stubs.holds(4)
        del held
        await turns()
        assert (channel.dropped, stubs.holds(2), stubs.holds(4)) == ([4], True, False)
        arrival.close()
        await turns()
        assert channel.dropped == [4, 2]
        assert arrival.ended

    asyncio.run(main())


def test_a_value_that_names_a_stub_that_did_not_come_with_it_is_no_value() -> None:
    class ALiar:
        def __rpc_value__(self) -> tuple[str, Any]:
            return "RpcStub", 7

    class TheHost(AHost):
        def received_stub(self, place: int) -> HeldStub:
            return received(place)[0]

    async def main() -> None:
        stubs, _ = some_stubs()
        with installed(TheHost()):
            with pytest.raises(values.InvalidValueError):
                stubs.arrived([2], Invocation("i")).decode(values.encode(ALiar()))
            with pytest.raises(values.InvalidValueError):
                values.decode(values.encode(ALiar()), mapping=JsDict)

    asyncio.run(main())
