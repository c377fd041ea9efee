"""What is let in and what is not, over real sockets, each request fed whole and byte by byte."""

from __future__ import annotations

from contextlib import suppress

import pytest
from tests.integration.ingress.corpus import BAD, GOOD, Case, head
from tests.integration.ingress.serving import echo, run, serving

from stellwerk.node.ingress.exchange import Exchange

BYTEWISE_MAX = 5_000  # larger ones take too long one byte at a time; they are fed in pieces anyway
NEXT = head(start=b"GET /next HTTP/1.1")
FED = [(case, False) for case in BAD] + [(case, True) for case in BAD if len(case.data) <= BYTEWISE_MAX]


def verdict_of(data: bytes, *, bytewise: bool = False, goes_on: bool = False) -> tuple[int, bytes, list[str]]:
    """The first status, everything after the first answer, and the targets that got as far as the handler.

    When the connection ``goes_on``, ``/next`` is asked for, so that its answer shows that the framing was kept.
    """
    seen: list[str] = []

    def handle(exchange: Exchange) -> None:
        seen.append(exchange.target)
        echo(exchange)

    async def main() -> tuple[int, bytes]:
        async with serving(handle, linger_ms=200, sweep_ms=50) as served:
            client = await served.connect()
            with suppress(ConnectionError):  # refused before the end, which is fine
                await (client.send_bytewise(data) if bytewise else client.send(data))
            answer = await client.answer(to_head=data.startswith(b"HEAD"))
            if goes_on:
                await client.send(NEXT)
                assert (await client.answer()).status == 200
                client.writer.write_eof()
            return answer.status, await client.closed()

    status, rest = run(main())
    return status, rest, seen


@pytest.mark.parametrize("case", GOOD, ids=str)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_a_good_request_is_answered_once_and_the_next_one_as_well(case: Case, bytewise: bool) -> None:
    goes_on = b"HTTP/1.0" not in case.data
    status, rest, seen = verdict_of(case.data, bytewise=bytewise, goes_on=goes_on)
    assert status == 200
    assert rest == b""
    assert seen[1:] == (["/next"] if goes_on else [])


@pytest.mark.parametrize(
    ("case", "bytewise"), FED, ids=lambda value: {True: "bytewise", False: "whole"}.get(value, value)
)
def test_a_bad_request_is_refused_and_nothing_behind_it_is_answered(case: Case, bytewise: bool) -> None:
    status, rest, seen = verdict_of(case.data + head(start=b"GET /behind HTTP/1.1"), bytewise=bytewise)
    assert status == case.status
    assert rest == b""
    # The handler may have begun with a body that breaks off later; it must not hear of anything else.
    assert len(seen) <= (case.group == "chunks")
    assert "/behind" not in seen and "/smuggled" not in seen


@pytest.mark.parametrize("case", [case for case in BAD if not case.data.startswith(b"\r\n")], ids=str)
def test_a_bad_request_behind_a_good_one_is_refused_after_the_answer_to_the_good_one(case: Case) -> None:
    status, rest, seen = verdict_of(head(start=b"GET /first HTTP/1.1") + case.data)
    assert status == 200
    assert rest.startswith(b"HTTP/1.1 %d " % case.status)
    assert rest.count(b"server: stellwerk") == 1
    assert seen[0] == "/first" and len(seen) <= 1 + (case.group == "chunks")


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(BAD) >= 114
    assert len(GOOD) >= 15
    assert len({str(case) for case in [*GOOD, *BAD]}) == len(GOOD) + len(BAD)
