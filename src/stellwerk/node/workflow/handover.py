"""The hand-over: sending a run with its journal to the isolate that was found for it.

Nothing that is not on disk may reach the program, and nothing that is may be missing: so the journal goes out when no
decision of the run is on its way, and is as long as the run's count of entries. Usually that is so at once. Otherwise
the hand-over waits for the commit, or for the store and its blobs, and looks again. The one exception is a run whose
creation is being written: its program may start meanwhile, and is told that nothing may act outside yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from stellwerk.core import limits
from stellwerk.core.errors import InstanceNotFoundError, StellwerkError
from stellwerk.core.ids import AccountId
from stellwerk.core.workflow import entries as e
from stellwerk.node.clock import Clock
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.live import LiveRun
from stellwerk.node.workflow.table import LiveTable
from stellwerk.store.base import WorkflowRoom
from stellwerk.wire import isolate as messages

PART_ENTRIES = 64  # of a journal without blobs: what lies in it is small enough for one frame


class Handover:
    """``sent(live)`` is called when a run's program has been started; ``failed(live, error)`` when the store cannot
    be read."""

    def __init__(
        self,
        *,
        account_id: AccountId,
        store: WorkflowRoom,
        clock: Clock,
        table: LiveTable,
        sent: Callable[[LiveRun], None],
        failed: Callable[[LiveRun, Exception], None],
    ) -> None:
        self._account_id, self._store, self._clock, self._table = account_id, store, clock, table
        self._sent, self._failed = sent, failed
        self._quiet: dict[LiveRun, asyncio.Future[None]] = {}  # who waits for the commits of a run
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, live: LiveRun, isolate: Isolate) -> None:
        """The dispatcher has found an isolate."""
        self._table.enter(live, isolate)
        live.state.solo = live.solo
        at_rest = not live.commits or live.unrecorded
        if live.journal is not None and at_rest and not any(map(blob_of, live.journal)):
            self._send(live, isolate, live.journal, {})
            return
        self._spawn(self._prepare(live, isolate, live.number))

    def recorded(self, live: LiveRun) -> None:
        """No decision of this run is on its way any more, or its life in that isolate is over."""
        waiting = self._quiet.pop(live, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _prepare(self, live: LiveRun, isolate: Isolate, number: int) -> None:
        def current() -> bool:
            return live.number == number and live.isolate is isolate and self._table.holds(live)

        try:
            while current():
                if live.commits:
                    waiting = self._quiet[live] = asyncio.get_running_loop().create_future()
                    await waiting
                    continue
                journal = live.journal if live.journal is not None else await self._read(live)
                wanted = [found.sha256 for found in map(blob_of, journal) if found is not None]
                blobs = await self._store.blobs(self._account_id, wanted) if wanted else {}
                if current() and not live.commits and len(journal) == live.seq:
                    self._send(live, isolate, journal, blobs)
                    return
        except StellwerkError as error:
            if current():
                self._failed(live, error)

    async def _read(self, live: LiveRun) -> list[bytes]:
        stored = await self._store.load_run(self._account_id, *live.key)
        if stored is None:
            raise InstanceNotFoundError
        return list(stored.journal)

    def _send(self, live: LiveRun, isolate: Isolate, journal: list[bytes], blobs: dict[str, bytes]) -> None:
        created = live.created
        params = created.params if isinstance(created.params, bytes) else blobs[created.params.sha256]
        live.journal, live.handed = None, True
        if blobs or len(journal) > PART_ENTRIES:
            *parts, (journal, blobs) = split(journal, blobs)
            for part in parts:
                isolate.channel.send(messages.RunPast(live.number, *part))
        isolate.channel.send(
            messages.RunStart(
                live.number, live.workflow, created.class_name, live.instance_id, params, created.at, journal, blobs,
                self._clock.now_ms(), live.careful or live.solo, live.traceparent, created.preserve_non_retryable,
                created.steps_max, live.unrecorded,
            )
        )  # fmt: skip
        self._sent(live)

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def deliver(self, live: LiveRun, message: messages.Deliver) -> None:
        """Sends a delivery group to the program, behind those before it. A large event lies in a blob by now: its
        bytes are read first, for the isolate has no blobs but those that it was sent."""
        if live.held is not None:
            live.held.append(message)
            return
        for completion in message.completions:
            if type(completion.value) is e.BlobRef:
                live.held = [message]
                self._spawn(self._deliver_held(live, live.held))
                return
        if live.isolate is not None:
            live.isolate.channel.send(message)

    async def _deliver_held(self, live: LiveRun, held: list[messages.Deliver]) -> None:
        """Ends when nothing is held back any more, or when the run's life in this isolate is over."""
        while held and live.held is held:
            message = held[0]
            wanted = [c.value.sha256 for c in message.completions if isinstance(c.value, e.BlobRef)]
            try:
                blobs = await self._store.blobs(self._account_id, wanted) if wanted else {}
            except StellwerkError as error:
                if live.held is held:
                    self._failed(live, error)
                return
            if live.held is held and live.isolate is not None:
                live.isolate.channel.send(_with_bytes(message, blobs))
                del held[0]
        if live.held is held:
            live.held = None

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def split(journal: list[bytes], blobs: dict[str, bytes]) -> list[tuple[list[bytes], dict[str, bytes]]]:
    """Journal and blobs in parts of about ``RUN_PART_BYTES``, in order; at least one."""
    parts: list[tuple[list[bytes], dict[str, bytes]]] = [([], {})]
    size = 0
    for name, data in (*(("", entry) for entry in journal), *blobs.items()):
        if size and size + len(data) > limits.RUN_PART_BYTES:
            parts.append(([], {}))
            size = 0
        size += len(data)
        if name:
            parts[-1][1][name] = data
        else:
            parts[-1][0].append(data)
    return parts


def _with_bytes(message: messages.Deliver, blobs: dict[str, bytes]) -> messages.Deliver:
    completions = [
        msgspec.structs.replace(completion, value=blobs[completion.value.sha256])
        if isinstance(completion.value, e.BlobRef)
        else completion
        for completion in message.completions
    ]
    return msgspec.structs.replace(message, completions=completions)


def blob_of(data: bytes) -> e.BlobRef | None:
    """The reference in an entry, if its value lies in a blob."""
    entry = e.decode(data)
    value: Any = None
    if isinstance(entry, e.StepSucceeded):
        value = entry.value
    elif isinstance(entry, e.Created):
        value = entry.params
    elif isinstance(entry, e.WaitCompleted):
        value = entry.payload
    return value if isinstance(value, e.BlobRef) else None
