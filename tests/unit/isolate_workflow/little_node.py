"""A node in one object: the real machine, a journal of real bytes, the real isolate half, and no process between them.

``LittleNode`` does what ``node/workflow/runs.py`` does, in the same order: what a program reports in one turn of the
loop becomes one decision, which is recorded as a whole and then acted upon. Its clock is the machine's own, except
that it jumps to the next due time once the program has settled, so that a sleep of a year takes no time.

``drive`` runs a program to its end and then, for every decision of that run, once more from the journal as it stood
then: after the end of the node, after the end of the isolate, and, where the run waited, after it had been parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stellwerk.core.errors import IllegalTransitionError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import advance
from stellwerk.core.workflow.state import RunState, from_journal
from stellwerk.core.workflow.status import Status
from stellwerk.isolate.workflow.attempts import Attempts, now_ms
from stellwerk.isolate.workflow.calls import StepCall
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.step import ListedWorkflowStep, WorkflowStep
from stellwerk.wire import isolate as messages
from stellwerk.wire import values

DEADLINE_S = 10
STEPS_MAX = 10_000

Program = Callable[[Any], Coroutine[Any, Any, Any]]
Ended = e.StepSucceeded | e.StepErrored


class WatchedAttempts(Attempts):
    """Notes which attempts began."""

    def __init__(self, begun: list[tuple[str, int]]) -> None:
        super().__init__()
        self.begun = begun

    def begin(self, call: StepCall, attempt: int) -> None:
        self.begun.append((call.key, attempt))
        super().begin(call, attempt)


@dataclass(slots=True)
class Mark:
    """Where a crash may fall: after a decision."""

    entries: int
    events: int


@dataclass(slots=True, kw_only=True)
class End:
    """What became of a run, or of one life of it."""

    state: RunState
    journal: list[bytes]
    marks: list[Mark]
    begun: list[tuple[str, int]]
    reports: list[Any]
    unhandled: list[dict[str, Any]]
    decisions: list[Decision]

    @property
    def status(self) -> Status:
        return self.state.status

    @property
    def entries(self) -> list[e.AnyEntry]:
        return [e.decode(data) for data in self.journal]

    @property
    def output(self) -> Any:
        assert isinstance(self.state.output, bytes), (self.state.status, self.state.error, self.state.reason)
        return values.decode(self.state.output)

    @property
    def error(self) -> e.ErrorValue:
        assert self.state.error is not None, self.state.status
        return self.state.error

    @property
    def results(self) -> dict[str, Any]:
        """What is recorded of steps that ended: key -> value or error."""
        ended = [entry for entry in self.entries if isinstance(entry, Ended)]
        assert len({entry.key for entry in ended}) == len(ended), "a result was recorded twice"
        return {entry.key: entry.value if isinstance(entry, e.StepSucceeded) else entry.error.name for entry in ended}

    def of(self, *kinds: type) -> list[Any]:
        return [entry for entry in self.entries if isinstance(entry, kinds)]


def a_journal(*entries: e.AnyEntry, at: int = 0, steps_max: int = STEPS_MAX) -> list[bytes]:
    created = e.Created(at or now_ms(), values.encode({}), "orders", "v1", "Orders", "api", {}, steps_max)
    return [e.encode(entry) for entry in (created, *entries)]


@dataclass(kw_only=True)
class LittleNode:
    """Drives one life of one run. ``events`` are sent one by one, each when the program has settled, or before it
    starts when ``early``. ``one_by_one``: each report is a decision of its own. ``frozen``: the clock never jumps."""

    program: Program
    journal: list[bytes]
    events: Sequence[tuple[str, Any]] = ()
    events_sent: int = 0
    early: bool = False
    one_by_one: bool = False
    careful: bool = False
    solo: bool = False
    unrecorded: bool = False  # the program starts while its run is being written; recorded when it has settled
    implicit: bool = True
    frozen: bool = False
    lost: str = ""  # what ended the life before this one: "node", "isolate" or nothing
    until: Callable[[LittleNode], bool] | None = None  # ends the life early
    ahead: int = field(init=False)  # how far the clock has jumped
    state: RunState = field(init=False)
    run: Run | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.journal = list(self.journal)
        self.state = from_journal(map(e.decode, self.journal))
        self.ahead = max(0, e.decode(self.journal[-1]).at - now_ms())  # a clock does not go back
        self.inbox: list[Any] = []
        self.marks: list[Mark] = []
        self.begun: list[tuple[str, int]] = []
        self.reports: list[Any] = []
        self.decisions: list[Decision] = []
        self.unhandled: list[dict[str, Any]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.failure: BaseException | None = None

    # -- one life -----------------------------------------------------------------------------------------------------

    async def live(self) -> End:
        self.loop = asyncio.get_running_loop()
        self.over = self.loop.create_future()
        if self.lost and len(self.journal) > 1 and self.state.status is not Status.WAITING:
            self._decide([i.Interrupted(f"the {self.lost} ended", node=self.lost == "node")])
            self.careful = True
        while self.early and self.events_sent < len(self.events):
            self._send_event()
        if not self.state.terminal:
            self.loop.call_soon(self._guarded, self._start)
            await asyncio.wait_for(self.over, DEADLINE_S)
        if self.run is not None:
            self.run.stop()
        if self.timer is not None:
            self.timer.cancel()
        await asyncio.sleep(0)
        return End(
            state=self.state, journal=self.journal, marks=self.marks, begun=self.begun, reports=self.reports,
            unhandled=self.unhandled, decisions=self.decisions,
        )  # fmt: skip

    @property
    def now(self) -> int:
        return now_ms() + self.ahead

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """An exception that reached the isolate's channel would end it, and its neighbours: it fails the test."""
        try:
            act(*args)
        except BaseException as error:
            if not self.over.done():
                self.over.set_exception(error)

    def _start(self) -> None:
        created = self.state.created
        assert created is not None and isinstance(created.params, bytes)
        start = messages.RunStart(
            1, "orders", "Orders", "order-1", created.params, created.at, list(self.journal), {}, self.now,
            self.careful or self.solo, unrecorded=self.unrecorded,
        )  # fmt: skip
        self.state.solo = self.solo
        self.run = Run(
            _sent(start),
            attempts=WatchedAttempts(self.begun),
            send=self._received,
            keep_together=lambda: None,
            on_end=lambda run: None,
            report_unhandled=self.unhandled.append,
            steps_max=created.steps_max,
        )
        step = (WorkflowStep if self.implicit else ListedWorkflowStep)(self.run)
        self._arm()
        self.run.start(lambda: self.program(step))
        if self.unrecorded:
            assert not self.begun, "a step began before its run was on disk"
            self.loop.call_soon(self._guarded, self.run.recorded)

    # -- what the isolate says ----------------------------------------------------------------------------------------

    def _received(self, report: Any) -> None:
        if not self.inbox:
            self.loop.call_soon(self._guarded, self._pump)
        self.inbox.append(_sent(report))

    def _pump(self) -> None:
        if self.over.done():
            return
        batch, self.inbox = self.inbox, []
        self.reports += batch
        for part in [[report] for report in batch] if self.one_by_one else [batch]:
            self._act(self._decide(part))
        if not self.over.done() and any(isinstance(report, i.RunSettled) for report in batch):
            self._settled()

    def _settled(self) -> None:
        while self.events_sent < len(self.events):
            sent = self._send_event()
            self._act(sent)
            if sent.completions:
                return
        if not self.frozen and (due := self.state.next_due()) is not None:
            self.ahead = max(self.ahead, due - now_ms())
            self._fire()

    def _send_event(self) -> Decision:
        event_type, payload = self.events[self.events_sent]
        self.events_sent += 1
        return self._decide([i.EventSent(event_type, values.encode(payload))])

    def _fire(self) -> None:
        self.timer = None
        if not self.over.done():
            self._act(self._decide([i.TimerFired()]))

    def _arm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        due = self.state.next_due()
        if due is not None and not self.state.terminal:
            self.timer = self.loop.call_later(max(0, due - self.now) / 1000, self._guarded, self._fire)

    # -- read, decide, record, act ------------------------------------------------------------------------------------

    def _decide(self, batch: Iterable[Any]) -> Decision:
        out = Decision()
        for incoming in batch:
            try:
                advance(self.state, incoming, now_ms=self.now, out=out)
            except IllegalTransitionError:
                assert self.state.terminal or self.state.status is Status.PAUSED
        if out.entries:
            self.journal += [e.encode(entry) for entry in out.entries]
            self.marks.append(Mark(len(self.journal), self.events_sent))
        self.decisions.append(out)
        return out

    def _act(self, out: Decision) -> None:
        run = self.run
        assert run is not None
        if out.stop:
            run.stop()
            self.over.set_result(None)
            return
        if out.completions:
            run.deliver(_sent(messages.Deliver(1, out.completions, out.entries[-1].at, out.delivery)))
        for grant in out.grants:
            run.grant(_sent(messages.AttemptGranted(1, grant.key, grant.attempt)))
        self._arm()
        if self.until is not None and self.until(self) and not self.over.done():
            self.over.set_result(None)


def _sent(message: Any) -> Any:
    """As it comes out at the other end of the channel."""
    return messages.decode(messages.encode(message))


def live(program: Program, **options: Any) -> End:
    """One life of a run, from its journal or from the top."""
    with watched_garbage():
        return a_life(program, **options)


@contextlib.contextmanager
def watched_garbage() -> Iterator[None]:
    """What a forgotten run leaves behind shows at the end, as a warning, and in this test. What was there before is
    not looked at: a collection of all that a test process holds takes a third of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def a_life(program: Program, **options: Any) -> End:
    """As ``live``, without the collection at its end, for tests that live hundreds of them."""

    async def main() -> End:
        return await LittleNode(program=program, **{"journal": a_journal(), **options}).live()

    return asyncio.run(main())


def drive(program: Program, *, same_end: bool = True, **options: Any) -> End:
    """Runs to the end; then again, started while it is being written; then from every point where the node, or the
    isolate, may have crashed.

    Each of these lives has to come to the same end, with the same results where a result was recorded before, and
    without beginning a step again whose result was recorded. ``same_end`` False: the program may take another path.
    """
    with watched_garbage():
        return _drive(program, same_end, options)


def _drive(program: Program, same_end: bool, options: dict[str, Any]) -> End:
    first = a_life(program, **options)
    if not (options.get("careful") or options.get("solo") or "journal" in options):
        life = a_life(program, **options, unrecorded=True)
        _compare(first, life, life.journal[:1], "started while it is written", same_end)
    for mark in first.marks:
        journal = first.journal[: mark.entries]
        state = from_journal(map(e.decode, journal))
        kinds = ["", "isolate"] if state.status is Status.WAITING else ["node", "isolate"]
        for lost in kinds:
            again = {**options, "journal": journal, "events_sent": mark.events, "lost": lost}
            life = a_life(program, **again)
            where = f"after entry {mark.entries} ({e.decode(journal[-1])}), lost: {lost or 'nothing, parked'}"
            _compare(first, life, journal, where, same_end)
    return first


def _compare(first: End, life: End, journal: list[bytes], where: str, same_end: bool) -> None:
    assert life.journal[: len(journal)] == journal, where
    assert life.state.terminal, f"{where}: {life.status} {life.state.reason}"
    recorded = {entry.key for data in journal if isinstance(entry := e.decode(data), Ended)}
    run_again = recorded & {key for key, _ in life.begun}
    assert not run_again, f"{where}: {run_again} had ended and began again"
    results, first_results = life.results, first.results
    assert {key: results[key] for key in recorded} == {key: first_results[key] for key in recorded}, where
    rebuilt = from_journal(map(e.decode, life.journal))
    for slot in JOURNALLED:
        assert getattr(rebuilt, slot) == getattr(life.state, slot), f"{where}: {slot}"
    if same_end:
        assert life.status is first.status, f"{where}: {life.status} {life.state.error}"
        assert life.state.output == first.state.output, where
        assert _told(life.state.error) == _told(first.state.error), where
        assert results == first_results, where


def _told(error: e.ErrorValue | None) -> tuple[str, str] | None:
    return None if error is None else (error.name, error.message)


JOURNALLED = [slot for slot in RunState.__slots__ if slot not in ("solo", "requested")]
"""What of a state comes from the journal."""

__all__ = ["JOURNALLED", "End", "LittleNode", "Program", "a_journal", "a_life", "drive", "live"]
