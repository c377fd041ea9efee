"""The reader alone: what comes out must not depend on how the bytes were cut, whatever the bytes are."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stellwerk.node.ingress.reader import HEAD_PIECE_BYTES, RequestReader
from stellwerk.node.ingress.strict import IngressLimits

Seen = tuple[str, str, str, tuple[tuple[bytes, bytes], ...], bytes]


def a_reader(**limits: int) -> RequestReader:
    return RequestReader(cast(Any, SimpleNamespace(scheme="http", client="")), IngressLimits(**limits))


def feed(reader: RequestReader, data: bytes, cuts: list[int]) -> None:
    """Feeds the bytes cut at the given places, and in no larger pieces than the reader takes."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        part = memoryview(data)[start:end]
        while part and reader.refusal is None:
            size = reader.piece_bytes()
            reader.feed(part[:size])
            part = part[size:]


def outcome(data: bytes, cuts: list[int]) -> tuple[list[Seen], int, bool]:
    """All requests that came out whole, the status of the refusal or 0, and whether the connection has ended."""
    reader = a_reader()
    feed(reader, data, cuts)
    seen = []
    for exchange in reader.ready:
        if exchange._ended != "":
            continue
        body = b"".join(exchange._held) if exchange.streaming else exchange.body or b""
        seen.append((exchange.method, exchange.target, exchange.host, tuple(exchange.headers), body))
    return seen, reader.refusal.status if reader.refusal else 0, reader.finished


PARTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.1\r\n",
        b"HEAD * HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Host: b\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 05\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"X-A: b\r\n",
        b"\r\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\x00",
        b"\n",
        b" ",
    ]
)
STREAMS = st.one_of(
    st.lists(PARTS, max_size=20).map(b"".join),
    st.binary(max_size=200),
    st.tuples(st.lists(PARTS, max_size=12).map(b"".join), st.binary(max_size=20)).map(b"".join),
)
WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@given(STREAMS, st.lists(st.integers(min_value=0, max_value=10_000), max_size=8))
@example(
    WHOLE + b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + WHOLE, [1]
)
def test_how_the_bytes_are_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    whole = outcome(data, [])
    assert outcome(data, cuts) == whole
    assert outcome(data, list(range(len(data)))) == whole
    assert whole[1] in (0, 400, 413, 414, 417, 431, 501, 505)


def test_a_head_of_exactly_the_limit_is_taken_and_one_byte_more_is_not_however_it_is_fed() -> None:
    overhead = len(b"/") + len(b"host") + len(b"a") + 4 + len(b"x-a") + 4
    for cuts in ([], list(range(20_000))):
        for extra, refused in ((0, False), (1, True)):
            reader = a_reader(head_bytes_max=10_000)
            value = b"b" * (10_000 - overhead + extra)
            feed(reader, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + value + b"\r\n\r\n", cuts)
            assert (reader.refusal is not None) is refused
            assert len(reader.ready) == (not refused)


def test_a_url_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    for extra, status in ((0, None), (1, 414)):
        reader = a_reader(url_bytes_max=5_000)
        feed(reader, b"GET /" + b"a" * (4_999 + extra) + b" HTTP/1.1\r\nHost: a\r\n\r\n", [])
        assert (reader.refusal.status if reader.refusal else None) == status


def test_a_head_that_never_ends_is_refused_before_it_is_large() -> None:
    reader = a_reader(head_bytes_max=10_000)
    fed = 0
    while reader.refusal is None:
        piece = b"GET / HTTP/1.1\r\nX-A: " if not fed else b"b" * 100
        reader.feed(piece)
        fed += len(piece)
    assert reader.refusal.status == 431
    assert fed <= 10_000 + HEAD_PIECE_BYTES + 100


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_a_body_up_to_the_inline_limit_comes_whole_and_a_larger_one_is_streamed(size: int) -> None:
    reader = a_reader()
    feed(reader, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, [])
    assert len(reader.ready) == (size > 65_536)
    feed(reader, bytes(size), [])
    exchange = reader.ready[0]
    assert exchange.streaming is (size > 65_536)
    assert exchange.body == (None if exchange.streaming else bytes(size))


def test_small_chunks_of_a_long_body_are_no_overhead() -> None:
    reader = a_reader()
    feed(reader, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", [])
    for _ in range(20_000):
        for byte in b"1\r\nx\r\n":
            reader.feed(bytes([byte]))
    assert reader.refusal is None
    reader.feed(b"0\r\n\r\n")
    assert reader.ready[0]._ended == "" and reader.requests == 1


def test_nothing_is_read_behind_a_request_that_ends_the_connection() -> None:
    reader = a_reader()
    feed(reader, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\ngarbage", [])
    feed(reader, WHOLE, [])
    assert reader.finished and reader.refusal is None and len(reader.ready) == 1


def test_a_second_request_does_not_inherit_anything_of_the_first() -> None:
    reader = a_reader()
    feed(
        reader, b"POST /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi" + b"GET / HTTP/1.1\r\n\r\n", []
    )
    assert len(reader.ready) == 1
    assert reader.refusal is not None and "no Host" in reader.refusal.message
