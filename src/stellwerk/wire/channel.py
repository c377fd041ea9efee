"""The channel: messages and bodies over one stream socket, the same on both ends.

An ``asyncio.Protocol``. What is sent within one turn of the loop is joined into few writes. A lone message goes at once
(measured: alone 96 against 111 microseconds a round trip); when turns bring many, the first waits for the others (256
in flight: 5.4 against 6.6), since one that arrives alone costs the receiver a turn, and the store a commit. One that
was sent ahead would come back ahead, and be alone for ever: so a turn with few does not end that at once.
``on_messages`` gets everything that one read brought, so that a receiver can decide on a batch at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import msgspec

from stellwerk.core.limits import FRAME_BYTES_MAX
from stellwerk.core.workflow.inputs import RunInput
from stellwerk.wire import frames
from stellwerk.wire import isolate as messages

log = logging.getLogger("stellwerk.channel")

HIGH_WATER = 1024 * 1024
MESSAGES_JOINED_MAX = 16  # then they go, so that the other side works on them while this turn makes more
BUSY_MESSAGES = 4  # a turn with so many messages is followed by turns whose first message waits for company
BUSY_TURNS = 8  # by so many: one that is alone now and then must not take the first of the others along


class Channel(asyncio.Protocol):
    """One end of the connection between the node and an isolate.

    ``on_messages(channel, list)`` is called with the messages of one read, in order, BODY frames as
    ``(call, bytes)`` tuples. ``on_lost(channel, error)`` is called once, at the end. ``end_of_turn`` schedules a
    callback for the end of the current turn; the node passes its own, which also lets a thread breathe.
    """

    def __init__(
        self,
        on_messages: Callable[[Channel, list[Any]], None],
        on_lost: Callable[[Channel, Exception | None], None],
        end_of_turn: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._on_messages, self._on_lost = on_messages, on_lost
        self._end_of_turn = end_of_turn
        self._reader = frames.FrameReader()
        self._waiting: list[Any] = []
        self._flushing = False
        self._busy = 0  # turns to come whose first message waits
        self._transport: asyncio.Transport | None = None
        self.closed = self._read_paused = False
        self.writable = asyncio.Event()
        self.writable.set()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        if self._end_of_turn is None:
            loop = asyncio.get_running_loop()
            self._end_of_turn = lambda callback: cast(None, loop.call_soon(callback))

    def data_received(self, data: bytes) -> None:
        batch: list[Any] = []
        decode = messages.decode_batch
        try:
            for kind, content in self._reader.feed(data):
                if kind == frames.MESSAGE:
                    batch += decode(content)
                else:
                    batch.append((int.from_bytes(content[:4], "little"), bytes(content[4:])))
        except (frames.FrameError, msgspec.MsgspecError) as error:
            self.abort(error)
            return
        if batch:
            self._on_messages(self, batch)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.writable.set()
            self._on_lost(self, exc)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def pause_reading(self) -> None:
        """Reads no more: whoever gets the messages has enough of them. Twice is harmless, at the end as well."""
        if not self._read_paused and not self.closed and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self.closed and self._transport is not None:
                self._transport.resume_reading()

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: messages.Message | RunInput) -> None:
        """Sends a message; after the end of the channel it is dropped (``on_lost`` has told)."""
        waiting = self._waiting
        waiting.append(message)
        if self._flushing:
            if len(waiting) >= MESSAGES_JOINED_MAX:
                self._busy = BUSY_TURNS
                self._write()
            return
        self._flushing = True
        assert self._end_of_turn is not None
        self._end_of_turn(self._flush)
        if not self._busy:
            self._write()

    def keep_together(self) -> None:
        """What is sent in this turn goes as one, however little it is."""
        if not self._flushing:
            self._flushing = True
            assert self._end_of_turn is not None
            self._end_of_turn(self._flush)

    def send_body(self, call: int, chunk: bytes) -> None:
        """Sends a piece of a body, behind every message sent before it. The caller keeps to its credit."""
        if self._waiting:
            self._write()
        if self._transport is not None and not self.closed:
            self._transport.writelines((frames.body_frame_head(call, len(chunk)), chunk))

    def _flush(self) -> None:
        self._flushing = False
        if len(self._waiting) >= BUSY_MESSAGES:
            self._busy = BUSY_TURNS
        elif self._busy:
            self._busy -= 1
        self._write()

    def _write(self) -> None:
        """All messages that wait, as one frame, or as more if one cannot hold them."""
        waiting = self._waiting
        if not waiting:
            return
        if self._transport is not None and not self.closed:
            try:
                for data in _encoded(waiting):
                    self._transport.write(frames.message_frame(data))
            except frames.FrameError as error:
                asyncio.get_running_loop().call_soon(self.abort, error)  # not while whoever sends is in the middle
        waiting.clear()

    def close(self) -> None:
        """Sends what waits, then closes. ``on_lost`` follows."""
        if self._transport is not None:
            self._write()
            self._transport.close()

    def abort(self, error: Exception) -> None:
        """Closes at once because the other side broke the protocol."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()
            self.writable.set()
            self._on_lost(self, error)


def _encoded(waiting: list[Any]) -> list[bytes]:
    """The messages as contents of frames. Raises ``FrameError`` for one that is too large by itself: who makes messages
    keeps to the limits of their parts, and to drop it would leave somebody waiting for ever."""
    try:
        data = messages.encode(waiting)
    except (TypeError, ValueError):
        data = _encode_what_can_be(waiting)
    if len(data) < FRAME_BYTES_MAX:
        return [data]
    if len(waiting) == 1:
        raise frames.FrameError(f"a {type(waiting[0]).__name__} of {len(data)} bytes is too large to be sent")
    half = len(waiting) // 2
    return _encoded(waiting[:half]) + _encoded(waiting[half:])


def _encode_what_can_be(waiting: list[Any]) -> bytes:
    """One message that cannot be encoded (a text with half a character, say) must not take its neighbours with it."""
    good = []
    for message in waiting:
        try:
            messages.encode(message)
        except (TypeError, ValueError):
            log.exception("a message could not be encoded and was dropped: %s", type(message).__name__)
        else:
            good.append(message)
    return messages.encode(good)
