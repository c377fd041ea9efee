"""The workbench of these tests: a real pool with real processes, and ears for all that it tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from stellwerk.core.deployment.manifest import Manifest, WorkerSettings
from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.settings import PoolSettings, ZygoteSettings
from stellwerk.wire import isolate as messages
from stellwerk.wire.isolate import LogRecord

HERE = Path(__file__).parent
ZYGOTE = ZygoteSettings(preload=("behaviours",), entry="behaviours:run", paths=(str(HERE),))
PATIENCE_S = 20


class HandClock(SystemClock):
    """A clock whose monotonic time moves when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.time_ms = 1_000_000

    def monotonic_ms(self) -> int:
        return self.time_ms

    def advance(self, by_ms: int) -> None:
        self.time_ms += by_ms


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test on uvloop, as the node does."""
    uvloop.run(asyncio.wait_for(main(), PATIENCE_S))


def a_version(
    version_id: str = "v1",
    *,
    variables: dict[str, Any] | None = None,
    secrets: dict[str, str] | None = None,
    isolates_max: int = 4,
    idle_s: int = 60,
    worker: str = "hello",
) -> LoadedVersion:
    return LoadedVersion(
        account_id="local",
        worker=worker,
        version_id=version_id,
        number=1,
        manifest=Manifest(
            name=worker,
            main="main.py",
            compatibility_date="2026-01-01",
            vars=variables or {},
            secrets=secrets or {},
            settings=WorkerSettings(isolates_max=isolates_max, isolates_idle_s=idle_s),
        ),
        bundle=Path("/nonexistent"),
    )


@dataclass
class Ears:
    """Everything that the pool has told, and a way to wait for it."""

    lost: list[tuple[int, str, bool]] = field(default_factory=list)
    logs: list[tuple[int, LogRecord]] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    def on_messages(self, isolate: Isolate, batch: list[Any]) -> None:
        for message in batch:
            assert isinstance(message, messages.RpcResult)
            self.answers[message.call] = json.loads(message.value)
        self.changed.set()

    def on_lost(self, isolate: Isolate, cause: str, crashed: bool) -> None:
        self.lost.append((isolate.id, cause, crashed))
        self.changed.set()

    def on_log(self, isolate: Isolate, record: LogRecord) -> None:
        self.logs.append((isolate.id, record))
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        while not (found := condition()):
            self.changed.clear()
            await self.changed.wait()
        return found

    def tell(self, isolate: Isolate, behaviour: str) -> int:
        self.calls += 2
        isolate.channel.send(messages.RpcCall(call=self.calls, target="Default", method=behaviour, args=b""))
        return self.calls

    async def ask(self, isolate: Isolate, behaviour: str) -> Any:
        call = self.tell(isolate, behaviour)
        await self.until(lambda: call in self.answers)
        return self.answers[call]

    async def loss(self, isolate: Isolate) -> tuple[str, bool]:
        """How it ended: cause, and whether that was a crash."""
        _, cause, crashed = await self.until(lambda: next((e for e in self.lost if e[0] == isolate.id), None))
        return cause, crashed

    def texts(self, logger: str) -> str:
        return "\n".join(record.text for _, record in self.logs if record.logger == logger)


@asynccontextmanager
async def a_pool(
    state: Path, *, clock: SystemClock | None = None, ears: Ears | None = None, **settings: Any
) -> AsyncIterator[tuple[Pool, Ears]]:
    ears = ears or Ears()
    pool = Pool(
        state=state,
        clock=clock or SystemClock(),
        on_messages=ears.on_messages,
        on_lost=ears.on_lost,
        on_log=ears.on_log,
        settings=PoolSettings(zygote=ZYGOTE, **settings),
    )
    await pool.start()
    try:
        yield pool, ears
    finally:
        await pool.stop()


async def eventually(condition: Callable[[], Any]) -> None:
    """Waits for what nobody signals, such as the end of somebody else's process. The deadline is that of ``run``."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def is_gone(pid: int) -> bool:
    """Whether no process of this number runs. A zombie runs nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
