"""Work in portions: how much a turn takes, and that order and errors stay where they were."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from stellwerk.node.portions import Portions


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_turn_takes_its_portion_and_the_next_ones_the_rest_in_order() -> None:
    done: list[int] = []

    async def main() -> None:
        portions = Portions(done.append, per_turn=3, hurried=lambda: True)
        portions.extend(range(8))
        lengths = [len(done)]
        while len(portions):
            await asyncio.sleep(0)
            lengths.append(len(done))
        assert lengths == [3, 6, 8]
        await asyncio.sleep(0)
        portions.extend(range(8, 10))
        assert done == list(range(10))

    asyncio.run(main())


def test_what_comes_later_in_a_turn_does_not_overtake_what_waits() -> None:
    done: list[str] = []

    async def main() -> None:
        portions = Portions(done.append, per_turn=1, hurried=lambda: True)
        portions.extend(["a", "b", "c"])
        await asyncio.sleep(0)
        portions.add("d")
        await turns(10)
        assert done == ["a", "b", "c", "d"]

    asyncio.run(main())


def test_the_loop_looks_at_its_sockets_between_two_portions() -> None:
    done: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = socket.socketpair()
        heard: asyncio.Future[int] = loop.create_future()

        def read() -> None:
            loop.remove_reader(reading)
            heard.set_result(len(done))

        with reading, writing:
            loop.add_reader(reading, read)
            portions = Portions(done.append, per_turn=1, hurried=lambda: True)
            writing.send(b"x")
            portions.extend("abcdefgh")
            assert await heard < 8

    asyncio.run(main())


def test_flushed_work_is_done_at_once_and_once() -> None:
    done: list[int] = []

    async def main() -> None:
        portions = Portions(done.append, per_turn=1, hurried=lambda: True)
        portions.extend(range(4))
        portions.flush()
        assert done == [0, 1, 2, 3]
        await turns(3)
        assert done == [0, 1, 2, 3]

    asyncio.run(main())


def test_one_that_fails_keeps_no_other_from_its_turn() -> None:
    done: list[int] = []
    failures: list[dict[str, Any]] = []

    def act(item: int) -> None:
        if item == 1:
            raise LookupError("no")
        done.append(item)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        portions = Portions(act, per_turn=1, hurried=lambda: True)
        portions.extend(range(3))
        await turns(10)
        assert (done, len(failures)) == ([0, 2], 1)

    asyncio.run(main())


def test_without_a_hurry_all_is_done_at_once() -> None:
    done: list[int] = []

    async def main() -> None:
        Portions(done.append, per_turn=1, hurried=lambda: False).extend(range(5))
        assert done == [0, 1, 2, 3, 4]

    asyncio.run(main())
