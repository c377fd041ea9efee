"""``ReadableStream`` and its relatives: one source, one reader, nothing produced before it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import js
import pytest
from pyodide.ffi import create_proxy, to_js
from tests.unit.sdk.a_host import pieces, run
from workers import Response


async def all_of(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def test_a_reader_says_value_and_done() -> None:
    async def main() -> None:
        reader = js.ReadableStream.new(pieces(b"a")).getReader()
        first, second = await reader.read(), await reader.read()
        assert (first.value, first.done, second.value, second.done) == (b"a", False, None, True)

    run(main())


def test_a_source_may_have_javascripts_shape() -> None:
    async def main() -> None:
        def start(controller: Any) -> None:
            controller.enqueue(b"s")

        asked = 0

        async def pull(controller: Any) -> None:
            nonlocal asked
            asked += 1
            controller.enqueue(asked)
            if asked == 2:
                controller.close()

        stream = js.ReadableStream.new(to_js({"start": create_proxy(start)}), pull=pull)
        assert asked == 0
        assert await all_of(stream) == [b"s", 1, 2]

    run(main())


def test_a_source_may_fail_and_may_be_fed_from_outside() -> None:
    async def main() -> None:
        kept: list[Any] = []
        stream = js.ReadableStream.new(start=kept.append)
        reading = asyncio.create_task(all_of(stream))
        await asyncio.sleep(0)
        kept[0].enqueue("late")
        kept[0].error(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await reading

    run(main())


def test_one_reader_at_a_time() -> None:
    async def main() -> None:
        stream = js.ReadableStream.new(pieces(1, 2))
        reader = stream.getReader()
        with pytest.raises(TypeError, match="locked"):
            stream.getReader()
        with pytest.raises(TypeError, match="locked"):
            aiter(stream)
        assert (await reader.read()).value == 1
        reader.releaseLock()
        assert await all_of(stream) == [2]

    run(main())


def test_leaving_a_loop_early_cancels_the_source() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                ended.set()

        loop = aiter(js.ReadableStream.new(source()))
        assert await anext(loop) == 1
        await loop.aclose()
        assert ended.is_set()
        reasons: list[Any] = []
        await js.ReadableStream.new(cancel=reasons.append).cancel("enough")
        assert reasons == ["enough"]

    run(main())


def test_tee_gives_both_branches_everything_and_reads_once() -> None:
    async def main() -> None:
        stream = js.ReadableStream.new(pieces(1, 2, 3))
        left, right = stream.tee()
        assert stream.locked
        assert list(await asyncio.gather(all_of(left), all_of(right))) == [[1, 2, 3], [1, 2, 3]]

    run(main())


def test_a_failure_reaches_both_branches_after_what_came_before_it() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    async def main() -> None:
        for branch in js.ReadableStream.new(source()).tee():
            loop = aiter(branch)
            assert await anext(loop) == 1
            with pytest.raises(ValueError, match="broken"):
                await anext(loop)

    run(main())


def test_from_takes_iterables_of_both_kinds() -> None:
    async def main() -> None:
        assert await all_of(js.ReadableStream.from_([1, 2])) == [1, 2]
        assert await all_of(js.ReadableStream.from_(pieces(3))) == [3]

    run(main())


def test_a_transform_stream_passes_on_with_back_pressure() -> None:
    async def main() -> None:
        pipe = js.TransformStream.new()
        writer = pipe.writable.getWriter()
        done: list[int] = []

        async def write() -> None:
            for number in range(3):
                await writer.write(bytes([number]))
                done.append(number)
            await writer.close()

        task = asyncio.create_task(write())
        for _ in range(10):
            await asyncio.sleep(0)
        assert done == []  # nobody reads yet
        assert await Response(pipe.readable).bytes() == b"\0\1\2"
        await task
        assert done == [0, 1, 2]

    run(main())


def test_a_transformer_may_change_what_passes() -> None:
    async def main() -> None:
        upper = js.TransformStream.new(
            transform=lambda chunk, controller: controller.enqueue(chunk.upper()),
            flush=lambda controller: controller.enqueue(b"!"),
        )
        source = js.ReadableStream.new(pieces(b"a", b"b"))
        task = asyncio.create_task(source.pipeTo(upper.writable))
        assert await all_of(upper.readable) == [b"A", b"B", b"!"]
        await task

    run(main())


def test_a_stream_that_was_read_is_no_body_any_more() -> None:
    async def main() -> None:
        stream = js.ReadableStream.new(pieces(b"a"))
        await all_of(stream)
        with pytest.raises(TypeError, match="disturbed"):
            Response(stream)
        response = Response(js.ReadableStream.new(pieces(b"a")))
        assert response.body is not None and response.body is response.body
        await all_of(response.body)
        assert response.body_used
        with pytest.raises(OSError, match="Body already used"):
            await response.text()

    run(main())
