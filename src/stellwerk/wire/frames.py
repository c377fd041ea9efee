"""Frames: bytes to messages and back, with no I/O.

A frame is four bytes of length (little endian, of what follows), one byte of kind, and the rest. ``MESSAGE`` carries a
msgpack array of messages of ``wire/isolate.py``; ``BODY`` carries four bytes of call id and then raw bytes, so that a
body is never copied through msgpack.
"""

from __future__ import annotations

from collections.abc import Iterator

from stellwerk.core.limits import FRAME_BYTES_MAX

MESSAGE = 0
BODY = 1

HEAD = 5


class FrameError(ValueError):
    """The other side sent what is no frame: too long, or of an unknown kind. The channel must be closed."""


def message_frame(payload: bytes) -> bytes:
    return (len(payload) + 1).to_bytes(4, "little") + b"\x00" + payload


def body_frame_head(call: int, size: int) -> bytes:
    """What precedes ``size`` raw bytes of a body; the two are written one after the other, not joined."""
    return (size + 5).to_bytes(4, "little") + b"\x01" + call.to_bytes(4, "little")


class FrameReader:
    """Splits a stream of bytes into frames. Bytes of a torn frame are kept until the rest has come, and are looked at
    again only then: a frame of 30 MiB comes in hundreds of reads."""

    __slots__ = ("_kept", "_wanted")

    def __init__(self) -> None:
        self._kept = bytearray()
        self._wanted = 0  # so many bytes make the first frame whole, or at least its head

    def feed(self, data: bytes | bytearray) -> Iterator[tuple[int, memoryview]]:
        """Yields (kind, content) per whole frame. A view is valid only until the next step of the iterator."""
        if self._kept:
            self._kept += data
            if len(self._kept) < self._wanted:
                return
            data, self._kept = self._kept, bytearray()
        view = memoryview(data)
        self._wanted = HEAD
        start, end = 0, len(data)
        while end - start >= HEAD:
            size = int.from_bytes(view[start : start + 4], "little")
            if size > FRAME_BYTES_MAX or size < 1:
                raise FrameError(f"a frame of {size} bytes; between 1 and {FRAME_BYTES_MAX} are allowed")
            stop = start + 4 + size
            if stop > end:
                self._wanted = stop - start
                break
            kind = data[start + 4]
            if kind > BODY:
                raise FrameError(f"a frame of unknown kind {kind}")
            yield kind, view[start + HEAD : stop]
            start = stop
        if start < end:
            self._kept += view[start:]
