"""However an isolate ends, the pool says so once, with the cause, when nothing of it can act any more."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.integration.isolate.bench import Ears, a_pool, a_version, eventually, is_gone, run

from stellwerk.core.errors import IsolateStartError
from stellwerk.core.isolate.machine import Status
from stellwerk.node.clock import SystemClock
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.settings import PoolSettings, ZygoteSettings
from stellwerk.node.isolate.zygote import ZygoteLostError


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ("exit_3", "exit code 3"),
        ("system_exit", "exit code 4"),
        ("segfault", "killed by signal 11"),
    ],
)
def test_a_crash_is_reported_once_with_its_cause(tmp_path: Path, behaviour: str, cause: str) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            ears.tell(isolate, behaviour)
            assert await ears.loss(isolate) == (cause, True)
            assert isolate.status is Status.CRASHED
            assert is_gone(isolate.pid)
            assert pool.ready(a_version()) is None
            again = await pool.acquire(a_version())
            assert again.id != isolate.id
        assert [number for number, _, _ in ears.lost] == [isolate.id, again.id]

    run(main)


def test_sigkill_from_outside_is_reported_as_a_crash(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            os.kill(isolate.pid, signal.SIGKILL)
            assert await ears.loss(isolate) == ("killed by signal 9", True)

    run(main)


def test_the_traceback_of_a_crash_in_c_reaches_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            ears.tell(isolate, "segfault")
            await ears.loss(isolate)
            assert "Fatal Python error: Segmentation fault" in ears.texts("output")
            assert "in segfault" in ears.texts("output")

    run(main)


def test_what_c_code_writes_reaches_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            ears.tell(isolate, "raw")
            await ears.until(lambda: "written by C" in ears.texts("output"))

    run(main)


def test_log_messages_and_dropped_counts_reach_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            await ears.ask(isolate, "log")
            assert (ears.logs[0][1].at, ears.logs[0][1].text) == (7, "hello")
            assert "2 log records were dropped" in ears.texts("stellwerk")
            assert pool.counters.log_dropped == 2

    run(main)


def test_a_kill_ends_even_a_busy_isolate_and_is_no_crash(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            await ears.ask(isolate, "spin_quietly")
            pool.kill(isolate, "its time was up")
            assert pool.ready(a_version()) is None
            pool.kill(isolate, "a second time")
            assert await ears.loss(isolate) == ("its time was up", False)
            pool.kill(isolate, "after its end")

    run(main)


def test_garbage_on_the_channel_ends_the_isolate(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            ears.tell(isolate, "garbage")
            cause, crashed = await ears.loss(isolate)
            assert "broke the protocol" in cause
            assert crashed

    run(main)


def test_what_an_isolate_started_goes_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            child = await ears.ask(isolate, "offspring")
            assert not is_gone(child)
            pool.kill(isolate, "enough")
            await ears.loss(isolate)
            await eventually(lambda: is_gone(child))

    run(main)


def test_the_end_of_the_zygote_ends_all_isolates_and_a_new_one_makes_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolates = [await pool.acquire(a_version(name)) for name in ("a", "b", "c")]
            await ears.ask(isolates[0], "spin_quietly")
            first = pool.zygote_pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            for isolate in isolates:
                cause, crashed = await ears.loss(isolate)
                assert cause.startswith("lost")
                assert not crashed, "none of them is to blame"
                assert is_gone(isolate.pid)
            again = await pool.acquire(a_version("a"))
            assert again.status is Status.READY
            assert pool.zygote_pid != first

    run(main)


def test_a_start_that_loses_its_zygote_is_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            await pool.started.wait()
            assert pool.zygote_pid is not None
            os.kill(pool.zygote_pid, signal.SIGSTOP)  # so that the order is on its way when it dies
            waiting = asyncio.create_task(pool.acquire(a_version()))
            await eventually(lambda: len(pool.snapshot()) == 1)
            os.kill(pool.zygote_pid, signal.SIGKILL)
            assert (await waiting).status is Status.READY

    run(main)


def test_stop_lets_isolates_finish_and_kills_those_that_do_not(tmp_path: Path) -> None:
    pids: list[int] = []

    async def main() -> None:
        async with a_pool(tmp_path, stop_grace_ms=200) as (pool, ears):
            polite = await pool.acquire(a_version("polite"))
            deaf = await pool.acquire(a_version("deaf", variables={"DRAIN": "never"}))
            zygote = pool.zygote_pid
            assert zygote is not None
            pids.extend([polite.pid, deaf.pid, zygote])
            await pool.stop()
            await pool.stop()
        assert {number: (cause, crashed) for number, cause, crashed in ears.lost} == {
            polite.id: ("drained", False),
            deaf.id: ("killed, because it had not finished within 200 ms", False),
        }

    run(main)
    assert all(is_gone(pid) for pid in pids)


NODE = """
import asyncio, json, sys
from pathlib import Path
import uvloop
from tests.integration.isolate.bench import a_pool, a_version

async def main():
    async with a_pool(Path(sys.argv[1])) as (pool, ears):
        isolates = [await pool.acquire(a_version(name)) for name in ("idle", "busy")]
        await ears.ask(isolates[1], "spin_quietly")
        print(json.dumps([pool.zygote_pid, *(isolate.pid for isolate in isolates)]), flush=True)
        await asyncio.Event().wait()

uvloop.run(main())
"""


def test_no_isolate_survives_a_node_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]

    async def main() -> None:
        node = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NODE, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=root
        )
        assert node.stdout is not None
        pids = [int(pid) for pid in (await node.stdout.readline()).strip(b"[]\n").split(b",")]
        assert len(pids) == 3
        assert not any(is_gone(pid) for pid in pids)
        node.kill()
        await node.wait()
        await eventually(lambda: all(is_gone(pid) for pid in pids))

    run(main)


def test_losing_an_isolate_leaves_its_load_to_those_who_began_it(tmp_path: Path) -> None:
    """begin and end are the callers': what was under way is ended by them when they hear of the loss."""

    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            isolate.begin()
            ears.tell(isolate, "exit_3")
            await ears.loss(isolate)
            assert isolate.load == 1
            isolate.end()
            assert isolate.load == 0

    run(main)


def test_hearing_nothing_more_after_the_loss(tmp_path: Path) -> None:
    """All that an isolate said comes before the word of its loss."""

    async def main() -> None:
        heard: list[str] = []

        class Order(Ears):
            def on_messages(self, isolate: Isolate, batch: list[object]) -> None:
                heard.extend("said" for _ in batch)

        ears = Order()
        async with a_pool(tmp_path, ears=ears) as (pool, _):
            isolate = await pool.acquire(a_version())
            for _ in range(200):
                ears.tell(isolate, "chance")
            isolate.drain(within_ms=5_000)
            assert await ears.loss(isolate) == ("drained", False)
            assert len(heard) == 200

    run(main)


def test_no_descriptor_is_left_in_the_node(tmp_path: Path) -> None:
    async def main() -> None:
        def open_ones() -> int:
            return sum(1 for _ in Path("/proc/self/fd").iterdir())

        async with a_pool(tmp_path) as (pool, ears):
            await pool.acquire(a_version("first"))  # with the first stream, libuv opens a spare descriptor for good
            before = open_ones()
            for end in ("drain", "kill", "exit_3", "fail"):
                variables = {"BOOT": "fail"} if end == "fail" else {}
                version = a_version(end, variables=variables)
                if end == "fail":
                    with pytest.raises(IsolateStartError):
                        await pool.acquire(version)
                    continue
                isolate = await pool.acquire(version)
                match end:
                    case "drain":
                        pool.drain_version(end)
                    case "kill":
                        pool.kill(isolate, "enough")
                    case _:
                        ears.tell(isolate, end)
            await eventually(lambda: len(pool.snapshot()) == 1)
            await eventually(lambda: open_ones() == before)

    run(main)


def test_the_node_can_ask_a_busy_isolate_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            await ears.ask(isolate, "spin_quietly")

            def found() -> bool:
                os.kill(isolate.pid, signal.SIGUSR1)  # again: the first may come before it is busy
                return "in spin\n" in ears.texts("output")

            await eventually(found)
            pool.kill(isolate, "too long")

    run(main)


def test_a_zygote_that_never_comes_up_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    async def main() -> None:
        broken = ZygoteSettings(preload=("no_such_module",))
        ears = Ears()
        pool = Pool(
            state=tmp_path,
            clock=SystemClock(),
            on_messages=ears.on_messages,
            on_lost=ears.on_lost,
            on_log=ears.on_log,
            settings=PoolSettings(zygote=broken),
        )
        await pool.start()
        try:
            with pytest.raises(ZygoteLostError, match="does not come up"):
                await pool.acquire(a_version())
        finally:
            await pool.stop()

    run(main)
