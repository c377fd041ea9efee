"""Frames come out as they went in, however the stream is torn; what is no frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.limits import FRAME_BYTES_MAX
from stellwerk.wire.frames import BODY, MESSAGE, FrameError, FrameReader, body_frame_head, message_frame


def read(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    reader = FrameReader()
    return [(kind, bytes(content)) for piece in pieces for kind, content in reader.feed(piece)]


def torn(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(min_value=0, max_value=400), max_size=8))
def test_frames_survive_any_tearing(contents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(message_frame(content) for content in contents)
    assert read(torn(stream, cuts)) == [(MESSAGE, content) for content in contents]


def test_every_single_byte_may_come_alone() -> None:
    stream = message_frame(b"hello") + body_frame_head(7, 3) + b"abc" + message_frame(b"")
    alone = [bytes([byte]) for byte in stream]
    assert read(alone) == [(MESSAGE, b"hello"), (BODY, (7).to_bytes(4, "little") + b"abc"), (MESSAGE, b"")]


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_of_impossible_size_is_refused_at_its_head(size: int) -> None:
    with pytest.raises(FrameError):
        read([size.to_bytes(4, "little") + b"\x00"])


def test_a_frame_of_unknown_kind_is_refused() -> None:
    with pytest.raises(FrameError):
        read([b"\x02\x00\x00\x00\x09x"])


def test_bytes_of_a_torn_frame_are_not_looked_at_again_and_again() -> None:
    """What comes of a large frame is only kept until it is whole; copying it at each read took seconds for 30 MiB."""
    reader = FrameReader()
    stream = message_frame(bytes(16 * 1024 * 1024))
    found = [list(reader.feed(stream[start : start + 4_000])) for start in range(0, len(stream), 4_000)]
    assert not any(found[:-1])
    ((kind, content),) = found[-1]
    assert (kind, len(content)) == (MESSAGE, 16 * 1024 * 1024)
