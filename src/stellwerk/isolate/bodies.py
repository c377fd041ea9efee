"""Bodies that come and go in pieces, with credit: a sender never has more under way than the receiver has granted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from stellwerk.core.limits import BODY_CHUNK_BYTES, STREAM_CREDIT_BYTES
from stellwerk.isolate.invocation import Booked
from stellwerk.wire import isolate as messages
from stellwerk.wire.channel import Channel


class BodyReader:
    """A body on its way in, as an asynchronous iterator of chunks. Reading grants new credit."""

    __slots__ = ("_call", "_channel", "_chunks", "_closed", "_ended", "_error", "_owed", "_waiter")

    def __init__(self, channel: Channel, call: int) -> None:
        self._channel, self._call = channel, call
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = self._closed = False
        self._error = ""
        self._owed = 0

    def feed(self, chunk: bytes) -> None:
        if self._closed:
            self._channel.send(messages.Credit(self._call, len(chunk)))
            return
        self._chunks.append(chunk)
        self._wake()

    def finish(self, error: str = "") -> None:
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._ended:
                if self._error:
                    raise OSError(f"The body broke off: {self._error}")
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._owed += len(chunk)
        if self._owed >= STREAM_CREDIT_BYTES // 2 and not self._ended:
            self._channel.send(messages.Credit(self._call, self._owed))
            self._owed = 0
        return chunk

    @property
    def ended(self) -> bool:
        """Nothing more comes; what has come may still wait to be read."""
        return self._ended

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Nobody reads on. What still comes is dropped, and credit is granted so that the sender can end; of the answer
        to a call of ours (an odd number) the sender is told, since it may be one that never ends."""
        if self._call & 1 and not self._ended:
            self._channel.send(messages.CallCancelled(self._call))
        self._closed = self._ended = True
        dropped = sum(map(len, self._chunks)) + self._owed
        self._chunks.clear()
        if dropped:
            self._channel.send(messages.Credit(self._call, dropped))


def close_unread(unread: Sequence[Booked] | None) -> None:
    """The end of those who asked for these is their end."""
    for booked in unread or ():
        booked.close()


class BodyWriter:
    """A body on its way out."""

    __slots__ = ("_call", "_channel", "_credit", "_granted", "cancelled")

    def __init__(self, channel: Channel, call: int) -> None:
        self._channel, self._call = channel, call
        self._credit = STREAM_CREDIT_BYTES
        self._granted = asyncio.Event()
        self.cancelled = False

    def grant(self, size: int) -> None:
        self._credit += size
        self._granted.set()

    def cancel(self) -> None:
        """The receiver has gone."""
        self.cancelled = True
        self._granted.set()

    async def pump(self, body: AsyncIterator[bytes]) -> None:
        """Sends all of ``body``, then its end. An exception of the body ends it with an error, and is raised."""
        error = ""
        try:
            async for chunk in body:
                for start in range(0, len(chunk), BODY_CHUNK_BYTES):
                    if not await self._send(bytes(chunk[start : start + BODY_CHUNK_BYTES])):
                        return
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise
        finally:
            if not self.cancelled:
                self._channel.send(messages.BodyEnd(self._call, error))
            close = getattr(body, "aclose", None)
            if self.cancelled and close is not None:
                await close()

    async def _send(self, piece: bytes) -> bool:
        while self._credit <= 0 and not self.cancelled:
            self._granted.clear()
            await self._granted.wait()
        if self.cancelled or self._channel.closed:
            return False
        await self._channel.writable.wait()
        self._credit -= len(piece)
        self._channel.send_body(self._call, piece)
        return True
