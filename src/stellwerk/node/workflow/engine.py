"""The engine: what people and Workers may ask of durable runs. Acknowledged means on disk.

The work is done by its parts: ``creation.py`` brings new runs to the disk, ``runs.py`` owns what is live,
``dispatcher.py`` says whose turn it is, ``timers.py`` wakes, and on start every unfinished run is taken up again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache

from stellwerk.core import limits
from stellwerk.core.deployment.flags import enabled_flags
from stellwerk.core.errors import InstanceExistsError, InstanceNotFoundError, InvalidRequestError
from stellwerk.core.ids import is_event_type, is_instance_id
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.state import RunState, evolve, from_journal
from stellwerk.core.workflow.status import TERMINAL, Status
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.workflow.counters import EngineCounters
from stellwerk.node.workflow.creation import Creation, Draft
from stellwerk.node.workflow.live import Key, LiveRun, Place
from stellwerk.node.workflow.runs import Runs
from stellwerk.store import base
from stellwerk.store.base import InstanceRow, StoredRun

RESCUE_PAGE = 1_000
PRESERVE_FLAG = "workflows_preserve_non_retryable_error_message"


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    status: Status
    output: bytes | None = None
    error: e.ErrorValue | None = None


class Engine:
    """Durable runs of one account. Service: ``start``, ``started``, ``stop``."""

    def __init__(self, runs: Runs, deployments: Deployments) -> None:
        self.runs, self._deployments = runs, deployments
        self._creation = Creation(runs)
        self.started = asyncio.Event()

    @property
    def counters(self) -> EngineCounters:
        return self.runs.counters

    async def start(self) -> None:
        """Takes up every unfinished run, then lets timers fire."""
        for _, binding in self._deployments.workflows():
            self.runs.dispatcher.limit(binding.name, binding.concurrency_max)
        await self._rescue()
        await self.runs.timers.start()
        self.started.set()

    async def stop(self) -> None:
        """Runs in isolates are told to stop; on disk they stay what they are, and the next node takes them up."""
        await self.runs.stop()

    async def _rescue(self) -> None:
        """The oldest first. As many names as the dispatcher holds from then on."""
        found: list[tuple[int, Key]] = []
        cursor = ""
        while True:
            rows, cursor = await self.runs.store.unfinished(limit=RESCUE_PAGE, cursor=cursor)
            found += [(row.created_at, (row.workflow, row.instance_id)) for row in rows]
            if not cursor:
                break
        for _, key in sorted(found):
            self.runs.dispatcher.enqueue(key)

    # -- create -------------------------------------------------------------------------------------------------------

    async def create(
        self,
        workflow: str,
        *,
        instance_id: str | None,
        params: bytes,
        trigger: str,
        parent: LiveRun | None = None,
        traceparent: str = "",
    ) -> str:
        """A new instance, on disk when this returns; its id. Raises ``InstanceExistsError`` for an id used before,
        ``InvalidRequestError`` for a bad id or params over 1 MiB, ``WorkflowNotFoundError``, and
        ``WorkerNotFoundError`` when the run manifest cannot be drawn."""
        draft = self._draft(workflow, instance_id, params, trigger, parent)
        draft.live.traceparent = traceparent
        (error,) = await self._creation.record([draft])
        if error is not None:
            raise error
        return draft.live.instance_id

    async def create_batch(
        self, workflow: str, items: list[tuple[str | None, bytes]], *, trigger: str, parent: LiveRun | None = None
    ) -> list[str]:
        """At most 100 new instances. Existing ids are skipped, as Cloudflare does; the created ids, in order."""
        if not items:
            raise InvalidRequestError("WorkflowError: batchCreate should have at least 1 instance")
        if len(items) > limits.BATCH_CREATE_MAX:
            raise InvalidRequestError(f"WorkflowError: batchCreate takes at most {limits.BATCH_CREATE_MAX} instances")
        drafts: list[Draft] = []
        for instance_id, params in items:
            if instance_id is not None and any(draft.live.instance_id == instance_id for draft in drafts):
                continue
            drafts.append(self._draft(workflow, instance_id, params, trigger, parent))
        errors = await self._creation.record(drafts)
        for error in errors:
            if error is not None and not isinstance(error, InstanceExistsError):
                raise error
        return [draft.live.instance_id for draft, error in zip(drafts, errors, strict=True) if error is None]

    def _draft(
        self, workflow: str, instance_id: str | None, params: bytes, trigger: str, parent: LiveRun | None
    ) -> Draft:
        runs = self.runs
        own_id = instance_id is None
        instance_id = instance_id if instance_id is not None else runs.clock.new_uuid()
        if not is_instance_id(instance_id):
            raise InvalidRequestError("WorkflowError: Workflow instance has invalid id")
        if len(params) > limits.EVENT_PAYLOAD_BYTES_MAX:
            raise InvalidRequestError(f"The params take {len(params)} bytes; at most 1 MiB is allowed.")
        version, binding = self._deployments.workflow(workflow)
        manifest = self._manifest(version, parent)
        version_id = manifest[version.worker]
        now_ms = runs.clock.now_ms()
        blobs: list[tuple[str, str, bytes]] = []
        stored: e.Value = params if len(params) <= limits.INLINE_VALUE_BYTES_MAX else runs.recorder.blob(params, blobs)
        created = e.Created(
            now_ms, stored, version.worker, version_id, binding.class_name, trigger, manifest, binding.steps_max,
            _preserves(version.manifest.compatibility_date, tuple(version.manifest.compatibility_flags)),
        )  # fmt: skip
        live = self._new_run(workflow, instance_id, created)
        row = InstanceRow(
            account_id=runs.account_id, workflow=workflow, instance_id=instance_id, incarnation=1, status=Status.QUEUED,
            worker=version.worker, version_id=version_id, class_name=binding.class_name, created_at=now_ms,
            modified_at=now_ms, versions=tuple(manifest.values()),
        )  # fmt: skip
        runs.dispatcher.limit(workflow, binding.concurrency_max)
        return Draft(live, base.Decision(live.rows([created]), row, None, blobs), own_id)

    def _new_run(self, workflow: str, instance_id: str, created: e.Created) -> LiveRun:
        state = RunState()
        evolve(state, created)
        return LiveRun(
            account_id=self.runs.account_id, workflow=workflow, instance_id=instance_id, incarnation=1, number=0,
            state=state, seq=0, written=Status.QUEUED, journal=[],
        )  # fmt: skip

    def _manifest(self, version: LoadedVersion, parent: LiveRun | None) -> dict[str, str]:
        """The versions that the run will reach: a child's are its parent's, where the parent has the Worker."""
        if parent is not None and version.worker in parent.created.manifest:
            return parent.created.manifest
        return self._deployments.freeze(version.worker)

    # -- look ---------------------------------------------------------------------------------------------------------

    async def status(self, workflow: str, instance_id: str) -> InstanceStatus:
        """Raises ``InstanceNotFoundError``."""
        live = self.runs.table.runs.get((workflow, instance_id))
        if live is not None and not live.state.terminal:
            return InstanceStatus(live.shown_status)
        stored = await self.describe(workflow, instance_id)
        return await self._shown(from_journal(map(e.decode, stored.journal)))

    async def _shown(self, state: RunState) -> InstanceStatus:
        output = state.output
        if isinstance(output, e.BlobRef):
            output = (await self.runs.store.blobs(self.runs.account_id, [output.sha256]))[output.sha256]
        return InstanceStatus(state.status, output, state.error)

    async def describe(self, workflow: str, instance_id: str) -> StoredRun:
        """The instance with its journal. Raises ``InstanceNotFoundError``."""
        stored = await self.runs.store.load_run(self.runs.account_id, workflow, instance_id)
        if stored is None:
            raise InstanceNotFoundError
        if stored.row.status is Status.QUEUED:  # what has come out of the queue is written there when it lasts
            state = from_journal(map(e.decode, stored.journal))
            live = self.runs.table.runs.get((workflow, instance_id))
            handed = live is not None and live.place is Place.RUNNING
            stored.row.status = Status.RUNNING if handed and state.status is Status.QUEUED else state.status
            stored.row.started_at = state.started_at
        return stored

    async def wait(self, workflow: str, instance_id: str, *, timeout_ms: int) -> InstanceStatus:
        """``status`` once the run has ended, or after ``timeout_ms`` whatever it is then. Nothing is polled, and of a
        run that ends meanwhile nothing is read but an output that lies in a blob."""
        key = (workflow, instance_id)
        waiter = self.runs.table.wait(key)
        try:
            found = await self.status(workflow, instance_id)
            if found.status in TERMINAL:
                return found
            async with asyncio.timeout(timeout_ms / 1000):
                ended = await waiter
        except TimeoutError:
            return await self.status(workflow, instance_id)
        finally:
            self.runs.table.stop_waiting(key, waiter)
        return await self._shown(ended.state)

    # -- steer --------------------------------------------------------------------------------------------------------

    async def terminate(self, workflow: str, instance_id: str, *, trigger: str = "api") -> None:
        """Ends the run now. Raises ``ConflictError`` when it has ended already."""
        await self.runs.decide(await self._live(workflow, instance_id), i.Terminate(trigger))

    async def send_event(self, workflow: str, instance_id: str, event_type: str, payload: bytes) -> None:
        """Gives an event to the oldest wait for its type, or keeps it for the next one."""
        if not is_event_type(event_type):
            raise InvalidRequestError(
                f'Event type "{event_type}" is not valid: letters, digits, "-" and "_", at most 100 characters'
            )
        if len(payload) > limits.EVENT_PAYLOAD_BYTES_MAX:
            raise InvalidRequestError(f"The payload takes {len(payload)} bytes; at most 1 MiB is allowed.")
        live = await self._live(workflow, instance_id)
        self.counters.events_sent += 1
        await self.runs.decide(live, i.EventSent(event_type, payload))

    async def resume(self, workflow: str, instance_id: str) -> None:
        """Takes a paused run up again. Raises ``ConflictError`` when it is not paused."""
        await self.runs.decide(await self._live(workflow, instance_id), i.Resume())

    async def _live(self, workflow: str, instance_id: str) -> LiveRun:
        live = await self.runs.load((workflow, instance_id))
        if live is None:
            raise InstanceNotFoundError
        return live


@lru_cache(maxsize=256)
def _preserves(compatibility_date: str, flags: tuple[str, ...]) -> bool:
    return PRESERVE_FLAG in enabled_flags(compatibility_date, flags)
