"""How fast the store commits, in a closed loop: each writer hands over one journal row and waits until it is on disk.

    python bench/store_commit.py [SECONDS]

Prints rows/s and the time of a commit with 1, 64 and 256 in flight, whole runs (create, ten entries, end), and then
what a commit takes while the event loop is 100 % busy: that one must not be left out, since a closed loop idles while
it waits and so cannot see whether a busy loop is in the way. The bound beside them is one fdatasync of a page that is
overwritten: nothing durable can be faster alone.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import uvloop

from stellwerk.core.workflow.status import Status
from stellwerk.store.base import Decision, Done, InstanceRow
from stellwerk.store.sqlite.store import SqliteStore

ENTRY = b"x" * 100
RUN_ENTRIES = 10
ROWS_PER_S_MAX = 300_000  # so many rows a second have instances waiting for them
BUSY_TURN_S = 0.0001
OPEN_LOOP_ROWS_PER_S = 20_000


class Meter:
    """Commit times of one measurement."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.times: list[float] = []
        self.started = time.perf_counter()

    def line(self, name: str, rows: int | None = None) -> str:
        elapsed = time.perf_counter() - self.started
        times = sorted(self.times)
        p50, p99 = (times[min(int(len(times) * share), len(times) - 1)] * 1e3 for share in (0.5, 0.99))
        rate = (len(times) if rows is None else rows) / elapsed
        return f"{name:44} {rate:10,.0f} rows/s   p50 {p50:7.3f} ms   p99 {p99:7.3f} ms"


def row(instance: str, seq: int) -> tuple[str, str, str, int, int, int, bytes]:
    return ("local", "orders", instance, 1, seq, 1_700_000_000_000, ENTRY)


async def closed_loop(store: SqliteStore, in_flight: int, seconds: float) -> None:
    """Callbacks, not futures: the engine does the same, and a future per row would be what is measured.

    The first writer alone looks at the clock, and ends the measurement.
    """
    instances = iter(await created(store, int(seconds * ROWS_PER_S_MAX) // RUN_ENTRIES + 2 * in_flight))
    meter, finished, running, rows = Meter(seconds), asyncio.Event(), in_flight, 0
    over = False
    turn: list[Decision] = []
    loop = asyncio.get_running_loop()

    def flush() -> None:
        nonlocal turn, rows
        batch, turn = turn, []
        rows += len(batch)
        store.submit(batch)

    def writer() -> Done:
        instance, seq = next(instances), -1

        def step(error: Exception | None) -> None:
            nonlocal instance, seq, running
            if error is not None:
                raise error
            if over:
                running -= 1
                if not running:
                    finished.set()
                return
            seq += 1
            if seq == RUN_ENTRIES:
                instance, seq = next(instances), 0
            if not turn:
                loop.call_soon(flush)
            turn.append(Decision([row(instance, seq)], done=step))

        return step

    def timed(step: Done) -> Done:
        begun = time.perf_counter()

        def done(error: Exception | None) -> None:
            nonlocal begun, over
            now = time.perf_counter()
            meter.times.append(now - begun)
            over = now > meter.started + seconds
            begun = now
            step(error)
            if turn and turn[-1].done is step:
                turn[-1].done = done

        return done

    timed(writer())(None)
    for _ in range(in_flight - 1):
        writer()(None)
    await finished.wait()
    print(meter.line(f"{in_flight} in flight", rows))


async def created(store: SqliteStore, count: int) -> list[str]:
    """That many instances, with random ids, as the API makes them."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    done = asyncio.Event()
    decisions = [Decision(create=an_instance(instance, 1_700_000_000_000)) for instance in ids]
    decisions[-1].done = lambda _: done.set()
    store.submit(decisions)
    await done.wait()
    return ids


async def whole_runs(store: SqliteStore, in_flight: int, seconds: float) -> None:
    """What indexes cost: create, ten entries one by one, and the end."""
    meter, rows = Meter(seconds), 0
    loop = asyncio.get_running_loop()

    async def record(decision: Decision) -> None:
        future = loop.create_future()
        decision.done = lambda error: future.set_exception(error) if error else future.set_result(None)
        begun = time.perf_counter()
        store.submit([decision])
        await future
        meter.times.append(time.perf_counter() - begun)

    async def one() -> None:
        nonlocal rows
        while time.perf_counter() < meter.started + seconds:
            rows += RUN_ENTRIES + 2
            instance = str(uuid.uuid4())
            at = 1_700_000_000_000 + rows
            await record(Decision([row(instance, 0)], create=an_instance(instance, at)))
            for seq in range(1, RUN_ENTRIES + 1):
                await record(Decision([row(instance, seq)]))
            end = ("complete", at, at, at, None, "local", "orders", instance, 1)
            await record(Decision([row(instance, RUN_ENTRIES + 1)], update=end))

    await asyncio.gather(*[one() for _ in range(in_flight)])
    print(meter.line(f"whole runs, {in_flight} in flight", rows))


def an_instance(instance_id: str, at: int) -> InstanceRow:
    return InstanceRow(
        account_id="local",
        workflow="orders",
        instance_id=instance_id,
        incarnation=1,
        status=Status.QUEUED,
        worker="orders",
        version_id="version",
        class_name="Orders",
        created_at=at,
        modified_at=at,
    )


async def busy_loop(store: SqliteStore, seconds: float) -> None:
    """Rows come at a fixed rate while the loop burns the CPU in short turns, as under load from the ingress."""
    [instance] = await created(store, 1)
    meter, seq = Meter(seconds), 0

    def done(begun: float) -> Callable[[Exception | None], None]:
        return lambda error: meter.times.append(time.perf_counter() - begun)

    while (now := time.perf_counter()) < meter.started + seconds:
        due = int((now - meter.started) * OPEN_LOOP_ROWS_PER_S)
        store.submit([Decision([row(instance, number)], done=done(now)) for number in range(seq, due)])
        seq = due
        while time.perf_counter() < now + BUSY_TURN_S:
            pass
        await asyncio.sleep(0)
    await created(store, 1)  # its commit comes after all others
    print(meter.line("loop 100 % busy, 20,000 rows/s offered"))


def fdatasync_ms(folder: Path) -> float:
    """The median of overwriting a page and making it durable."""
    times = []
    with (folder / "page").open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for _ in range(200):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), 0)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return sorted(times)[100] * 1e3


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, one fdatasync {fdatasync_ms(folder):.3f} ms")
        store = await SqliteStore.open(folder / "db", owner="bench", now_ms=0)
        for in_flight in (1, 64, 256):
            await closed_loop(store, in_flight, seconds)
        for in_flight in (1, 64):
            await whole_runs(store, in_flight, seconds)
        await busy_loop(store, seconds)
        await store.close()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
