"""What a handler's answer looks like on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.integration.ingress.corpus import head
from tests.integration.ingress.serving import Answer, hello, run, serving

from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.strict import HeaderList

GET, HEAD = head(), head(start=b"HEAD / HTTP/1.1")
OLD = head(start=b"GET / HTTP/1.0")


def asked(handle: Callable[[Exchange], None], data: bytes = GET) -> Answer:
    """The answer to one request."""

    async def main() -> Answer:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(data)
            return await client.answer(to_head=data.startswith(b"HEAD"))

    return run(main())


def bytes_of(handle: Callable[[Exchange], None], data: bytes = GET) -> bytes:
    """All bytes of the answer to one request on a connection that ends with it."""

    async def main() -> bytes:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(data)
            return await client.closed()

    return run(main())


def answering(status: int, headers: HeaderList, body: bytes | None, reason: str = "") -> Callable[[Exchange], None]:
    return lambda exchange: exchange.respond(status, headers, body, reason)


def streaming(headers: HeaderList, *chunks: bytes) -> Callable[[Exchange], None]:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, headers)
        for chunk in chunks:
            exchange.write(chunk)
        exchange.finish()

    return handle


def test_a_whole_answer_has_its_length_the_date_and_the_servers_name() -> None:
    answer = asked(hello)
    assert (answer.status, answer.reason, answer.body) == (200, "OK", b"Hello world!")
    assert answer["content-length"] == "12"
    assert answer["server"] == "stellwerk"
    assert answer["date"].endswith(" GMT")
    assert "connection" not in answer


def test_the_handler_gets_the_request_without_the_headers_of_this_hop() -> None:
    seen: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        seen.append(exchange)
        hello(exchange)

    asked(
        handle,
        head(
            b"Connection: keep-alive, X-Hop",
            b"Keep-Alive: 5",
            b"TE: trailers",
            b"Proxy-Authorization: secret",
            b"X-Hop: 1",
            b"X-A: 1",
            b"x-a: 2",
            b"Content-Length: 3",
            start=b"POST /a?b=c HTTP/1.1",
            host=b"Host: Example.COM:8787",
        )
        + b"abc",
    )
    exchange = seen[0]
    assert (exchange.method, exchange.target, exchange.host) == ("POST", "/a?b=c", "example.com:8787")
    assert (exchange.scheme, exchange.client, exchange.head_only) == ("http", "127.0.0.1", False)
    assert (exchange.body, exchange.streaming) == (b"abc", False)
    assert exchange.headers == [
        (b"host", b"Example.COM:8787"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-length", b"3"),
    ]


def test_a_get_has_no_body_and_a_short_chunked_body_comes_whole() -> None:
    seen: list[tuple[bytes | None, bool]] = []

    def handle(exchange: Exchange) -> None:
        seen.append((exchange.body, exchange.streaming))
        hello(exchange)

    asked(handle)
    asked(handle, head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert seen == [(None, False), (b"abcde", False)]


def test_headers_of_a_hop_and_those_that_are_ours_are_left_out_and_names_become_lower_case() -> None:
    headers = [
        (b"Connection", b"x"),
        (b"Transfer-Encoding", b"gzip"),
        (b"Keep-Alive", b"1"),
        (b"Upgrade", b"x"),
        (b"Date", b"never"),
        (b"Server", b"other"),
        (b"Content-Length", b"99"),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    answer = asked(answering(200, headers, b"abc"))
    assert [name for name, _ in answer.headers] == ["set-cookie", "set-cookie", "date", "server", "content-length"]
    assert answer["content-length"] == "3"


def test_a_head_request_gets_the_length_but_no_body() -> None:
    assert asked(hello, HEAD)["content-length"] == "12"
    assert asked(answering(200, [(b"content-length", b"7")], None), HEAD)["content-length"] == "7"
    assert "content-length" not in asked(answering(200, [], None), HEAD)
    text = bytes_of(hello, head(b"Connection: close", start=b"HEAD / HTTP/1.1"))
    assert text.endswith(b"\r\n\r\n") and b"Hello" not in text


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("streamed", [False, True])
def test_answers_without_a_body_have_none_whatever_the_handler_gave(status: int, streamed: bool) -> None:
    def handle(exchange: Exchange) -> None:
        if not streamed:
            exchange.respond(status, [], b"body")
            return
        exchange.start(status, [])
        exchange.write(b"body")
        exchange.finish()

    text = bytes_of(handle, head(b"Connection: close"))
    assert text.startswith(b"HTTP/1.1 %d " % status)
    assert text.endswith(b"connection: close\r\n\r\n")
    assert b"content-length" not in text and b"transfer-encoding" not in text


def test_an_answer_without_a_body_has_length_0() -> None:
    assert asked(answering(200, [], None))["content-length"] == "0"


def test_a_reason_and_an_unusual_status_are_sent() -> None:
    assert asked(answering(299, [], None, "Fine enough")).reason == "Fine enough"
    assert asked(answering(599, [], None)).status == 599


def test_a_streamed_answer_is_chunked() -> None:
    large = b"x" * 100_000
    answer = asked(streaming([], b"Hello ", b"", b"world!", large))
    assert answer["transfer-encoding"] == "chunked"
    assert answer.body == b"Hello world!" + large


def test_a_streamed_answer_with_a_length_is_sent_as_it_is() -> None:
    answer = asked(streaming([(b"content-length", b"12")], b"Hello ", b"world!"))
    assert "transfer-encoding" not in answer
    assert answer.body == b"Hello world!"


def test_an_old_client_gets_no_chunks_and_the_end_of_the_connection_as_the_end() -> None:
    answer = asked(streaming([], b"Hello ", b"world!"), OLD)
    assert "transfer-encoding" not in answer
    assert answer["connection"] == "close"
    assert answer.body == b"Hello world!"


def test_the_connection_is_closed_when_the_client_asks_for_it() -> None:
    text = bytes_of(hello, head(b"Connection: close"))
    assert b"connection: close\r\n" in text and text.endswith(b"Hello world!")


def test_an_answer_longer_than_its_length_is_cut_and_the_connection_closed() -> None:
    gone: list[bool] = []

    def handle(exchange: Exchange) -> None:
        exchange.on_gone = lambda: gone.append(True)
        streaming([(b"content-length", b"5")], b"Hello world!")(exchange)

    assert bytes_of(handle).endswith(b"\r\n\r\nHello")
    assert gone == [True]


def test_an_answer_shorter_than_its_length_ends_with_the_connection() -> None:
    assert bytes_of(streaming([(b"content-length", b"50")], b"Hello world!")).endswith(b"Hello world!")


def test_an_answer_that_breaks_off_has_no_proper_end() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"Hello")
        exchange.break_off()
        exchange.write(b"dropped")

    assert bytes_of(handle).endswith(b"5\r\nHello\r\n")


def test_an_old_client_sees_a_reset_where_an_answer_breaks_off() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"Hello")
        exchange.break_off()

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(OLD)
            with pytest.raises(ConnectionError):
                while await client.reader.read(1000):
                    pass

    run(main())


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (200, [(b"x-a", b"b\r\nset-cookie: evil=1")], ""),
        (200, [(b"x-a", b"b\nset-cookie: evil=1")], ""),
        (200, [(b"x-a", b"b\rc")], ""),
        (200, [(b"x-a", b"b\0c")], ""),
        (200, [(b"x-a: b\r\nset-cookie", b"evil=1")], ""),
        (200, [(b"x a", b"b")], ""),
        (200, [(b"", b"b")], ""),
        (200, [(b"content-length", b"5\r\nset-cookie: evil=1")], ""),
        (200, [(b"content-length", b"5"), (b"Content-Length", b"6")], ""),
        (200, [(b"x-a", b"b" * 200_000)], ""),
        (200, [], "OK\r\nset-cookie: evil=1"),
        (200, [], "€"),
        (101, [], ""),
        (99, [], ""),
        (600, [], ""),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_would_split_is_replaced_by_an_error_page(
    status: int, headers: HeaderList, reason: str, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(exchange: Exchange) -> None:
        if not streamed:
            exchange.respond(status, headers, b"body", reason)
            return
        exchange.start(status, headers, reason)
        exchange.write(b"body")
        exchange.finish()

    answer = asked(handle)
    assert answer.status == 500
    assert json.loads(answer.body)["code"] == "worker.bad_answer"
    assert "set-cookie" not in answer
    assert "cannot be sent" in caplog.text


def test_a_handler_that_fails_is_answered_for_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handle(exchange: Exchange) -> None:
        raise LookupError("a bug")

    answer = asked(handle)
    assert answer.status == 500
    assert json.loads(answer.body)["code"] == "platform.internal"
    assert "a bug" not in answer.body.decode() and "a bug" in caplog.text


def refusing(exchange: Exchange) -> None:
    exchange.refuse(
        503, "isolate.lost", "The <isolate> ended.", cloudflare_code=1101, retryable=True, request_id="abc123"
    )


def test_a_program_gets_an_error_as_json() -> None:
    answer = asked(refusing)
    assert answer.status == 503
    assert answer["content-type"] == "application/json"
    assert json.loads(answer.body) == {
        "code": "isolate.lost",
        "message": "The <isolate> ended.",
        "request_id": "abc123",
        "retryable": True,
    }


def test_a_browser_gets_an_error_as_a_page() -> None:
    accept = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = asked(refusing, head(accept))
    page = answer.body.decode()
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert "<h1>Error 1101</h1>" in page and "The &lt;isolate&gt; ended." in page and "abc123" in page


def test_a_browser_gets_a_page_for_a_refused_request_too() -> None:
    answer = asked(hello, head(b"Accept: text/html", b"Connection: Upgrade", b"Upgrade: websocket"))
    assert answer.status == 501
    assert "not built yet" in answer.body.decode() and answer["content-type"].startswith("text/html")
    assert answer["connection"] == "close"


def test_a_refusal_after_the_answer_began_breaks_it_off() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"Hello")
        exchange.refuse(500, "platform.internal", "too late")

    text = bytes_of(handle)
    assert text.endswith(b"5\r\nHello\r\n") and b"too late" not in text


def test_what_comes_after_the_end_of_an_answer_is_dropped() -> None:
    def handle(exchange: Exchange) -> None:
        hello(exchange)
        hello(exchange)
        exchange.start(200, [])
        assert exchange.write(b"more")
        exchange.finish()
        exchange.break_off()
        exchange.refuse(500, "a", "b")
        exchange.consumed(5)

    text = bytes_of(handle, head(b"Connection: close"))
    assert text.count(b"HTTP/1.1") == 1 and text.endswith(b"Hello world!")


def test_a_head_that_waits_for_its_first_piece_leaves_with_the_end_of_the_turn() -> None:
    begun: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        exchange.start(200, [])
        begun.append(exchange)

    async def main() -> None:
        async with serving(handle) as served:
            client = await served.connect()
            await client.send(GET)
            assert (await client.head()).status == 200
            begun[0].write(b"late")
            begun[0].finish()
            assert [chunk async for chunk in client.chunks()] == [b"late"]

    run(main())
