"""The channel over a real socket pair: what one turn sends arrives in order, also when no frame could hold it all."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from stellwerk.core.limits import MIB
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import BUSY_TURNS, MESSAGES_JOINED_MAX, Channel
from stellwerk.wire.frames import FrameReader

DEADLINE_S = 20


class Ends:
    """Two channels, and what the second one heard."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()
        self.first = Channel(lambda channel, batch: None, self._lost)
        self.second = Channel(self._hear, self._lost)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for channel, end in zip((self.first, self.second), socket.socketpair(), strict=True):
            await loop.create_unix_connection(lambda channel=channel: channel, sock=end)  # type: ignore[misc]

    def _hear(self, channel: Channel, batch: list[Any]) -> None:
        self.heard += batch
        self.changed.set()

    def _lost(self, channel: Channel, error: Exception | None) -> None:
        self.lost.append(error)
        self.changed.set()

    async def until(self, done: Any) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        self.first.close()
        self.second.close()
        await self.until(lambda: len(self.lost) == 2)


def test_answers_that_no_single_frame_could_hold_arrive_in_order() -> None:
    async def main() -> None:
        ends = Ends()
        await ends.open()
        for call in range(15):
            ends.first.send(messages.RpcResult(call, bytes(5 * MIB)))
        ends.first.send(messages.Credit(15, 1))
        await ends.until(lambda: len(ends.heard) == 16)
        assert [message.call for message in ends.heard] == list(range(16))
        assert not ends.lost
        await ends.close()

    asyncio.run(main())


def test_a_message_that_is_too_large_by_itself_ends_the_channel_of_who_made_it() -> None:
    async def main() -> None:
        ends = Ends()
        await ends.open()
        ends.first.send(messages.RpcResult(1, bytes(40 * MIB)))
        await ends.until(lambda: ends.lost)
        assert "RpcResult" in str(ends.lost[0])
        assert not ends.heard
        await ends.until(lambda: len(ends.lost) == 2)

    asyncio.run(main())


class Turns:
    """A channel on a transport that notes how many messages each write carries. The test ends the turns itself."""

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.flush: Any = None
        self.channel = Channel(lambda channel, batch: None, lambda channel, error: None, self._soon)
        self.channel.connection_made(self)  # type: ignore[arg-type]

    def _soon(self, flush: Any) -> None:
        self.flush = flush

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        ((_, content),) = FrameReader().feed(data)
        self.writes.append(len(messages.decode_batch(content)))

    def turn(self, count: int) -> list[int]:
        """Sends so many in one turn; how they were joined."""
        self.writes.clear()
        for run in range(count):
            self.channel.send(messages.RunStop(run, "over"))
        self.flush()
        return list(self.writes)


def test_a_lone_message_goes_at_once() -> None:
    turns = Turns()

    turns.channel.send(messages.RunStop(1, "over"))

    assert turns.writes == [1]


def test_when_turns_bring_many_the_first_waits_for_the_others_and_few_turns_with_one_do_not_change_that() -> None:
    turns = Turns()

    assert turns.turn(10) == [1, 9]
    assert turns.turn(10) == [10]
    assert [turns.turn(1) for _ in range(BUSY_TURNS - 1)] == [[1]] * (BUSY_TURNS - 1)
    assert turns.turn(10) == [10]
    assert [turns.turn(1) for _ in range(BUSY_TURNS)] == [[1]] * BUSY_TURNS
    assert turns.turn(10) == [1, 9]


def test_so_many_as_are_joined_go_before_the_turn_has_ended() -> None:
    turns = Turns()
    turns.turn(10)
    turns.writes.clear()

    for run in range(MESSAGES_JOINED_MAX):
        turns.channel.send(messages.RunStop(run, "over"))

    assert turns.writes == [MESSAGES_JOINED_MAX]
