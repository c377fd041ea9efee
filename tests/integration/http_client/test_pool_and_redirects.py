"""What happens between requests: connections that are kept, lost, waited for; and redirects."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from functools import partial

import pytest
from tests.integration.http_client.server import Script, Server, Visit, a_client, always, ask, read, run, serving

from stellwerk.core.limits import FETCH_REDIRECTS_MAX

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)


def test_a_connection_is_used_again_when_its_answer_was_read() -> None:
    async def main() -> None:
        async with serving(partial(always, data=OK)) as server, a_client() as client:
            for _ in range(5):
                assert await read(await client.fetch(ask(server.url))) == b"hello"
            assert server.connections == 1

    run(main())


def test_a_connection_whose_answer_was_not_read_is_closed() -> None:
    async def main() -> None:
        async with serving(partial(always, data=LONG)) as server, a_client(connections_max=1) as client:
            response = await client.fetch(ask(server.url))
            assert isinstance(response.body, AsyncIterator)
            await anext(response.body)
            await response.body.aclose()  # type: ignore[attr-defined]
            dropped = await client.fetch(ask(server.url))
            assert dropped.status == 200
            del dropped  # never read, never closed: its connection must not block the only place
            gc.collect()
            await read(await client.fetch(ask(server.url)))
            assert server.connections == 3

    run(main())


def test_an_answer_that_says_close_is_not_followed_by_another() -> None:
    async def main() -> None:
        data = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        async with serving(partial(always, data=data)) as server, a_client() as client:
            for _ in range(2):
                await client.fetch(ask(server.url))
            assert server.connections == 2

    run(main())


def test_more_than_was_asked_for_ends_the_connection() -> None:
    """A second answer to one request could be taken for the answer to the next one."""

    async def main() -> None:
        async with serving(partial(always, data=OK + b"HTTP/1.1 200 OK\r\n\r\n")) as server, a_client() as client:
            for _ in range(2):
                assert await read(await client.fetch(ask(server.url))) == b"hello"
            assert server.connections == 2

    run(main())


def test_a_connection_rests_only_for_a_while() -> None:
    gone = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.answer(OK)
        assert await visit.reader.read() == b""
        gone.set()

    async def main() -> None:
        async with serving(script) as server, a_client(idle_ms=10) as client:
            await client.fetch(ask(server.url))
            await gone.wait()

    run(main())


async def dies_on_the_second(visit: Visit) -> None:
    """The first connection answers once; then it reads a request and closes without a word."""
    await visit.request()
    await visit.answer(OK)
    if visit.number == 1:
        await visit.request()
        return
    await always(visit, OK)


@pytest.mark.parametrize(("method", "key"), [("GET", {}), ("PUT", {}), ("POST", {"idempotency_key": "k1"})])
def test_a_rested_connection_that_was_closed_costs_one_repeat(method: str, key: dict[str, str]) -> None:
    async def main() -> None:
        async with serving(dies_on_the_second) as server, a_client() as client:
            await client.fetch(ask(server.url))
            body = None if method == "GET" else b"x"
            assert await read(await client.fetch(ask(server.url, method, body=body, **key))) == b"hello"
            assert server.connections == 2
            assert len(server.asked) == 3

    run(main())


async def one_piece() -> AsyncIterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(("method", "streamed"), [("POST", False), ("PUT", True)])
def test_a_request_that_may_have_had_an_effect_is_never_repeated(method: str, streamed: bool) -> None:
    async def main() -> None:
        async with serving(dies_on_the_second) as server, a_client() as client:
            await client.fetch(ask(server.url))
            with pytest.raises(OSError, match="before it answered"):
                await client.fetch(ask(server.url, method, body=one_piece() if streamed else b"x"))
            assert len(server.asked) == 2

    run(main())


def test_a_fresh_connection_that_is_closed_is_not_repeated() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()

    async def main() -> None:
        async with serving(script) as server, a_client() as client:
            with pytest.raises(OSError, match="before it answered"):
                await client.fetch(ask(server.url))
            assert server.connections == 1

    run(main())


def test_past_the_limit_requests_wait_for_a_connection() -> None:
    most = now = 0

    async def script(visit: Visit) -> None:
        nonlocal most, now
        while True:
            await visit.request()
            now += 1
            most = max(most, now)
            for _ in range(20):
                await asyncio.sleep(0)
            now -= 1
            await visit.answer(OK)

    async def main() -> None:
        async with serving(script) as server, a_client(connections_max=3) as client:
            answers = await asyncio.gather(*(client.fetch(ask(server.url)) for _ in range(30)))
            assert [answer.status for answer in answers] == [200] * 30
            assert server.connections <= 3
            assert most <= 3

    run(main())


def test_a_cancelled_request_gives_its_place_back() -> None:
    never = asyncio.Event()
    first = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        first.set()
        if visit.number == 1:
            await never.wait()
        await always_after(visit)

    async def always_after(visit: Visit) -> None:
        await visit.answer(OK)

    async def main() -> None:
        async with serving(script) as server, a_client(connections_max=1) as client:
            stuck = asyncio.create_task(client.fetch(ask(server.url)))
            await first.wait()
            waiting = asyncio.create_task(client.fetch(ask(server.url)))
            given_up = asyncio.create_task(client.fetch(ask(server.url)))
            await asyncio.sleep(0)
            given_up.cancel()
            stuck.cancel()
            assert (await waiting).status == 200
            for task in (stuck, given_up):
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(main())


# -- redirects --------------------------------------------------------------------------------------------------------


def redirecting(*answers: tuple[int, str]) -> Script:
    """A server that answers its first requests with these redirects, and then with OK."""
    left = list(answers)

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            if left:
                status, location = left.pop(0)
                head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 3\r\n\r\nold"
                await visit.answer(head.encode())
            else:
                await visit.answer(OK)

    return script


def lines(server: Server) -> list[str]:
    return [asked.line.removesuffix(" HTTP/1.1") for asked in server.asked]


def test_redirects_are_followed_and_the_last_url_is_told() -> None:
    async def main() -> None:
        script = redirecting((302, "/two?x=1"), (307, "three"), (301, "./fö?ü"))
        async with serving(script) as server, a_client() as client:
            response = await client.fetch(ask(f"{server.url}/one/a"))
            assert await read(response) == b"hello"
            assert response.redirected
            assert response.url == f"{server.url}/f%C3%B6?%C3%BC"
            assert lines(server) == ["GET /one/a", "GET /two?x=1", "GET /three", "GET /f%C3%B6?%C3%BC"]

    run(main())


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_the_method_after_a_redirect_is_the_fetch_standards(status: int, method: str, then: str) -> None:
    async def main() -> None:
        async with serving(redirecting((status, "/b"))) as server, a_client() as client:
            await client.fetch(ask(f"{server.url}/a", method, body=b"data", content_type="text/plain"))
            second = server.asked[1]
            assert second.line == f"{then} /b HTTP/1.1"
            kept = then == method
            assert second.body == (b"data" if kept else b"")
            assert ("content-type" in second.headers) is kept

    run(main())


def test_manual_gives_the_redirect_itself_and_error_refuses_it() -> None:
    async def main() -> None:
        async with serving(redirecting((302, "/b"), (302, "/c"))) as server, a_client() as client:
            response = await client.fetch(ask(server.url, redirect="manual"))
            assert (response.status, response.redirected) == (302, False)
            assert (b"location", b"/b") in response.headers
            with pytest.raises(OSError, match="redirect='error'"):
                await client.fetch(ask(server.url, redirect="error"))

    run(main())


def test_a_stream_cannot_be_sent_a_second_time() -> None:
    async def main() -> None:
        async with serving(redirecting((307, "/b"))) as server, a_client() as client:
            with pytest.raises(OSError, match="cannot be sent again"):
                await client.fetch(ask(server.url, "POST", body=one_piece()))

    run(main())


def test_secrets_do_not_follow_to_another_origin() -> None:
    async def main() -> None:
        async with serving(partial(always, data=OK)) as other:
            script = redirecting((302, "/same"), (302, f"{other.url}/else"))
            async with serving(script) as server, a_client() as client:
                await client.fetch(ask(server.url, authorization="Bearer x", cookie="a=b", x_other="1"))
                assert all(asked.headers["authorization"] == "Bearer x" for asked in server.asked)
                (asked,) = other.asked
                assert not {"authorization", "cookie"} & asked.headers.keys()
                assert asked.headers["x-other"] == "1"

    run(main())


def test_redirects_without_end_are_given_up() -> None:
    async def main() -> None:
        script = redirecting(*[(302, "/again")] * 100)
        async with serving(script) as server, a_client() as client:
            with pytest.raises(OSError, match=f"more than {FETCH_REDIRECTS_MAX} redirects"):
                await client.fetch(ask(server.url))
            assert len(server.asked) == FETCH_REDIRECTS_MAX + 1

    run(main())


def test_a_redirect_that_leads_nowhere_is_an_os_error() -> None:
    async def main() -> None:
        async with serving(redirecting((302, "ftp://a/b"))) as server, a_client() as client:
            with pytest.raises(OSError, match="only http and https"):
                await client.fetch(ask(server.url))

    run(main())
