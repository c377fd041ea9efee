"""Isolates come up: quickly, clean, and holding the alive file."""

from __future__ import annotations

import fcntl
import os
import statistics
import time
from pathlib import Path

import pytest
from bench import a_pool, a_version, run

from stellwerk.core.isolate.machine import Status


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
