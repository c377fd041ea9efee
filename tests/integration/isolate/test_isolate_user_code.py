"""A user's module in its isolate, by the way that production takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.integration.isolate.bench import Ears

from stellwerk.core.deployment.manifest import Manifest
from stellwerk.node.clock import SystemClock
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import BootFailedError, Isolate
from stellwerk.wire import isolate as messages

HELLO = """
import logging
from workers import Response, WorkerEntrypoint

print("imported")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("served", request.url)
        logging.getLogger("shop").warning("stock is low")
        return Response("hello")
"""


class Answers(Ears):
    def on_messages(self, isolate: Isolate, batch: list[Any]) -> None:
        for message in batch:
            self.answers[message.call] = message
        self.changed.set()


def a_worker(folder: Path, source: str) -> LoadedVersion:
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "main.py").write_text(source)
    manifest = Manifest(name="hello", main="main.py", compatibility_date="2026-01-01")
    return LoadedVersion(
        account_id="local", worker="hello", version_id="v1", number=1, manifest=manifest, bundle=bundle
    )


def a_real_pool(state: Path, ears: Ears) -> Pool:
    return Pool(
        state=state, clock=SystemClock(), on_messages=ears.on_messages, on_lost=ears.on_lost, on_log=ears.on_log
    )


def test_a_worker_answers_and_what_it_prints_and_logs_arrives(tmp_path: Path) -> None:
    async def main() -> None:
        ears = Answers()
        pool = a_real_pool(tmp_path, ears)
        await pool.start()
        try:
            isolate = await pool.acquire(a_worker(tmp_path, HELLO))
            assert [(export.name, export.methods) for export in isolate.exports] == [("Default", ["fetch"])]
            request = messages.HttpRequest(
                call=2, target="Default", method="GET", url="http://x/", headers=[], body=b"", request_id="r1"
            )
            isolate.channel.send(request)
            await ears.until(lambda: 2 in ears.answers and len(ears.logs) >= 3)
            assert (ears.answers[2].status, ears.answers[2].body) == (200, b"hello")
            assert [(r.level, r.text, r.logger, r.invocation) for _, r in ears.logs] == [
                ("info", "imported", "", ""),
                ("info", "served http://x/", "", "r1"),
                ("warn", "stock is low", "shop", "r1"),
            ]
        finally:
            await pool.stop()

    uvloop.run(main())


@pytest.mark.parametrize("package", ["msgspec", "starlette", "nowhere"])
def test_a_worker_finds_only_what_it_names_among_its_dependencies(tmp_path: Path, package: str) -> None:
    """What the platform itself has installed is not there to be imported by accident. (What it has *loaded* in the
    isolate is: that is one process.)"""

    async def main() -> None:
        pool = a_real_pool(tmp_path, ears := Ears())
        await pool.start()
        source = f"import sys\nsys.modules.pop({package!r}, None)\nimport {package}\n"
        try:
            with pytest.raises(BootFailedError) as caught:
                await pool.acquire(a_worker(tmp_path, source))
        finally:
            await pool.stop()
        assert caught.value.error.name == "ModuleNotFoundError"
        assert 'main.py", line 3' in caught.value.error.stack
        assert any(record.level == "error" and "main.py" in record.stack for _, record in ears.logs)

    uvloop.run(main())
