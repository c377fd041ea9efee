"""Garbage over real sockets: answered with 4xx or 5xx of ours or with nothing, and nothing fails inside."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.ingress.corpus import BAD, GOOD
from tests.integration.ingress.serving import echo, run, serving

SEEDS = [case.data for case in [*GOOD, *BAD] if len(case.data) < 1_000]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A few requests of the corpus in a row, with some bytes replaced, inserted or cut out."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(min_value=0, max_value=4))):
        place = draw(st.integers(min_value=0, max_value=len(data)))
        data[place : place + draw(st.integers(min_value=0, max_value=3))] = draw(st.binary(max_size=3))
    return bytes(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), damaged()), cut=st.integers(min_value=0, max_value=1_000))
def test_garbage_is_answered_or_the_connection_ends_and_nothing_fails(
    data: bytes, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Any] = []

    async def main() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        async with serving(echo, linger_ms=50, sweep_ms=10) as served:
            client = await served.connect()
            with suppress(OSError, RuntimeError):  # refused and reset before the end, which is fine
                await client.send(data[:cut])
                await asyncio.sleep(0)
                await client.send(data[cut:])
                client.writer.write_eof()
            return await client.closed()

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        text = run(main())
    assert failures == []
    assert [record for record in caplog.records if record.exc_info] == []
    statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", text)}
    assert statuses <= {100, 200, 400, 408, 413, 414, 417, 431, 501, 505}
