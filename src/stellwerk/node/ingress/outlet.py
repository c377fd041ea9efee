"""The socket's side of a connection: writing, and the three ways to end it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

_HELD_PARTS_MAX = 8  # of an answer's beginning that wait for the end of the turn
_HELD_PART_BYTES_MAX = 16_384
_RESET = struct.pack("ii", 1, 0)


class Outlet:
    """Writes to one client. After the connection is lost everything is dropped without a word."""

    __slots__ = ("_end_of_turn", "_held", "_read_paused", "ended", "lingering", "transport", "write_paused")

    def __init__(self, transport: asyncio.Transport, end_of_turn: Callable[[Callable[[], None]], None]) -> None:
        self.transport: asyncio.Transport | None = transport
        self.write_paused = False
        self.ended = False  # closed by us in whatever way: nothing more is read or begun
        self.lingering = False  # closed on our side only
        self._end_of_turn = end_of_turn
        self._held: list[bytes] = []
        self._read_paused = False

    def send(self, data: bytes) -> None:
        """Writes, behind what is held for the end of the turn."""
        if self._held:
            self._held.append(data)
            if len(self._held) > _HELD_PARTS_MAX or len(data) > _HELD_PART_BYTES_MAX:
                self.flush()
        elif self.transport is not None:
            self.transport.write(data)

    def hold(self, data: bytes) -> None:
        """Writes at the end of the turn, so that the head of an answer leaves together with its first piece."""
        if self.transport is not None:
            self._held.append(data)
            self._end_of_turn(self.flush)

    def flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            if self.transport is not None:
                self.transport.write(data)

    def pause_reading(self, pause: bool) -> None:
        """Stops reading from the socket, or reads on. Harmless when it is so already."""
        transport = self.transport
        if pause != self._read_paused and transport is not None and not transport.is_closing():
            self._read_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def close(self) -> None:
        """Writes what waits, then closes."""
        self.ended = True
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def linger(self) -> None:
        """Closes our side, then drops what still comes: closing with unread input would reset the answer away."""
        transport = self.transport
        if transport is None or self.ended:
            return
        self.ended = self.lingering = True
        self.flush()
        if transport.can_write_eof():
            transport.write_eof()
            self.pause_reading(False)
        else:
            transport.close()

    def abort(self) -> None:
        """Resets the connection: the client sees that something was cut off."""
        self.ended = True
        transport = self.transport
        if transport is not None:
            socket_ = transport.get_extra_info("socket")
            if socket_ is not None:
                # Without this, closing looks like a proper end to a client that reads until there is no more.
                socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()

    def lost(self) -> None:
        self.ended = True
        self.transport = None
        self._held.clear()

    @property
    def unsent_bytes(self) -> int | None:
        """What the client has yet to take, where that is what the connection waits for; else None."""
        transport = self.transport
        if transport is None or not (self.lingering or self.write_paused or transport.is_closing()):
            return None
        size = transport.get_write_buffer_size()
        return None if self.lingering and not size else size
