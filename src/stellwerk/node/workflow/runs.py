"""The owner of live runs: read, decide, record, act.

Every run that something happens to is in memory here, once. Inputs go through the pure machine; what it decides joins
the store's current group; when that is on disk, and not before, the actions follow: completions go to the program,
attempts are granted, a finished run is let go. A crash between record and act loses nothing, because the next owner
derives the actions again from what was recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from stellwerk.core import limits
from stellwerk.core.errors import IllegalTransitionError, InstanceNotFoundError, StellwerkError
from stellwerk.core.ids import AccountId
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import advance
from stellwerk.core.workflow.state import from_journal
from stellwerk.core.workflow.status import Status
from stellwerk.node.clock import Clock
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.counters import EngineCounters
from stellwerk.node.workflow.dispatcher import Dispatcher, Versions
from stellwerk.node.workflow.live import Key, LiveRun, Place
from stellwerk.node.workflow.timers import Timers
from stellwerk.store import base
from stellwerk.store.base import InstanceRow, WorkflowRoom
from stellwerk.wire import isolate as messages

RELOAD_AFTER_S = 1.0  # when the store has failed a run's decision, it is read again after this


class EventLog(Protocol):
    def warn(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


class Runs:
    """All runs of one account that this node holds."""

    def __init__(
        self, *, account_id: AccountId, store: WorkflowRoom, pool: Pool, versions: Versions, clock: Clock, log: EventLog
    ) -> None:
        self.account_id, self.store, self.pool, self.clock, self.log = account_id, store, pool, clock, log
        self.live: dict[Key, LiveRun] = {}
        self.waiters: dict[Key, list[asyncio.Future[None]]] = {}  # who wants to know when a run has ended
        self.by_number: dict[int, LiveRun] = {}
        self.counters = EngineCounters()
        self.timers = Timers(clock, store, self._fire, self._wake, self._timers_failed)
        self.dispatcher = Dispatcher(pool, versions, load=self.load, begin=self._begin, give_up=self._give_up)
        self.started_at = clock.now_ms()
        self._by_isolate: dict[Isolate, set[LiveRun]] = {}
        self._loading: dict[Key, asyncio.Future[LiveRun | None]] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._next_number = 0
        self._stopping = False

    def next_number(self) -> int:
        self._next_number += 1
        return self._next_number

    # -- read ---------------------------------------------------------------------------------------------------------

    async def load(self, key: Key) -> LiveRun | None:
        """The owner's copy, from memory or from the store; None when there is no such instance.

        An unfinished run that is not in memory lost its isolate with the node before this one: that is recorded, and
        its attempts will be recorded before they begin.

        What is returned is *the* copy only until the caller awaits again: then it may have left memory. So a caller
        decides, or takes the run to an isolate, in the same turn.
        """
        while True:
            live = self.live.get(key)
            if live is not None:
                return live
            loading = self._loading.get(key)
            if loading is None:
                loading = self._loading[key] = asyncio.ensure_future(self._load(key))
                loading.add_done_callback(lambda _: self._loading.pop(key, None))
            live = await asyncio.shield(loading)
            if live is None or live.state.terminal:
                return live

    async def _load(self, key: Key) -> LiveRun | None:
        stored = await self.store.load_run(self.account_id, *key)
        if stored is None:
            return None
        state = from_journal(map(e.decode, stored.journal))
        live = LiveRun(
            account_id=self.account_id,
            workflow=key[0],
            instance_id=key[1],
            incarnation=stored.row.incarnation,
            number=self.next_number(),
            state=state,
            seq=len(stored.journal),
            written=stored.row.status,
            journal=list(stored.journal),
        )
        if state.terminal:
            return live
        self.live[key] = live
        interrupted = stored.row.modified_at < self.started_at or state.status is Status.RUNNING
        if state.status in (Status.RUNNING, Status.QUEUED, Status.WAITING_FOR_PAUSE) and interrupted:
            live.careful = True
            if len(stored.journal) > 1:
                self.counters.runs_interrupted += 1
                await self.decide(live, i.Interrupted("the node ended", node=True), take_up=False)
        return live

    def adopt(self, live: LiveRun) -> None:
        """A run that has just been created."""
        self.live[live.key] = live

    # -- decide, record -----------------------------------------------------------------------------------------------

    def reports(self, isolate: Isolate, batch: Sequence[Any]) -> None:
        """What one read of an isolate's channel brought about its runs. All of it joins the same group."""
        grouped: dict[LiveRun, list[Any]] = {}
        by_number = self.by_number
        for report in batch:
            live = by_number.get(report.run)
            if live is None or live.isolate is not isolate:
                continue  # a run that has left this isolate
            found = grouped.get(live)
            if found is None:
                grouped[live] = [report]
            else:
                found.append(report)
        now_ms = self.clock.now_ms()
        decisions = [
            decision
            for live, reports in grouped.items()
            if (decision := self._decide(live, reports, now_ms)) is not None
        ]
        if decisions:
            self._submit(decisions)

    def _decide(self, live: LiveRun, batch: Sequence[Any], now_ms: int) -> base.Decision | None:
        out = Decision()
        blobs: list[tuple[str, str, bytes]] = []
        state = live.state
        for incoming in batch:
            try:
                advance(state, self._outsource(incoming, blobs), now_ms=now_ms, out=out)
            except IllegalTransitionError:
                self.counters.reports_refused += 1
        if not out.entries:
            self._send_grants(live, out)  # of attempts whose start is on disk already
            return None
        live.commits += 1
        return base.Decision(
            live.rows(out.entries), None, live.index_update(now_ms), blobs, partial(self._recorded, live, out)
        )  # fmt: skip

    def _outsource(self, incoming: Any, blobs: list[tuple[str, str, bytes]]) -> Any:
        """Puts a large value into a blob, and a reference in its place."""
        kind = type(incoming)
        if kind is i.StepDone or kind is i.RunReturned:
            value, name = incoming.value, "value"
        elif kind is i.EventSent:
            value, name = incoming.payload, "payload"
        else:
            return incoming
        if not isinstance(value, bytes):  # references are made here; an isolate that sends one reaches for others' data
            raise IllegalTransitionError(f"{kind.__name__} of an isolate refers to a blob")
        if len(value) <= limits.INLINE_VALUE_BYTES_MAX:
            return incoming
        return msgspec.structs.replace(incoming, **{name: self.blob(value, blobs)})

    def blob(self, value: bytes, blobs: list[tuple[str, str, bytes]]) -> e.BlobRef:
        reference = e.BlobRef(hashlib.sha256(value).hexdigest(), len(value))
        blobs.append((self.account_id, reference.sha256, value))
        return reference

    def _submit(self, decisions: list[base.Decision]) -> None:
        try:
            self.store.submit(decisions)
        except StellwerkError as error:
            for decision in decisions:
                assert decision.done is not None
                decision.done(error)

    async def decide(self, live: LiveRun, incoming: Any, *, take_up: bool = True) -> None:
        """Decides on one input and returns when that is on disk. Raises what the machine or the store refuses.

        ``take_up`` False: the caller sees to it that the run gets an isolate.
        """
        out = Decision()
        blobs: list[tuple[str, str, bytes]] = []
        now_ms = self.clock.now_ms()
        advance(live.state, self._outsource(incoming, blobs), now_ms=now_ms, out=out)
        if not take_up:
            out.take_up = False
        if not out.entries:
            self._rest(live)
            return
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            self._recorded(live, out, error, keep=not take_up)
            if recorded.done():
                return
            if error is None:
                recorded.set_result(None)
            else:
                recorded.set_exception(error)

        live.commits += 1
        self._submit([base.Decision(live.rows(out.entries), None, live.index_update(now_ms), blobs, done)])
        await recorded

    # -- act ----------------------------------------------------------------------------------------------------------

    def _recorded(self, live: LiveRun, out: Decision, error: Exception | None, *, keep: bool = False) -> None:
        """The decision is on disk, or it is not and never was."""
        live.commits -= 1
        if self.live.get(live.key) is not live:
            return  # its copy was dropped meanwhile
        if error is not None:
            self._drop(live, error)
            return
        self._count(out)
        if out.stop:
            self._ended(live, out.stop)
            return
        isolate = live.isolate
        if isolate is not None and live.place is Place.RUNNING:
            if live.journal is not None:
                if not live.commits:
                    self._send_start(live, isolate)
            else:
                if out.completions:
                    at = out.entries[0].at
                    isolate.channel.send(messages.Deliver(live.number, out.completions, at))
                self._send_grants(live, out)
        elif out.take_up and live.place is Place.IDLE:
            self.dispatcher.enqueue(live)
        state = live.state
        if state.sleeps or state.waits or state.open:
            self._set_timer(live)
        if not keep and live.place is Place.IDLE:
            self._rest(live)

    def _send_grants(self, live: LiveRun, out: Decision) -> None:
        if live.isolate is not None and live.journal is None:
            for grant in out.grants:
                live.isolate.channel.send(messages.AttemptGranted(live.number, grant.key, grant.attempt))

    def _count(self, out: Decision) -> None:
        counters = self.counters
        for entry in out.entries:
            kind = type(entry)
            if kind is e.StepSucceeded:
                counters.steps_completed += 1
            elif kind is e.StepErrored:
                counters.steps_errored += 1
            elif kind is e.AttemptFailed:
                counters.attempts_failed += 1

    def _set_timer(self, live: LiveRun) -> None:
        due = live.state.next_due()
        if live.state.status is Status.WAITING and live.place is Place.RUNNING and not live.commits:
            linger_ms = limits.PARK_AFTER_MS if live.state.waits else 0
            if linger_ms:
                loop = asyncio.get_running_loop()
                loop.call_later(linger_ms / 1000, self._park_if_still_waiting, live, live.number, live.seq)
            else:
                self._park(live)
                return
        if due is not None:
            self.timers.arm(live, due)

    def _park_if_still_waiting(self, live: LiveRun, number: int, seq: int) -> None:
        if live.number == number and live.seq == seq and live.place is Place.RUNNING and not live.commits:
            self._park(live)

    def _park(self, live: LiveRun) -> None:
        """Takes a waiting run out of memory. Its row says when it is due."""
        self._leave_isolate(live, "parked")
        self._forget(live)
        self.timers.parked(live.state.next_due())

    def _rest(self, live: LiveRun) -> None:
        """A run that was in memory for one decision only leaves again."""
        if live.place is Place.IDLE and not live.commits and self.live.get(live.key) is live:
            self._forget(live)
            if live.state.status is Status.WAITING:
                self.timers.parked(live.state.next_due())

    def _ended(self, live: LiveRun, reason: str) -> None:
        if live.state.terminal:
            self.counters.ended += 1
        else:
            self.log.error("run paused", workflow=live.workflow, instance=live.instance_id, reason=live.state.reason)
        self._leave_isolate(live, "" if reason in ("complete", "errored") else reason)
        self._forget(live)
        for waiter in self.waiters.pop(live.key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, live: LiveRun) -> None:
        live.timer_at = 0
        if self.live.get(live.key) is live:
            del self.live[live.key]

    def _leave_isolate(self, live: LiveRun, reason: str) -> None:
        isolate = live.isolate
        if isolate is None:
            return
        self.by_number.pop(live.number, None)
        self._by_isolate[isolate].discard(live)
        live.isolate, live.place = None, Place.IDLE
        if reason:
            isolate.channel.send(messages.RunStop(live.number, reason))
        isolate.end()
        if live.solo:
            self.pool.release_solo(isolate)
        self.dispatcher.left(live.workflow, solo=live.solo)

    def _drop(self, live: LiveRun, error: Exception) -> None:
        """The store did not take a decision: the copy is wrong from here on. Drop it, and read again in a moment."""
        self.log.error(
            "a decision was not recorded", workflow=live.workflow, instance=live.instance_id, error=str(error)
        )
        self._leave_isolate(live, "its decision was not recorded")
        self._forget(live)
        asyncio.get_running_loop().call_later(RELOAD_AFTER_S, self.dispatcher.enqueue, live.key)

    # -- handing over -------------------------------------------------------------------------------------------------

    def _begin(self, live: LiveRun, isolate: Isolate) -> None:
        """The dispatcher has found an isolate. Nothing that is not on disk may reach the program."""
        live.number = self.next_number()
        self.by_number[live.number] = live
        self._by_isolate.setdefault(isolate, set()).add(live)
        live.state.solo = live.solo
        if live.commits and live.journal is not None:
            return  # `_recorded` hands over
        if live.journal is None:
            reload = asyncio.ensure_future(self._reload(live))
            reload.add_done_callback(lambda task: self._reloaded(live, isolate, task))
            return
        self._send_start(live, isolate)

    async def _reload(self, live: LiveRun) -> list[bytes]:
        stored = await self.store.load_run(self.account_id, *live.key)
        if stored is None:
            raise InstanceNotFoundError
        return list(stored.journal)

    def _reloaded(self, live: LiveRun, isolate: Isolate, task: asyncio.Future[list[bytes]]) -> None:
        if live.isolate is not isolate or self.live.get(live.key) is not live:
            return
        error = task.exception()
        if error is not None:
            self._drop(live, error if isinstance(error, Exception) else RuntimeError(str(error)))
            return
        live.journal = task.result()
        if live.commits or len(live.journal) < live.seq:
            live.journal = None  # something was recorded meanwhile: read once more
            reload = asyncio.ensure_future(self._reload(live))
            reload.add_done_callback(lambda task: self._reloaded(live, isolate, task))
            return
        self._send_start(live, isolate)

    def _send_start(self, live: LiveRun, isolate: Isolate) -> None:
        journal, live.journal = live.journal, None
        assert journal is not None
        references = [reference for entry in journal if (reference := _blob_of(entry)) is not None]
        if references:
            task = asyncio.ensure_future(self._send_start_with_blobs(live, isolate, journal, references))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._start_message(live, isolate, journal, {})

    async def _send_start_with_blobs(
        self, live: LiveRun, isolate: Isolate, journal: list[bytes], references: list[e.BlobRef]
    ) -> None:
        number = live.number
        blobs = await self.store.blobs(self.account_id, [reference.sha256 for reference in references])
        if live.number == number and live.isolate is isolate:
            self._start_message(live, isolate, journal, blobs)

    def _start_message(self, live: LiveRun, isolate: Isolate, journal: list[bytes], blobs: dict[str, bytes]) -> None:
        created = live.created
        params = created.params if isinstance(created.params, bytes) else blobs[created.params.sha256]
        self.counters.taken_up += 1
        isolate.channel.send(
            messages.RunStart(
                live.number, live.workflow, created.class_name, live.instance_id, params, created.at, journal, blobs,
                self.clock.now_ms(), live.careful or live.solo, live.traceparent, created.preserve_non_retryable,
            )
        )  # fmt: skip
        due = live.state.next_due()
        if due is not None:
            self.timers.arm(live, due)

    def _give_up(self, live: LiveRun, error: Exception) -> None:
        """Its version cannot be started: the run ends errored, with what stopped it."""
        value = e.ErrorValue(type(error).__name__, str(error))
        decision = self._decide(live, [i.RunFailed(live.number, value)], self.clock.now_ms())
        if decision is not None:
            self._submit([decision])

    # -- what else happens to runs ------------------------------------------------------------------------------------

    def uses(self, version_id: str) -> bool:
        """Whether a run in memory may still reach this version."""
        return any(version_id in live.created.manifest.values() for live in self.live.values())

    def stop(self) -> None:
        """Lets go of every run without recording anything."""
        self._stopping = True
        for live in self.by_number.values():
            if live.isolate is not None:
                live.isolate.channel.send(messages.RunStop(live.number, "the node stops"))

    def isolate_lost(self, isolate: Isolate, cause: str, *, crashed: bool) -> None:
        """The process of these runs has gone. After a crash of unknown culprit each gets an isolate of its own."""
        lost = self._by_isolate.pop(isolate, set())
        if self._stopping:
            return
        now_ms = self.clock.now_ms()
        decisions = []
        for live in lost:
            self.by_number.pop(live.number, None)
            live.isolate, live.place = None, Place.IDLE
            isolate.end()
            self.dispatcher.left(live.workflow, solo=live.solo)
            self.counters.runs_interrupted += 1
            decision = self._decide(live, [i.Interrupted(cause)], now_ms)
            live.careful = True
            live.solo = live.solo or crashed
            live.state.requested.clear()
            if decision is not None:
                decisions.append(decision)
        if decisions:
            self._submit(decisions)

    def _fire(self, live: LiveRun) -> None:
        decision = self._decide(live, [i.TimerFired()], self.clock.now_ms())
        if decision is not None:
            self._submit([decision])
        elif (due := live.state.next_due()) is not None and live.place is not Place.IDLE:
            self.timers.arm(live, due)
        else:
            self._rest(live)

    async def _wake(self, rows: list[InstanceRow]) -> None:
        loaded = await asyncio.gather(*(self.load((row.workflow, row.instance_id)) for row in rows))
        for live in loaded:
            if live is not None and self.live.get(live.key) is live:  # one that has left again is due again
                self._fire(live)

    def _timers_failed(self, error: Exception) -> None:
        self.log.error("timers could not be read", error=str(error))


def _blob_of(data: bytes) -> e.BlobRef | None:
    entry = e.decode(data)
    value: Any = None
    if isinstance(entry, e.StepSucceeded):
        value = entry.value
    elif isinstance(entry, e.Created):
        value = entry.params
    elif isinstance(entry, e.WaitCompleted):
        value = entry.payload
    return value if isinstance(value, e.BlobRef) else None
