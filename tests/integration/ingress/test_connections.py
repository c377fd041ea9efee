"""How a connection behaves over time: order, back-pressure, slow and vanishing clients, deadlines, drain."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket

import pytest
from tests.integration.ingress.corpus import head
from tests.integration.ingress.serving import Client, Served, echo, hello, run, serving, until

from stellwerk.core import limits
from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.server import IngressServer, ListenError

GET = head()
KIB, MIB = 1024, 1024 * 1024


def get(number: int) -> bytes:
    return head(start=b"GET /%d HTTP/1.1" % number)


def upload(size: int, *lines: bytes) -> bytes:
    return head(b"Content-Length: %d" % size, *lines, start=b"POST / HTTP/1.1")


def with_small_buffers(client: Client) -> Client:
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    return client


# -- order ------------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order_and_begun_one_after_the_other() -> None:
    begun: list[Exchange] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            client = await served.connect()
            await client.send(b"".join(get(number) for number in range(5)))
            for number in range(5):
                await until(lambda number=number: len(begun) > number)  # type: ignore[misc]
                assert [exchange.target for exchange in begun] == [f"/{n}" for n in range(number + 1)]
                begun[number].respond(200, [], b"%d" % number)
                assert (await client.answer()).body == b"%d" % number

    run(main())


def test_many_pipelined_requests_are_answered_at_once_by_a_handler_that_does_not_wait() -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, [], exchange.target.encode())) as served:
            client = await served.connect()
            await client.send(b"".join(get(number) for number in range(2_000)))
            for number in range(2_000):
                assert (await client.answer()).body == b"/%d" % number
            assert served.server.requests == 2_000

    run(main())


def test_a_connection_with_too_many_requests_waiting_is_not_read_further() -> None:
    begun: list[Exchange] = []
    data = b"".join(get(number) for number in range(200_000))  # more than the kernel's buffers take

    async def main() -> None:
        async with serving(begun.append) as served:
            client = with_small_buffers(await served.connect())
            sending = asyncio.ensure_future(client.send(data))
            await until(lambda: len(begun) == 1)
            await _settled(served)
            connection = next(iter(served.server._open))
            # What one piece brings may exceed the limit; the rest stays unparsed and the socket unread.
            assert limits.PIPELINE_MAX <= len(connection._waiting) <= limits.PIPELINE_MAX + 200
            assert not sending.done()
            sending.cancel()
            while len(begun) <= limits.PIPELINE_MAX:
                begun[-1].respond(200, [], None)
                await asyncio.sleep(0)  # the next one has its turn

    run(main())


async def _settled(served: Served) -> None:
    """Until the server has read nothing for some turns of the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["breaks off", "closes"])
def test_nothing_is_begun_on_a_connection_that_the_server_has_ended(way: str) -> None:
    begun: list[str] = []

    def handle(exchange: Exchange) -> None:
        begun.append(exchange.target)
        exchange.start(200, [])
        if way == "breaks off":
            exchange.break_off()
        else:
            next(iter(served_now[0].server._open)).draining = True
            exchange.finish()

    served_now: list[Served] = []

    async def main() -> None:
        async with serving(handle) as served:
            served_now.append(served)
            client = await served.connect()
            await client.send(b"".join(get(number) for number in range(500)))
            await client.closed()
            assert begun == ["/0"]

    run(main())


def test_a_refusal_is_given_once_even_when_the_client_reads_slowly() -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, [], bytes(16 * MIB))) as served:
            client = with_small_buffers(await served.connect())
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]
            await client.send(GET + b"garbage\r\n\r\n")
            assert len((await client.answer()).body) == 16 * MIB
            assert (await client.answer()).status == 400
            assert await client.reader.read() == b""
            assert served.server.refused == 1

    run(main())


def test_a_body_between_two_pipelined_requests_reaches_its_own_request() -> None:
    async def main() -> None:
        async with serving(echo) as served:
            client = await served.connect()
            large = bytes(range(256)) * 1_000
            await client.send(GET + upload(5) + b"hello" + upload(len(large)) + large + upload(3) + b"abc")
            bodies = [(await client.answer()).body for _ in range(4)]
            assert bodies == [b"", b"hello", large, b"abc"]

    run(main())


def test_a_fault_behind_requests_that_still_wait_is_answered_last() -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, [], bytes(16 * MIB))) as served:
            client = with_small_buffers(await served.connect())
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]
            await client.send(get(0) + get(1) + get(2) + b"garbage\r\n\r\n")
            await until(lambda: served.server.requests > 0)
            await _settled(served)
            assert served.server.refused == 0
            for _ in range(3):
                assert len((await client.answer()).body) == 16 * MIB
            assert (await client.answer()).status == 400
            assert await client.reader.read() == b""

    run(main())


# -- streams and back-pressure ----------------------------------------------------------------------------------------


def test_an_upload_is_read_only_as_fast_as_the_handler_consumes_it() -> None:
    size = 16 * MIB
    data = b"0123456789abcdef" * (size // 16)
    taken: list[bytes] = []
    begun: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        begun.append(exchange)
        assert exchange.streaming and exchange.body is None
        exchange.on_chunk = taken.append
        exchange.on_end = lambda error: exchange.respond(200, [], error.encode() or b"whole")

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            sending = asyncio.ensure_future(client.send(upload(size) + data))
            await until(lambda: sum(map(len, taken)) >= limits.STREAM_CREDIT_BYTES)
            await _settled(served)
            assert sum(map(len, taken)) <= 2 * limits.STREAM_CREDIT_BYTES
            assert not sending.done()
            digest, total = hashlib.sha256(), 0
            while total < size:
                await until(lambda: bool(taken))
                chunk = taken.pop(0)
                digest.update(chunk)
                total += len(chunk)
                begun[0].consumed(len(chunk))
            await sending
            assert (await client.answer()).body == b"whole"
            assert digest.digest() == hashlib.sha256(data).digest()

    run(main())


def test_a_body_that_comes_before_the_handler_is_ready_is_kept() -> None:
    begun: list[Exchange] = []
    taken: list[bytes] = []
    ends: list[str] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            client = await served.connect()
            await client.send(upload(100_000) + bytes(100_000))
            await until(lambda: bool(begun))
            await _settled(served)
            begun[0].on_chunk, begun[0].on_end = taken.append, ends.append
            await until(lambda: ends == [""])
            assert b"".join(taken) == bytes(100_000)

    run(main())


def test_an_endless_chunked_body_is_streamed_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with serving(echo) as served:
            client = await served.connect()
            await client.send(head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"))
            for _ in range(1_000):
                await client.send(b"400\r\n" + b"x" * 1_024 + b"\r\n")
            await client.send(b"0\r\n\r\n" + GET)
            assert (await client.answer()).body == b"x" * 1_024_000
            assert (await client.answer()).status == 200

    run(main())


def test_a_slow_reader_pauses_the_writer() -> None:
    total = 32 * MIB
    chunk = bytes(64 * KIB)
    written = 0
    paused: list[int] = []

    def handle(exchange: Exchange) -> None:
        def go_on() -> None:
            nonlocal written
            while written < total:
                written += len(chunk)
                if not exchange.write(chunk):
                    paused.append(written)
                    return
            exchange.finish()

        exchange.on_writable = go_on
        exchange.start(200, [(b"content-length", b"%d" % total)])
        go_on()

    async def main() -> None:
        async with serving(handle) as served:
            client = with_small_buffers(await served.connect())
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]  # so that the client's own buffer stays small
            await client.send(GET)
            await until(lambda: bool(paused))
            await _settled(served)
            assert written < total // 2
            assert len((await client.answer()).body) == total
            assert len(paused) > 1

    run(main())


def test_a_pipelined_request_waits_while_the_client_does_not_read() -> None:
    begun: list[str] = []

    def handle(exchange: Exchange) -> None:
        begun.append(exchange.target)
        exchange.respond(200, [], bytes(16 * MIB))

    async def main() -> None:
        async with serving(handle) as served:
            client = with_small_buffers(await served.connect())
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]
            await client.send(get(0) + get(1))
            await until(lambda: bool(begun))
            await _settled(served)
            assert begun == ["/0"]
            for _ in range(2):
                assert len((await client.answer()).body) == 16 * MIB

    run(main())


def test_an_answer_before_the_end_of_the_upload_arrives_and_ends_the_connection() -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.refuse(401, "auth.required", "No.")) as served:
            client = await served.connect()
            sending = asyncio.ensure_future(client.send(upload(50 * MIB) + bytes(50 * MIB)))
            answer = await client.answer()
            assert answer.status == 401 and answer["connection"] == "close"
            sending.cancel()

    run(main())


# -- Expect -----------------------------------------------------------------------------------------------------------


def test_continue_is_sent_when_the_handler_takes_the_body() -> None:
    async def main() -> None:
        async with serving(echo) as served:
            client = await served.connect()
            await client.send(upload(5, b"Expect: 100-continue"))
            assert (await client.answer()).status == 100
            await client.send(b"hello")
            assert (await client.answer()).body == b"hello"

    run(main())


def test_continue_waits_for_a_handler_that_is_not_ready() -> None:
    begun: list[Exchange] = []
    ends: list[str] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            client = await served.connect()
            await client.send(upload(5, b"Expect: 100-continue"))
            await until(lambda: bool(begun))
            begun[0].on_chunk, begun[0].on_end = lambda chunk: None, ends.append
            assert (await client.answer()).status == 100
            await client.send(b"hello")
            await until(lambda: ends == [""])
            hello(begun[0])
            assert (await client.answer()).status == 200

    run(main())


def test_a_handler_that_does_not_want_the_body_answers_without_continue() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.connect()
            await client.send(upload(5, b"Expect: 100-continue"))
            answer = await client.answer()
            assert answer.status == 200 and answer["connection"] == "close"

    run(main())


def test_a_client_that_does_not_wait_for_continue_gets_none() -> None:
    async def main() -> None:
        async with serving(echo) as served:
            client = await served.connect()
            await client.send(upload(5, b"Expect: 100-continue") + b"hello")
            assert (await client.answer()).body == b"hello"

    run(main())


# -- clients that vanish, stall or come too many ----------------------------------------------------------------------


def test_a_client_that_goes_away_is_told_to_the_handler_once() -> None:
    begun: list[Exchange] = []
    gone: list[str] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            client = await served.connect()
            await client.send(GET)
            await until(lambda: bool(begun))
            begun[0].on_gone = lambda: gone.append("gone")
            client.abort()
            await until(lambda: bool(gone))
            assert begun[0].answered
            hello(begun[0])
            begun[0].break_off()
            await until(lambda: served.server.connections == 0)
            assert gone == ["gone"]

    run(main())


def test_a_finished_answer_is_not_told_as_gone() -> None:
    gone: list[str] = []

    def handle(exchange: Exchange) -> None:
        exchange.on_gone = lambda: gone.append("gone")
        hello(exchange)

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(GET)
            await client.answer()
            client.abort()
            await until(lambda: served.server.connections == 0)
            assert gone == []

    run(main())


def test_a_body_that_breaks_off_says_why_and_then_that_the_client_is_gone() -> None:
    heard: list[str] = []

    def handle(exchange: Exchange) -> None:
        exchange.on_chunk = lambda chunk: None
        exchange.on_end = heard.append
        exchange.on_gone = lambda: heard.append("gone")

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(upload(200_000) + bytes(1_000))
            await until(lambda: served.server.requests == 1)
            client.abort()
            await until(lambda: len(heard) == 2)
            assert heard == ["The client closed the connection.", "gone"]

    run(main())


def test_a_bad_chunk_in_the_middle_of_a_body_is_told_to_the_handler_and_answered() -> None:
    heard: list[str] = []

    def handle(exchange: Exchange) -> None:
        exchange.on_chunk = lambda chunk: None
        exchange.on_end = heard.append
        exchange.on_gone = lambda: heard.append("gone")

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1") + b"5\r\nhello\r\n")
            await until(lambda: served.server.requests == 1)
            await client.send(b"zzz\r\n")
            assert (await client.answer()).status == 400
            assert len(heard) == 2 and "parsed" in heard[0] and heard[1] == "gone"
            assert await client.closed() == b""

    run(main())


def test_a_chunked_body_over_the_limit_is_answered_with_413() -> None:
    async def main() -> None:
        async with serving(echo, body_bytes_max=50_000) as served:
            client = await served.connect()
            await client.send(head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"))
            for _ in range(60):
                await client.send(b"400\r\n" + b"x" * 1_024 + b"\r\n")
            answer = await client.answer()
            assert answer.status == 413 and json.loads(answer.body)["code"] == "request.body_too_large"

    run(main())


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nA: ", GET + b"GET /"])
def test_a_head_that_takes_too_long_is_answered_with_408(begun: bytes) -> None:
    async def main() -> None:
        async with serving(hello, head_timeout_ms=50, sweep_ms=10) as served:
            client = await served.connect()
            await client.send(begun)
            if begun.startswith(GET):
                assert (await client.answer()).status == 200
                await client.send(b"x")  # a start that follows in the same packet counts from the next one on
            answer = await client.answer()
            assert answer.status == 408 and json.loads(answer.body)["code"] == "request.timeout"
            assert await client.closed() == b""

    run(main())


def test_a_head_that_drips_in_has_no_more_time_than_another() -> None:
    async def main() -> None:
        async with serving(hello, head_timeout_ms=50, sweep_ms=10) as served:
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\n")
            answering = asyncio.ensure_future(client.answer())
            while not answering.done():
                await client.send(b"a")
                await asyncio.sleep(0)
                if served.server.refused:
                    break
            assert (await answering).status in (408, 431)

    run(main())


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    begun: list[Exchange] = []

    async def main() -> None:
        async with serving(begun.append, keepalive_timeout_ms=50, sweep_ms=10) as served:
            busy, idle = await served.connect(), await served.connect()
            await busy.send(GET)
            assert await idle.closed() == b""
            hello(begun[0])
            assert (await busy.answer()).status == 200
            assert await busy.closed() == b""

    run(main())


@pytest.mark.parametrize("size", [1_000, 200_000])
def test_a_body_that_stalls_is_answered_with_408(size: int) -> None:
    heard: list[str] = []

    def handle(exchange: Exchange) -> None:
        exchange.on_chunk = lambda chunk: None
        exchange.on_end = heard.append

    async def main() -> None:
        async with serving(handle, body_stall_timeout_ms=50, sweep_ms=10) as served:
            client = await served.connect()
            await client.send(upload(size) + b"x")
            assert (await client.answer()).status == 408
            assert await client.closed() == b""
            assert heard == (["The request body stopped arriving."] if size == 200_000 else [])

    run(main())


def test_a_body_that_the_handler_does_not_consume_has_not_stalled() -> None:
    begun: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        begun.append(exchange)
        exchange.on_chunk = lambda chunk: None

    async def main() -> None:
        async with serving(handle, body_stall_timeout_ms=30, keepalive_timeout_ms=60, sweep_ms=10) as served:
            client, idle = await served.connect(), await served.connect()
            sending = asyncio.ensure_future(client.send(upload(16 * MIB) + bytes(16 * MIB)))
            await idle.closed()  # longer than the stall's limit
            assert not begun[0].answered and served.server.refused == 0
            sending.cancel()

    run(main())


def test_a_client_that_does_not_read_its_answer_is_reset() -> None:
    async def main() -> None:
        async with serving(
            lambda exchange: exchange.respond(200, [], bytes(64 * MIB)), body_stall_timeout_ms=50, sweep_ms=10
        ) as served:
            client = with_small_buffers(await served.connect())
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]
            await client.send(GET)
            await until(lambda: served.server.requests == 1)
            await until(lambda: served.server.connections == 0)

    run(main())


def test_a_connection_too_many_is_answered_with_503() -> None:
    async def main() -> None:
        async with serving(hello, connections_max=2) as served:
            first, second = await served.connect(), await served.connect()
            for client in (first, second):
                await client.send(GET)
                assert (await client.answer()).status == 200
            third = await served.connect()
            answer = await third.answer()
            assert answer.status == 503 and json.loads(answer.body)["retryable"] is True
            first.writer.close()
            third.writer.close()
            await until(lambda: served.server.connections == 1)
            assert (await served.ask(GET)).status == 200

    run(main())


def test_a_client_that_keeps_its_end_open_after_a_refusal_is_let_go_in_the_end() -> None:
    async def main() -> None:
        async with serving(hello, linger_ms=50, sweep_ms=10) as served:
            client = await served.connect()
            await client.send(b"garbage\r\n\r\n")
            assert (await client.answer()).status == 400
            assert await client.closed() == b""
            await until(lambda: served.server.connections == 0)

    run(main())


def test_an_answer_that_is_still_being_read_is_not_cut_off_by_the_lingering_of_its_connection() -> None:
    async def main() -> None:
        async with serving(
            lambda exchange: exchange.respond(200, [], bytes(16 * MIB)), linger_ms=1, sweep_ms=5
        ) as served:
            client, clock = with_small_buffers(await served.connect()), await served.connect()
            client.reader._limit = 64 * KIB  # type: ignore[attr-defined]
            await client.send(upload(1_000_000))  # answered before the body comes: our side is closed after the answer
            await until(lambda: served.server.requests == 1)
            await clock.send(b"garbage\r\n\r\n")
            await until(lambda: served.server.connections == 1)  # whoever lingers without unsent bytes is reset by now
            assert len((await client.answer()).body) == 16 * MIB

    run(main())


# -- drain and start --------------------------------------------------------------------------------------------------


def test_a_drain_finishes_what_is_under_way_and_closes_the_rest() -> None:
    begun: list[Exchange] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            busy, streaming, idle = [await served.connect() for _ in range(3)]
            await busy.send(get(0) + get(1))
            await until(lambda: len(begun) == 1)
            await streaming.send(get(2))
            await until(lambda: len(begun) == 2)
            begun[1].start(200, [])
            begun[1].write(b"Hello ")
            draining = asyncio.ensure_future(served.server.drain(5_000))
            assert await idle.closed() == b""
            with pytest.raises(ConnectionError):
                await served.connect()
            hello(begun[0])
            answer = await busy.answer()
            assert answer.body == b"Hello world!" and answer["connection"] == "close"
            assert await busy.reader.read() == b""  # closed properly, not reset
            assert not draining.done()
            begun[1].write(b"world!")
            begun[1].finish()
            assert (await streaming.answer()).body == b"Hello world!"
            assert await streaming.reader.read() == b""
            await draining
            assert [exchange.target for exchange in begun] == ["/0", "/2"]
            assert served.server.connections == 0

    run(main())


def test_a_drain_resets_what_does_not_finish_in_time() -> None:
    begun: list[Exchange] = []
    gone: list[bool] = []

    async def main() -> None:
        async with serving(begun.append) as served:
            client = await served.connect()
            await client.send(GET)
            await until(lambda: bool(begun))
            begun[0].on_gone = lambda: gone.append(True)
            await served.server.drain(20)
            assert gone == [True]
            assert served.server.connections == 0

    run(main())


def test_stopping_before_the_start_and_twice_is_harmless() -> None:
    async def main() -> None:
        server = IngressServer(hello, host="127.0.0.1", port=0)
        await server.stop()
        await server.start()
        assert server.started.is_set()
        await server.stop()
        await server.stop()

    run(main())


def test_a_taken_port_is_named_with_a_cure() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            second = IngressServer(hello, host="127.0.0.1", port=served.server.port)
            with pytest.raises(ListenError, match=f"Port {served.server.port} is taken.*--port") as raised:
                await second.start()
            assert raised.value.code == "ingress.cannot_listen"

    run(main())


def test_a_foreign_address_is_named_with_a_cure() -> None:
    async def main() -> None:
        with pytest.raises(ListenError, match=r"192\.0\.2\.1 is not an address of this machine.*--ip"):
            await IngressServer(hello, host="192.0.2.1", port=0).start()

    run(main())


def test_the_server_counts_connections_requests_and_refusals() -> None:
    async def main() -> None:
        async with serving(hello) as served:
            client = await served.connect()
            for _ in range(3):
                await client.send(GET)
                await client.answer()
            bad = await served.connect()
            await bad.send(b"garbage\r\n\r\n")
            await bad.closed()
            server = served.server
            assert (server.accepted, server.requests, server.refused) == (2, 3, 1)

    run(main())
