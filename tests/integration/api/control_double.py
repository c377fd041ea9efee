"""A control plane over real deployments and a real SQLite store, without isolates: an engine that only keeps records.

Everything that HTTP can reach is real (server, token, store, journal, bundles); what is played is who runs the code.
Runs move only when a test calls ``record``.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from stellwerk.core.deployment.manifest import Manifest, WorkflowBinding
from stellwerk.core.errors import (
    ConflictError,
    InstanceExistsError,
    InstanceNotFoundError,
)
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.entries import AnyEntry, ErrorValue
from stellwerk.core.workflow.status import TERMINAL, Status
from stellwerk.node.api import ControlServer, Ports
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.telemetry.log import LogSink
from stellwerk.node.telemetry.metrics import Counters, Gauges
from stellwerk.store.base import Decision, InstanceRow, JournalRow, StoredRun
from stellwerk.store.sqlite.store import SqliteStore
from stellwerk.store.state_folder import StateFolder
from stellwerk.wire.api import NODE_FILE, NodeFile, encode_node_file

START_MS = 1_764_025_200_000


class SteppingClock:
    """A clock that moves by one millisecond with every look at it; ids are numbered."""

    def __init__(self) -> None:
        self._now = itertools.count(START_MS)
        self._ids = itertools.count(1)

    def now_ms(self) -> int:
        return next(self._now)

    def monotonic_ms(self) -> int:
        return next(self._now)

    def new_trace_id(self) -> str:
        return f"{next(self._ids):032x}"

    def new_span_id(self) -> str:
        return f"{next(self._ids):016x}"

    def new_uuid(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._ids):012x}"


@dataclass(frozen=True)
class KnownStatus:
    status: Status
    output: bytes | None
    error: ErrorValue | None


@dataclass
class RecordingEngine:
    """Writes journals into the store, as the engine would, and never runs anything."""

    store: SqliteStore
    deployments: Deployments
    clock: SteppingClock

    async def create(self, workflow: str, *, instance_id: str | None, params: bytes, trigger: str) -> str:
        version, flow = self.deployments.workflow(workflow)
        name, now = instance_id or self.clock.new_uuid(), self.clock.now_ms()
        created = e.Created(
            at=now,
            params=params,
            worker=version.worker,
            version_id=version.version_id,
            class_name=flow.class_name,
            trigger=trigger,
            manifest={version.worker: version.version_id},
            steps_max=flow.steps_max,
        )
        row = InstanceRow(
            account_id=LOCAL_ACCOUNT,
            workflow=workflow,
            instance_id=name,
            incarnation=1,
            status=Status.QUEUED,
            worker=version.worker,
            version_id=version.version_id,
            class_name=flow.class_name,
            created_at=now,
            modified_at=now,
        )
        journal: list[JournalRow] = [(LOCAL_ACCOUNT, workflow, name, 1, 0, now, e.encode(created))]
        await self._submit(Decision(journal=journal, create=row))
        return name

    async def create_batch(self, workflow: str, items: list[tuple[str | None, bytes]], *, trigger: str) -> list[str]:
        made = []
        for instance_id, params in items:
            try:
                made.append(await self.create(workflow, instance_id=instance_id, params=params, trigger=trigger))
            except InstanceExistsError:
                continue
        return made

    async def status(self, workflow: str, instance_id: str) -> KnownStatus:
        run = await self.describe(workflow, instance_id)
        return KnownStatus(run.row.status, None, None)

    async def wait(self, workflow: str, instance_id: str, *, timeout_ms: int) -> KnownStatus:
        return await self.status(workflow, instance_id)

    async def terminate(self, workflow: str, instance_id: str, *, trigger: str) -> None:
        run = await self.describe(workflow, instance_id)
        if run.row.status in TERMINAL:
            raise ConflictError(f"The instance is {run.row.status} already.")
        await self.record(
            workflow, instance_id, e.Terminated(at=self.clock.now_ms(), trigger=trigger), status=Status.TERMINATED
        )

    async def resume(self, workflow: str, instance_id: str) -> None:
        run = await self.describe(workflow, instance_id)
        if run.row.status is not Status.PAUSED:
            raise ConflictError("The instance is not paused.")
        await self.record(workflow, instance_id, e.Resumed(at=self.clock.now_ms()), status=Status.QUEUED)

    async def send_event(self, workflow: str, instance_id: str, event_type: str, payload: bytes) -> None:
        received = e.EventReceived(at=self.clock.now_ms(), event_type=event_type, payload=payload)
        await self.record(workflow, instance_id, received)

    async def describe(self, workflow: str, instance_id: str) -> StoredRun:
        run = await self.store.load_run(LOCAL_ACCOUNT, workflow, instance_id)
        if run is None:
            raise InstanceNotFoundError
        return run

    async def record(self, workflow: str, instance_id: str, *added: AnyEntry, status: Status | None = None) -> None:
        """Appends entries to a journal and moves the instance, as if it had run."""
        run = await self.describe(workflow, instance_id)
        now, row = self.clock.now_ms(), run.row
        moved = status or row.status
        update = (
            moved.value,
            now,
            now if row.started_at is None else None,
            now if moved in TERMINAL else None,
            None,
            LOCAL_ACCOUNT,
            workflow,
            instance_id,
            row.incarnation,
        )
        journal: list[JournalRow] = [
            (LOCAL_ACCOUNT, workflow, instance_id, row.incarnation, len(run.journal) + index, now, e.encode(entry))
            for index, entry in enumerate(added)
        ]
        await self._submit(Decision(journal=journal, update=update))

    async def _submit(self, decision: Decision) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish(error: Exception | None) -> None:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        decision.done = finish
        self.store.submit([decision])
        await done


class ControlDouble:
    """Store, players and a real ``ControlServer`` on a free port, with ``node.json`` and ``token`` in ``state``."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.clock = SteppingClock()
        self.counters = Counters()
        self.gauges = Gauges()
        self.log_text = io.StringIO()
        self.ready = True

    async def __aenter__(self) -> ControlDouble:
        self.folder = StateFolder.open(self.state, force=True)  # the tests' temporary folder may be in memory
        self.token = self.folder.token.read_text().strip()
        self.store = await SqliteStore.open(self.folder.database, owner="node-1", now_ms=START_MS)
        self.deployments = Deployments(self.store, self.state, self.clock)
        await self.deployments.start()
        self.engine = RecordingEngine(self.store, self.deployments, self.clock)
        self.log = LogSink(clock=self.clock, counters=self.counters, stream=self.log_text, mode="plain")
        self.server = ControlServer(self._ports(), port=0)
        await self.server.start()
        node = NodeFile(pid=1, control_host="127.0.0.1", control_port=self.server.port)
        (self.state / NODE_FILE).write_bytes(encode_node_file(node))
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.server.port}",
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()
        await self.server.stop()
        await self.deployments.stop()
        await self.store.close()
        self.folder.close()
        self.log.close()

    def _ports(self) -> Ports:
        return Ports(
            deployments=self.deployments,
            engine=self.engine,
            store=self.store,
            log=self.log,
            counters=self.counters,
            gauges=self.gauges,
            now_ms=self.clock.now_ms,
            token=self.token,
            ready=lambda: self.ready,
            system=lambda: {"isolation": "floor"},
        )

    async def deploy(self, name: str = "orders", workflow: str = "pipeline") -> LoadedVersion:
        """A Worker that defines a workflow, serving."""
        manifest = Manifest(
            name=name,
            main="entry.py",
            compatibility_date="2026-01-01",
            workflows=(WorkflowBinding(name=workflow, binding="FLOW", class_name="Pipeline"),),
        )
        version = await self.deployments.upload(manifest, {"entry.py": b"pass"}, source="dev")
        await self.deployments.deploy(name, version.version_id, source="dev")
        return version

    def files(self, version: LoadedVersion) -> dict[str, bytes]:
        """The files of a version, as its isolate would see them."""
        found = (path for path in version.bundle.rglob("*") if path.is_file())
        return {str(path.relative_to(version.bundle)): path.read_bytes() for path in found}

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return await self.http.request(method, f"/client/v4/accounts/any{path}", **arguments)

    async def result(self, method: str, path: str, **arguments: Any) -> Any:
        """The result of a call that must succeed."""
        response = await self.call(method, path, **arguments)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["success"] is True
        return body["result"]

    async def error(self, method: str, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """HTTP status and first error of a call that must fail."""
        response = await self.call(method, path, **arguments)
        body = response.json()
        assert body["success"] is False, response.text
        assert body["result"] is None
        return response.status_code, body["errors"][0]
