"""Which isolate serves a version: reuse, growth, idleness, limits, withdrawal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.isolate.bench import HandClock, a_pool, a_version, eventually, run

from stellwerk.core.errors import CapacityError, IsolateStartError
from stellwerk.core.isolate.machine import Status
from stellwerk.core.limits import INVOCATIONS_PER_ISOLATE_MAX
from stellwerk.node.isolate.process import Isolate


def fill(isolate: Isolate) -> None:
    while isolate.load < INVOCATIONS_PER_ISOLATE_MAX:
        isolate.begin()


def test_an_isolate_is_reused_and_the_least_loaded_one_goes_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, scale_load=2) as (pool, _ears):
            version = a_version(isolates_max=2)
            assert pool.ready(version) is None
            first = await pool.acquire(version)
            assert await pool.acquire(version) is first
            first.begin()
            first.begin()  # the mark: a second one is started
            await eventually(lambda: pool.ready(version) is not first)
            second = pool.ready(version)
            assert second is not None
            second.begin()
            assert pool.ready(version) is second
            second.begin()
            second.begin()
            assert pool.ready(version) is first
            first.end()
            first.end()
            assert pool.ready(version) is first

    run(main)


def test_no_more_isolates_than_the_worker_allows_are_started(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, scale_load=1) as (pool, _ears):
            version = a_version(isolates_max=2)
            for _ in range(6):
                isolate = await pool.acquire(version)
                isolate.begin()
                await eventually(lambda: all(row["status"] == "ready" for row in pool.snapshot()))
            assert len(pool.snapshot()) == 2

    run(main)


def test_versions_have_isolates_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            old, new = await pool.acquire(a_version("old")), await pool.acquire(a_version("new"))
            assert old.pid != new.pid
            assert pool.ready(a_version("old")) is old

    run(main)


def test_past_its_fill_an_invocation_waits_until_another_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            version = a_version(isolates_max=1)
            isolate = await pool.acquire(version)
            fill(isolate)
            assert pool.ready(version) is None
            waiting = asyncio.create_task(pool.acquire(version))
            given_up = asyncio.create_task(pool.acquire(version))
            await asyncio.sleep(0)
            assert not waiting.done()
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            isolate.end()
            assert await waiting is isolate

    run(main)


def test_waiting_for_room_ends_with_an_error_that_names_the_setting(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            fill(await pool.acquire(a_version(isolates_max=1)))
        async with a_pool(tmp_path, start_timeout_ms=200) as (pool, _ears):
            version = a_version(isolates_max=1)
            await pool.started.wait()
            fill(await pool.acquire(version))
            with pytest.raises(CapacityError, match="isolates_max"):
                await pool.acquire(version)

    run(main)


def test_a_crash_while_others_wait_brings_them_a_new_isolate(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            version = a_version(isolates_max=1)
            isolate = await pool.acquire(version)
            fill(isolate)
            waiting = asyncio.create_task(pool.acquire(version))
            await asyncio.sleep(0)
            ears.tell(isolate, "exit_3")
            assert (await waiting).id != isolate.id

    run(main)


def test_an_idle_isolate_ends_after_its_time_and_not_while_it_works(tmp_path: Path) -> None:
    async def main() -> None:
        clock = HandClock()
        async with a_pool(tmp_path, clock=clock) as (pool, ears):
            version = a_version(idle_s=30)
            isolate = await pool.acquire(version)
            pool.sweeper.sweep()
            clock.advance(29_999)
            pool.sweeper.sweep()
            assert pool.ready(version) is isolate
            isolate.begin()
            clock.advance(60_000)
            pool.sweeper.sweep()
            assert pool.ready(version) is isolate
            isolate.end()
            pool.sweeper.sweep()  # sees that it worked, and begins to count
            clock.advance(29_999)
            pool.sweeper.sweep()
            assert pool.ready(version) is isolate
            clock.advance(1)
            pool.sweeper.sweep()
            assert pool.ready(version) is None
            assert await ears.loss(isolate) == ("drained", False)
            assert pool.snapshot() == []

    run(main)


def test_the_sweeper_runs_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, sweep_ms=5) as (pool, ears):
            isolate = await pool.acquire(a_version(idle_s=0))
            assert await ears.loss(isolate) == ("drained", False)

    run(main)


def test_past_the_nodes_limit_an_idle_isolate_makes_room_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, isolates_max=2) as (pool, ears):
            busy, idle = await pool.acquire(a_version("a")), await pool.acquire(a_version("b"))
            busy.begin()
            third = await pool.acquire(a_version("c"))
            third.begin()
            assert await ears.loss(idle) == ("drained", False)
            with pytest.raises(CapacityError, match="2 isolates, its limit"):
                await pool.acquire(a_version("d"))
            with pytest.raises(CapacityError):
                await pool.acquire(a_version("d"), solo=True)
            third.end()
            assert (await pool.acquire(a_version("d"))).status is Status.READY

    run(main)


def test_a_withdrawn_version_finishes_what_it_has_and_takes_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, drain_ms=300) as (pool, ears):
            polite, deaf = a_version("polite"), a_version("deaf", variables={"DRAIN": "never"})
            first, second = await pool.acquire(polite), await pool.acquire(deaf)
            pool.drain_version("polite")
            pool.drain_version("deaf")
            pool.drain_version("unknown")
            assert (pool.ready(polite), pool.ready(deaf)) == (None, None)
            assert await ears.ask(second, "chance"), "a draining isolate still answers"
            assert await ears.loss(first) == ("drained", False)
            assert await ears.loss(second) == ("killed, because it had not finished within 300 ms", False)

    run(main)


def test_who_waits_for_a_withdrawn_version_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            waiting = asyncio.create_task(pool.acquire(a_version("v", variables={"BOOT": "hang"})))
            await eventually(pool.snapshot)
            pool.drain_version("v")
            with pytest.raises(IsolateStartError, match="withdrawn"):
                await waiting
            await eventually(lambda: not pool.snapshot())

    run(main)


def test_a_solo_isolate_is_nobody_elses(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            version = a_version()
            solo = await pool.acquire(version, solo=True)
            assert solo.solo
            assert pool.ready(version) is None
            shared = await pool.acquire(version)
            assert shared is not solo
            pool.release_solo(solo)
            assert await ears.loss(solo) == ("drained", False)
            assert pool.ready(version) is shared

    run(main)


def test_the_snapshot_tells_what_there_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            isolate = await pool.acquire(a_version())
            isolate.begin()
            (row,) = pool.snapshot()
            assert row["pid"] == isolate.pid
            assert (row["worker"], row["version_id"], row["status"]) == ("hello", "v1", "ready")
            assert (row["load"], row["invocations"], row["solo"]) == (1, 1, False)

    run(main)


def test_a_pool_that_stops_refuses_and_may_start_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            await pool.acquire(a_version())
            await pool.stop()
            with pytest.raises(CapacityError, match="stopping"):
                await pool.acquire(a_version())
            assert pool.snapshot() == []
            await pool.start()
            assert (await pool.acquire(a_version())).status is Status.READY

    run(main)


def test_stopping_while_isolates_are_being_started_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            starts = [asyncio.create_task(pool.acquire(a_version(str(n)))) for n in range(5)]
            await asyncio.sleep(0)
            await pool.stop()
            results = await asyncio.gather(*starts, return_exceptions=True)
            assert all(isinstance(result, CapacityError | IsolateStartError) for result in results)
            assert pool.snapshot() == []

    run(main)


def test_an_isolate_whose_code_blocks_it_for_too_long_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        clock = HandClock()
        async with a_pool(tmp_path, clock=clock, blocked_ms_max=1_000) as (pool, ears):
            isolate = await pool.acquire(a_version())
            isolate.begin()
            await ears.ask(isolate, "spin_quietly")
            pool.sweeper.sweep()  # asks for a sign of life
            clock.advance(1_000)
            pool.sweeper.sweep()  # overdue, but a node that was paused would find the answer in its socket
            pool.sweeper.sweep()
            cause, crashed = await ears.loss(isolate)
            assert "blocked it for more than 1 s" in cause
            assert not crashed

    run(main)


def test_an_isolate_that_answers_is_left_alone_however_long_it_works(tmp_path: Path) -> None:
    async def main() -> None:
        clock = HandClock()
        async with a_pool(tmp_path, clock=clock, blocked_ms_max=1_000) as (pool, ears):
            isolate = await pool.acquire(a_version())
            isolate.begin()
            for _ in range(3):
                pool.sweeper.sweep()
                clock.advance(900)
                await ears.ask(isolate, "alive")  # the sign of life came before this answer
            assert pool.ready(isolate.version) is isolate

    run(main)
