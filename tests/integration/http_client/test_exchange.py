"""One request and its answer, against a real server on a real socket."""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from collections.abc import AsyncIterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.integration.http_client.server import Visit, a_client, always, ask, read, run, serving

from stellwerk.core.limits import BODY_CHUNK_BYTES, RESPONSE_HEAD_BYTES_MAX

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Way: there\r\n\r\nhello"


def test_an_answer_comes_back_with_status_reason_headers_body_and_url() -> None:
    async def main() -> None:
        async with serving(partial(always, data=OK)) as server, a_client() as client:
            response = await client.fetch(ask(f"{server.url}/a/b?c=d", x_mine="1"))
            assert (response.status, response.reason, response.url) == (200, "OK", f"{server.url}/a/b?c=d")
            assert (b"x-way", b"there") in response.headers
            assert await read(response) == b"hello"
            (asked,) = server.asked
            assert asked.line == "GET /a/b?c=d HTTP/1.1"
            assert asked.headers == {
                "host": f"127.0.0.1:{server.port}",
                "x-mine": "1",
                "accept-encoding": "gzip, deflate",
            }

    run(main())


def test_host_and_framing_are_ours_to_say() -> None:
    """A Worker that forwards the headers it got must not forward those that belong to the other connection."""

    async def main() -> None:
        async with serving(partial(always, data=OK)) as server, a_client() as client:
            request = ask(
                server.url, "POST", body=b"abc", host="evil", connection="close", content_length="99", te="trailers"
            )
            await client.fetch(request)
            (asked,) = server.asked
            assert asked.body == b"abc"
            assert asked.headers["host"] == f"127.0.0.1:{server.port}"
            assert "connection" not in asked.headers and "te" not in asked.headers

    run(main())


def test_headers_of_the_connection_stay_with_it() -> None:
    async def main() -> None:
        data = (
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n"
            b"X: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        async with serving(partial(always, data=data)) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            assert response.headers == [(b"x", b"1")]
            assert await read(response) == b"ok"

    run(main())


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def test_a_body_in_pieces_is_sent_chunked_or_with_the_length_that_was_declared() -> None:
    async def main() -> None:
        async with serving(partial(always, data=OK)) as server, a_client() as client:
            await client.fetch(ask(server.url, "POST", body=pieces(b"ab", b"", b"cde")))
            await client.fetch(ask(server.url, "POST", body=pieces(b"ab", b"cde"), content_length="5"))
            chunked, declared = server.asked
            assert chunked.body == declared.body == b"abcde"
            assert chunked.headers["transfer-encoding"] == "chunked" and "content-length" not in chunked.headers
            assert declared.headers["content-length"] == "5" and "transfer-encoding" not in declared.headers

    run(main())


@pytest.mark.parametrize("size", ["4", "6"])
def test_a_body_that_is_not_as_long_as_declared_fails_the_request(size: str) -> None:
    async def main() -> None:
        async with serving(partial(always, data=OK)) as server, a_client() as client:
            with pytest.raises(OSError, match="broke off"):
                await client.fetch(ask(server.url, "POST", body=pieces(b"ab", b"cde"), content_length=size))

    run(main())


def test_a_large_body_is_sent_while_the_server_answers_it_back() -> None:
    """Neither side can hold it all: a client that first sends and then reads would hang."""
    total = 8 * 1024 * 1024

    async def echo(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        left = total
        while left:
            data = await visit.reader.read(min(left, 65536))
            left -= len(data)
            await visit.answer(data)

    async def source() -> AsyncIterator[bytes]:
        for index in range(total // 65536):
            yield bytes([index % 251]) * 65536

    async def main() -> None:
        async with serving(echo) as server, a_client() as client:
            response = await client.fetch(ask(server.url, "POST", body=source(), content_length=str(total)))
            body = await read(response)
            assert len(body) == total
            assert body == b"".join([bytes([index % 251]) * 65536 for index in range(total // 65536)])

    run(main())


def test_an_answer_is_there_before_its_body_is() -> None:
    go_on = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        await visit.answer(b"3\r\ntwo\r\n0\r\n\r\n")

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            assert isinstance(response.body, AsyncIterator)
            assert await anext(response.body) == b"one"
            go_on.set()
            assert await read(response) == b"two"

    run(main())


def test_a_slow_reader_stops_the_server() -> None:
    sent = 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            await visit.answer(bytes(100_000))
            sent += 100_000

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            seen = -1
            while seen != sent:  # until nothing moves any more: the kernel's buffers are full, ours as well
                seen = sent
                for _ in range(200):
                    await asyncio.sleep(0)
            assert sent < 50_000_000
            assert isinstance(response.body, AsyncIterator)
            await anext(response.body)
            await response.body.aclose()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_leaves_the_connection_usable(status: bytes) -> None:
    async def main() -> None:
        async with serving(partial(always, data=b"HTTP/1.1 " + status + b"\r\n\r\n")) as server, a_client() as client:
            for _ in range(2):
                assert (await client.fetch(ask(server.url))).body is None
            assert server.connections == 1

    run(main())


def test_head_has_no_body_whatever_its_length_says() -> None:
    async def main() -> None:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        async with serving(partial(always, data=data)) as server, a_client() as client:
            for _ in range(2):
                response = await client.fetch(ask(server.url, "HEAD"))
                assert response.body is None
                assert (b"content-length", b"1000") in response.headers
            assert server.connections == 1

    run(main())


def test_interim_answers_are_skipped() -> None:
    async def main() -> None:
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        async with serving(partial(always, data=hint + OK)) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            assert response.status == 200
            assert b"link" not in dict(response.headers)

    run(main())


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            assert await read(await client.fetch(ask(server.url))) == b"all of it"
            assert await read(await client.fetch(ask(server.url))) == b"all of it"
            assert server.connections == 2

    run(main())


def encoded(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        half = len(data) // 2
        return gzip.compress(data[:half]) + gzip.compress(data[half:])  # two members, which gzip allows
    if coding == "deflate":
        return zlib.compress(data)
    bare = zlib.compressobj(wbits=-15)
    return bare.compress(data) + bare.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "bare deflate"])
def test_compressed_bodies_are_decoded_in_pieces(coding: str) -> None:
    plain = b"a very repetitive text. " * 100_000
    data = encoded(coding, plain)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding.split()[-1]}\r\nContent-Length: {len(data)}\r\n\r\n"

    async def main() -> None:
        async with serving(partial(always, data=head.encode() + data)) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            assert not {b"content-encoding", b"content-length"} & dict(response.headers).keys()
            assert isinstance(response.body, AsyncIterator)
            chunks = [chunk async for chunk in response.body]
            assert max(len(chunk) for chunk in chunks) <= BODY_CHUNK_BYTES
            assert b"".join(chunks) == plain
            await read(await client.fetch(ask(server.url)))
            assert server.connections == 1

    run(main())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "before it answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * (RESPONSE_HEAD_BYTES_MAX + 1), "head of more than"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switched protocols"),
    ],
)
def test_what_is_no_answer_is_an_os_error_that_names_the_origin(data: bytes, text: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.answer(data)

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            with pytest.raises(OSError, match=text) as caught:
                await client.fetch(ask(server.url))
            assert server.url in str(caught.value)

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + gzip.compress(b"x" * 999)[:20],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + b"this is not gzip....",
    ],
    ids=["length", "chunk", "cut gzip", "no gzip"],  # gzip writes the time into its data: no name for a test
)
def test_a_body_that_breaks_off_is_an_error_where_it_is_read(data: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.answer(data)

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            response = await client.fetch(ask(server.url))
            assert response.status == 200
            with pytest.raises(OSError, match=server.url):
                await read(response)

    run(main())


def test_a_server_that_says_nothing_runs_into_the_stall_timeout() -> None:
    never = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        await never.wait()

    async def main() -> None:
        async with serving(silent) as server, a_client(stall_timeout_ms=50) as client:
            with pytest.raises(OSError, match="moved no byte"):
                await client.fetch(ask(server.url))

    run(main())


def test_connecting_has_a_timeout_and_failing_names_the_host() -> None:
    async def never(*_args: object) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with a_client(connect=never, connect_timeout_ms=20) as client:
            with pytest.raises(OSError, match=r"http://slow\.example took no connection within 20 ms"):
                await client.fetch(ask("http://slow.example/"))
        async with serving(partial(always, data=OK)) as server:
            url = server.url
        async with a_client() as client:
            with pytest.raises(OSError, match=f"{url} cannot be reached"):
                await client.fetch(ask(url))

    run(main())


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1/a b", {}),
        ("http://127.0.0.1/", {"x": "a\r\nevil: 1"}),
        ("http://127.0.0.1/", {"x y": "a"}),
    ],
)
def test_a_request_that_would_break_out_of_its_line_is_not_sent(url: str, headers: dict[str, str]) -> None:
    async def main() -> None:
        async with a_client() as client:
            with pytest.raises(ValueError, match="cannot be"):
                await client.fetch(ask(url, **headers))

    run(main())


@pytest.mark.parametrize("url", ["ftp://a/", "nonsense", "http://user:secret@a/"])
def test_only_plain_http_urls_are_fetched(url: str) -> None:
    async def main() -> None:
        async with a_client() as client:
            with pytest.raises(OSError, match="cannot be fetched") as caught:
                await client.fetch(ask(url))
            assert "secret" not in str(caught.value)

    run(main())


def test_pythons_own_http_server_is_understood() -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(201, "Made")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[::-1])

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        async def main() -> None:
            async with a_client() as client:
                for _ in range(3):
                    response = await client.fetch(ask(f"http://127.0.0.1:{server.server_port}/x", "PUT", body=b"abc"))
                    assert (response.status, response.reason) == (201, "Made")
                    assert await read(response) == b"cba"

        try:
            run(main())
        finally:
            server.shutdown()
            thread.join()
