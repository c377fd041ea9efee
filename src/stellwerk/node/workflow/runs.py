"""The owner of live runs: read, decide, record, act.

Every run that something happens to is in memory once (``table.py``). Inputs go through the pure machine, and what it
decides joins the store's current group (``recorder.py``); when that is on disk, and not before, the actions follow
here: completions go to the program, attempts are granted, a finished run is let go. A crash between record and act
loses nothing, because the next owner derives the actions again from what was recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from stellwerk.core import limits
from stellwerk.core.errors import StellwerkError
from stellwerk.core.ids import AccountId
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.state import from_journal
from stellwerk.core.workflow.status import TAKEN_UP, Status
from stellwerk.node.clock import Clock
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.workflow.counters import EngineCounters
from stellwerk.node.workflow.dispatcher import Dispatcher, Versions
from stellwerk.node.workflow.handover import Handover
from stellwerk.node.workflow.live import Key, LiveRun, Place
from stellwerk.node.workflow.recorder import Recorder
from stellwerk.node.workflow.table import LiveTable
from stellwerk.node.workflow.timers import Timers
from stellwerk.store.base import InstanceRow, WorkflowRoom
from stellwerk.wire import isolate as messages


class EventLog(Protocol):
    def warn(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


class Runs:
    """All runs of one account that this node holds."""

    def __init__(
        self, *, account_id: AccountId, store: WorkflowRoom, pool: Pool, versions: Versions, clock: Clock, log: EventLog
    ) -> None:
        self.account_id, self.store, self.clock, self.log = account_id, store, clock, log
        self.table = LiveTable()
        self.counters = EngineCounters()
        self.timers = Timers(
            clock, store, self._fire, self._wake, lambda error: log.error("timers could not be read", error=str(error))
        )
        self.recorder = Recorder(
            account_id=account_id, store=store, clock=clock, counters=self.counters,
            recorded=self._recorded, granted=self._send_grants,
        )  # fmt: skip
        self._handover = Handover(
            account_id=account_id, store=store, clock=clock, table=self.table, sent=self._taken_up, failed=self.drop
        )
        self.dispatcher = Dispatcher(
            pool, versions, load=self.load, wanted=self.table.holds, adopt=self.adopt,
            begin=self._handover.begin, give_up=self._give_up,
        )  # fmt: skip
        self._pool = pool
        self._started_at = clock.now_ms()
        self._loading: dict[Key, asyncio.Future[LiveRun | None]] = {}
        self._stopping = False

    async def stop(self) -> None:
        """Lets go of every run without recording anything: on disk they stay what they are."""
        self._stopping = True
        await self.timers.stop()
        await self.dispatcher.stop()
        await self._handover.stop()
        for live in self.table.by_number.values():
            if live.isolate is not None:
                live.isolate.channel.send(messages.RunStop(live.number, "the node stops"))

    # -- read ---------------------------------------------------------------------------------------------------------

    async def load(self, key: Key) -> LiveRun | None:
        """The owner's copy, from memory or from the store; None when there is no such instance.

        An unfinished run that is not in memory may have lost its isolate with the node before this one: it is an
        orphan, which ``adopt`` records when its turn has come.

        What is returned is *the* copy only until the caller awaits again: then it may have left memory. So a caller
        decides, or takes the run to an isolate, in the same turn.
        """
        while True:
            live = self.table.runs.get(key)
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
            number=self.table.next_number(),
            state=state,
            seq=len(stored.journal),
            written=stored.row.status,
            journal=list(stored.journal),
        )
        if state.terminal:
            return live
        self.table.add(live)
        interrupted = stored.row.modified_at < self._started_at or state.status is Status.RUNNING
        if state.status in TAKEN_UP and interrupted:
            live.careful = live.orphan = True
        return live

    async def adopt(self, live: LiveRun) -> None:
        """Records that the node before this one ended, and returns when that is on disk or never will be.

        A run that ends its node may do so before anything else of it can be recorded, even while its version is
        imported: so this comes first, and for each node that takes the run up. Those that only wait are not counted.
        """
        live.orphan = False
        self.counters.runs_interrupted += 1
        with suppress(StellwerkError):  # then its copy was dropped, and the run is read again
            await self.decide(live, i.Interrupted("the node ended", node=True), take_up=False)

    # -- decide, record -----------------------------------------------------------------------------------------------

    def reports(self, isolate: Isolate, batch: Sequence[Any]) -> None:
        """What one read of an isolate's channel brought about its runs. All of it joins the same group."""
        grouped: dict[LiveRun, list[Any]] = {}
        by_number = self.table.by_number
        for report in batch:
            live = by_number.get(report.run)
            if live is None or live.isolate is not isolate:
                continue  # a run that has left this isolate
            found = grouped.get(live)
            if found is None:
                grouped[live] = [report]
            else:
                found.append(report)
        prepare, now_ms = self.recorder.prepare, self.clock.now_ms()
        self.recorder.submit([prepare(live, reports, now_ms) for live, reports in grouped.items()])

    async def decide(self, live: LiveRun, incoming: Any, *, take_up: bool = True) -> None:
        """Decides on one input and returns when that is on disk. Raises what the machine or the store refuses.

        ``take_up`` False: the caller sees to it that the run gets an isolate.
        """
        out, decision = self.recorder.decide(live, incoming)
        if not take_up:
            out.take_up = False
        if decision is None:
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

        decision.done = done
        self.recorder.submit([decision])
        await recorded

    # -- act ----------------------------------------------------------------------------------------------------------

    def _recorded(self, live: LiveRun, out: Decision, error: Exception | None, *, keep: bool = False) -> None:
        """The decision is on disk, or it is not and never was."""
        live.commits -= 1
        if self.table.runs.get(live.key) is not live:
            return  # its copy was dropped meanwhile
        if error is not None:
            self.drop(live, error)
            return
        self.counters.count(out.entries)
        if out.stop:
            self._ended(live, out.stop)
            return
        if live.handed:
            if out.completions and live.isolate is not None:
                self._handover.deliver(
                    live, messages.Deliver(live.number, out.completions, out.entries[-1].at, out.delivery)
                )
            if out.grants:
                self._send_grants(live, out)
        elif live.place is Place.RUNNING:
            if not live.commits:
                self._handover.recorded(live)
        elif out.take_up and live.place is Place.IDLE:
            self.dispatcher.enqueue(live)
        state = live.state
        if state.sleeps or state.waits or state.open:
            self._set_timer(live)
        if not keep and live.place is Place.IDLE:
            self._rest(live)

    def _send_grants(self, live: LiveRun, out: Decision) -> None:
        if live.isolate is not None and live.handed:
            for grant in out.grants:
                live.isolate.channel.send(messages.AttemptGranted(live.number, grant.key, grant.attempt))

    def _taken_up(self, live: LiveRun) -> None:
        self.counters.taken_up += 1
        due = live.state.next_due()
        if due is not None:
            self.timers.arm(live, due)

    def _set_timer(self, live: LiveRun) -> None:
        """Arms the timer of a run that stays in memory; one that waits for long leaves it."""
        due = live.state.next_due()
        if live.state.status is Status.WAITING and live.handed and not live.commits:
            if not live.state.waits:
                self._park(live, live.number, live.seq)
                return
            asyncio.get_running_loop().call_later(  # an event may be just about to come
                limits.PARK_AFTER_MS / 1000, self._park, live, live.number, live.seq
            )
            if due is None or due > self.clock.now_ms() + limits.PARK_AFTER_MS:
                return
        if due is not None:
            self.timers.arm(live, due)

    def _park(self, live: LiveRun, number: int, seq: int) -> None:
        """Takes a waiting run out of memory, unless something has happened to it since. Its row says when it is due."""
        if live.number != number or live.seq != seq or not live.handed or live.commits:
            return
        self._leave_isolate(live, "parked")
        self.table.forget(live)
        self.timers.parked(live.state.next_due())

    def _rest(self, live: LiveRun) -> None:
        """A run that was in memory for one decision only leaves again."""
        if live.place is Place.IDLE and not live.commits and self.table.holds(live):
            self.table.forget(live)
            if live.state.status is Status.WAITING:
                self.timers.parked(live.state.next_due())

    def _ended(self, live: LiveRun, reason: str) -> None:
        if live.state.terminal:
            self.counters.ended += 1
        else:
            self.log.error("run paused", workflow=live.workflow, instance=live.instance_id, reason=live.state.reason)
        self._leave_isolate(live, "" if reason in ("complete", "errored") else reason)
        self.table.forget(live)
        self.table.ended(live)

    def _leave_isolate(self, live: LiveRun, reason: str) -> None:
        isolate = live.isolate
        if isolate is None:
            return
        if reason:
            isolate.channel.send(messages.RunStop(live.number, reason))
        self.table.leave(live)
        self._handover.recorded(live)
        isolate.end()
        if live.solo:
            self._pool.release_solo(isolate)
        self.dispatcher.left(live.workflow, solo=live.solo)

    def drop(self, live: LiveRun, error: Exception) -> None:
        """The store did not take a decision: the copy is wrong from here on. Drop it, and read again in a moment."""
        self.log.error(
            "a decision was not recorded", workflow=live.workflow, instance=live.instance_id, error=str(error)
        )
        self._leave_isolate(live, "its decision was not recorded")
        self.table.forget(live)
        self.dispatcher.look_again(live.key)

    # -- what else happens to runs ------------------------------------------------------------------------------------

    def _give_up(self, live: LiveRun, error: Exception) -> None:
        """Its version cannot be started: the run ends errored, with what stopped it."""
        value = e.ErrorValue(type(error).__name__, str(error))
        self.recorder.submit([self.recorder.prepare(live, [i.RunFailed(live.number, value)], self.clock.now_ms())])

    def isolate_lost(self, isolate: Isolate, cause: str, *, crashed: bool) -> None:
        """The process of these runs has gone. After a crash of unknown culprit each gets an isolate of its own."""
        lost = self.table.take_from(isolate)
        if self._stopping:
            return
        decisions = []
        for live in lost:
            self._handover.recorded(live)
            isolate.end()
            self.dispatcher.left(live.workflow, solo=live.solo)
            self.counters.runs_interrupted += 1
            decisions.append(self.recorder.prepare(live, [i.Interrupted(cause)], self.clock.now_ms()))
            live.careful = True
            live.solo = live.solo or crashed
            live.state.requested.clear()
        self.recorder.submit(decisions)

    def _fire(self, live: LiveRun) -> None:
        decision = self.recorder.prepare(live, [i.TimerFired()], self.clock.now_ms())
        if decision is not None:
            self.recorder.submit([decision])
        elif (due := live.state.next_due()) is not None and live.place is not Place.IDLE:
            self.timers.arm(live, due)
        else:
            self._rest(live)

    async def _wake(self, rows: list[InstanceRow]) -> None:
        loaded = await asyncio.gather(*(self.load((row.workflow, row.instance_id)) for row in rows))
        for live in loaded:
            if live is not None and self.table.holds(live):  # one that has left again is due again
                self._fire(live)
