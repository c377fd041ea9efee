"""Isolates come up: quickly, clean, and holding the alive file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import statistics
import time
from pathlib import Path

import pytest
from tests.integration.isolate.bench import HandClock, a_pool, a_version, eventually, run

from stellwerk.core.errors import IsolateStartError
from stellwerk.core.isolate.machine import Status
from stellwerk.node.isolate.process import BootFailedError


def test_an_isolate_is_forked_and_gets_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            isolate = await pool.acquire(a_version())
            assert isolate.status is Status.READY
            assert isolate.exports[0].name == "Default"
            assert pool.ready(a_version()) is isolate
            took_ms = []
            for _ in range(20):
                began = time.perf_counter()
                solo = await pool.acquire(a_version(), solo=True)
                took_ms.append((time.perf_counter() - began) * 1000)
                pool.release_solo(solo)
                await ears.loss(solo)
            with capsys.disabled():
                print(f"\nfork to ready: p50 {statistics.median(took_ms):.2f} ms, most {max(took_ms):.2f} ms")

    run(main)


def test_an_isolate_finds_nothing_of_the_node_in_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret of the node")
    secret = tmp_path / "node.secret"
    secret.write_text("x")

    async def main() -> None:
        with secret.open() as held:
            os.set_inheritable(held.fileno(), True)
            version = a_version(
                variables={"GREETING": "hi", "LIST": [1]}, secrets={"KEY": "k"}, worker="a-very-long-worker"
            )
            async with a_pool(tmp_path) as (pool, ears):
                for isolate in [await pool.acquire(version, solo=True) for _ in range(3)]:
                    found = await ears.ask(isolate, "surroundings")
                    assert set(found["environ"]) <= {
                        *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME"),
                        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
                    }
                    fds = found["fds"]
                    assert fds.pop("0") == os.devnull
                    assert fds["1"] == fds.pop("2")
                    assert fds.pop("1").startswith("pipe:")
                    named = sorted(link.partition(":")[0] for link in fds.values())
                    # the channel, the alive file, and what uvloop opens for its loop
                    assert named.count("socket") <= 3
                    kinds = {"socket", str(tmp_path / "alive"), "anon_inode", "pipe", os.devnull}
                    assert set(named) <= kinds, fds
                    assert not any("secret" in link for link in fds.values())
                    assert found["no_new_privs"]
                    assert found["session"]
                    assert found["core"] == [0, 0]
                    assert found["files"] == [1024, 1024]
                    assert found["name"] == "sw:a-very-long-"
                    assert found["loop"].startswith("uvloop")
                    assert found["utf8"] == 1
                    assert found["env"] == {"GREETING": "hi", "LIST": [1], "KEY": "k"}

    run(main)


def test_isolates_draw_different_random_numbers(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            drawn = [await ears.ask(await pool.acquire(a_version(), solo=True), "chance") for _ in range(3)]
            assert len(set(drawn)) == 3

    run(main)


def test_an_isolate_holds_the_alive_file_by_an_opening_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, ears):
            assert await ears.ask(await pool.acquire(a_version()), "hold")

    run(main)


def test_an_isolate_does_not_come_up_while_another_node_holds_the_alive_file(tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "alive").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            async with a_pool(tmp_path) as (pool, _ears):
                with pytest.raises(IsolateStartError, match="BlockingIOError"):
                    await pool.acquire(a_version())

    run(main)


def test_a_module_that_does_not_import_raises_its_error_and_the_next_start_waits(tmp_path: Path) -> None:
    async def main() -> None:
        clock = HandClock()
        async with a_pool(tmp_path, clock=clock) as (pool, ears):
            version = a_version(variables={"BOOT": "fail"})
            with pytest.raises(BootFailedError, match="No module named 'nowhere'") as caught:
                await pool.acquire(version)
            assert "Traceback" in caught.value.error.stack
            _, record = ears.logs[-1]
            assert record.level == "error"
            assert "Traceback" in record.stack
            await eventually(lambda: not pool.snapshot())
            clock.advance(99)  # of the 100 ms of CRASHES_BACKOFF_MS
            with pytest.raises(BootFailedError):
                await pool.acquire(version)
            assert len(ears.logs) == 1, "it was started again before its time"
            clock.advance(1)
            with pytest.raises(BootFailedError):
                await pool.acquire(version)
            assert len(ears.logs) == 2
            assert ears.lost == [], "what was never ready is not lost"

    run(main)


def test_an_isolate_that_ends_while_it_starts_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            with pytest.raises(IsolateStartError, match=r"(?s)exit code 3.*cannot go on"):
                await pool.acquire(a_version(variables={"BOOT": "exit"}))

    run(main)


def test_an_isolate_that_takes_too_long_to_start_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path, start_timeout_ms=300) as (pool, _ears):
            await pool.started.wait()
            with pytest.raises(IsolateStartError, match="did not start within 300 ms"):
                await pool.acquire(a_version(variables={"BOOT": "hang"}))

    run(main)


def test_an_isolate_of_another_protocol_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            with pytest.raises(IsolateStartError, match="protocol 0"):
                await pool.acquire(a_version(variables={"BOOT": "old"}))

    run(main)


def test_everybody_who_waits_gets_the_one_isolate_that_is_started(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            isolates = await asyncio.gather(*[pool.acquire(a_version()) for _ in range(50)])
            assert len(set(isolates)) == 1
            assert len(pool.snapshot()) == 1

    run(main)


def test_a_start_that_nobody_waits_for_any_more_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_pool(tmp_path) as (pool, _ears):
            waiting = asyncio.create_task(pool.acquire(a_version(variables={"BOOT": "hang"}), solo=True))
            await eventually(lambda: any(row["pid"] for row in pool.snapshot()))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await eventually(lambda: not pool.snapshot())

    run(main)
