"""Streams over RPC: each stays where it is made, and flows when its receiver begins to read, as a body does.

A stream is passed like a function, as a stub that can be opened once. One that nobody has begun to read is passed on
without a detour through the isolate that was given it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from workers._streams import ReadableStream

from stellwerk.isolate.bodies import BodyReader
from stellwerk.isolate.invocation import Invocation

if TYPE_CHECKING:
    from stellwerk.isolate.outgoing import OutgoingCalls
    from stellwerk.isolate.stubs import HeldStub


class GivenStream:
    """A stream of this isolate that others hold. ``invocation`` is the one whose code makes it."""

    def __init__(self, stream: ReadableStream, invocation: Invocation) -> None:
        self._stream, self.invocation = stream, invocation
        self._chunks: AsyncIterator[bytes] | None = stream._bytes()
        self._pump: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    def open(self) -> AsyncIterator[bytes]:
        """Raises ``TypeError`` for the second time."""
        if self._chunks is None:
            raise TypeError("This stream has been read already, or is being read.")
        chunks, self._chunks = self._chunks, None
        return chunks

    def pumped_by(self, pump: asyncio.Task[None]) -> None:
        self._pump = pump

    def end(self) -> None:
        """Nobody reads on, or the invocation that makes it ends."""
        if self._pump is not None:
            self._pump.cancel()
        elif self._chunks is not None:
            self._chunks = None
            self._cancelling = asyncio.get_running_loop().create_task(self.cancel())

    async def cancel(self) -> None:
        """Tells its source, which may wait for that; harmless after its end."""
        with contextlib.suppress(Exception):  # it is the user's code, and nobody is left to tell
            await self._stream.cancel()


class ReceivedStream:
    """The chunks of another isolate's stream. ``invocation`` is the one that received it."""

    def __init__(self, held: HeldStub, calls: OutgoingCalls, invocation: Invocation) -> None:
        self.held, self._calls, self._invocation = held, calls, invocation
        self._opening = asyncio.Lock()
        self._reader: BodyReader | None = None

    @property
    def untouched(self) -> bool:
        """Nobody has begun to read it: it can be passed on as it is."""
        return self._reader is None and not self._opening.locked()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._reader is None:
            async with self._opening:  # two reads at once open it once
                if self._reader is None:
                    self.held.check()
                    self._reader = await self._calls.open_stream(self.held.number, self._invocation)
        try:
            return await self._reader.__anext__()
        except (StopAsyncIteration, OSError):
            self.held.release()
            raise

    async def aclose(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.held.release()
