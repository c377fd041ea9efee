"""Whatever happens to a run, in whatever order, honest or not: what the journal says stays true and is all there is."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.workflow.builders import ERROR, JOURNALLED, a_created, picture

from stellwerk.core import limits
from stellwerk.core.errors import ConflictError, IllegalTransitionError
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import ALLOWED, advance
from stellwerk.core.workflow.replay import ReplayCursor
from stellwerk.core.workflow.state import RunState, from_journal
from stellwerk.core.workflow.status import MOVES, Status
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, StepConfig

names = st.sampled_from("abcd")
attempts = st.integers(1, 4)
aheads = st.sampled_from([-1, -1, 0, 50])
configs = st.sampled_from(
    [None, StepConfig(0, 0, "constant"), StepConfig(2, 50, "linear"), StepConfig(1, "1 second", "exponential")]
)
types = st.sampled_from(["paid", "refunded"])
ENDED = (e.StepSucceeded, e.StepErrored, e.SleepCompleted, e.WaitCompleted, e.WaitTimedOut)


class Runs(RuleBasedStateMachine):
    """One run, its journal as bytes, and a model of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.sent: list[bytes] = []  # payloads of events that were taken
        self.statuses = [Status.QUEUED]
        self.journal: list[bytes] = []
        self.state = RunState()

    @initialize(steps_max=st.sampled_from([2, 50, 50, 50]))
    def created(self, steps_max: int) -> None:
        created = a_created(steps_max=steps_max)
        self.journal = [e.encode(created)]
        self.state = from_journal([created])

    # -- inputs -------------------------------------------------------------------------------------------------------

    def happens(self, incoming: Any) -> Decision | None:
        out = Decision()
        before = picture(self.state)
        allowed = self.state.status in ALLOWED[type(incoming)]
        try:
            advance(self.state, incoming, now_ms=self.now, out=out)
        except (IllegalTransitionError, ConflictError):
            assert not allowed
            assert picture(self.state) == before
            assert not (out.entries or out.completions or out.grants)
            return None
        assert allowed
        self.journal += [e.encode(entry) for entry in out.entries]
        if self.state.status is not self.statuses[-1]:
            assert self.state.status in MOVES[self.statuses[-1]]
            self.statuses.append(self.state.status)
        if self.state.solo:
            self._granted_alone(out)
        return out

    def _granted_alone(self, out: Decision) -> None:
        granted = {grant.key for grant in out.grants}
        begun = [
            entry for entry in out.entries
            if isinstance(entry, e.AttemptStarted) and entry.key in granted and not entry.nested
        ]  # fmt: skip
        running = [key for key, step in self.state.open.items() if step.running and not step.nested]
        if begun and not self.state.terminal:
            assert running == [begun[0].key]

    @rule(name=names, attempt=attempts, config=configs, nested=st.booleans(), ahead_ms=aheads)
    def step_done(self, name: str, attempt: int, config: StepConfig | None, nested: bool, ahead_ms: int) -> None:
        key = f"do:{name}-1"
        self.happens(i.StepDone(1, key, name, 1, attempt, self.now, b"\x01", config, nested, ahead_ms))

    @rule(
        name=names, attempt=attempts, config=configs, nested=st.booleans(), retryable=st.booleans(),
        delay_ms=st.none() | st.integers(0, 5_000),
    )  # fmt: skip
    def step_failed(self, name: str, attempt: int, config: Any, nested: bool, retryable: bool, delay_ms: Any) -> None:
        self.happens(
            i.StepFailed(1, f"do:{name}-1", name, 1, attempt, self.now, ERROR, retryable, delay_ms, config, nested)
        )

    @rule(name=names, attempt=attempts, config=configs, nested=st.booleans())
    def step_started(self, name: str, attempt: int, config: StepConfig | None, nested: bool) -> None:
        self.happens(i.StepStarted(1, f"do:{name}-1", name, 1, attempt, self.now, config, nested))

    @rule(name=names, attempt=attempts, config=configs, nested=st.booleans())
    def step_requested(self, name: str, attempt: int, config: StepConfig | None, nested: bool) -> None:
        self.happens(i.StepRequested(1, f"do:{name}-1", name, 1, attempt, config, nested))

    @precondition(lambda self: any(step.running for step in self.state.open.values()))
    @rule(data=st.data(), failed=st.booleans(), ahead_ms=aheads)
    def the_attempt_under_way_ends(self, data: st.DataObject, failed: bool, ahead_ms: int) -> None:
        running = [(key, step) for key, step in self.state.open.items() if step.running]
        key, step = data.draw(st.sampled_from(running))
        attempt = step.failures + 1
        if failed:
            self.happens(
                i.StepFailed(1, key, step.name, 1, attempt, self.now, ERROR, True, None, step.config, step.nested)
            )
        else:
            self.happens(
                i.StepDone(1, key, step.name, 1, attempt, self.now, b"\x02", step.config, step.nested, ahead_ms)
            )

    @rule(name=names, ms=st.integers(0, 10_000), hidden=st.booleans())
    def sleep_requested(self, name: str, ms: int, hidden: bool) -> None:
        self.happens(i.SleepRequested(1, f"sleep:{name}-1", name, 1, self.now + ms, hidden))

    @rule(name=names)
    def sleep_released(self, name: str) -> None:
        self.happens(i.SleepReleased(1, f"sleep:{name}-1"))

    @rule(name=names, event_type=types, timeout_ms=st.integers(1, 10_000))
    def wait_requested(self, name: str, event_type: str, timeout_ms: int) -> None:
        self.happens(i.WaitRequested(1, f"wait:{name}-1", name, 1, event_type, timeout_ms))

    @rule(event_type=types)
    def event_sent(self, event_type: str) -> None:
        payload = len(self.sent).to_bytes(2)
        if self.happens(i.EventSent(event_type, payload)) is not None:
            self.sent.append(payload)

    @rule(ms=st.integers(0, 10_000))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        due = self.state.next_due()
        out = self.happens(i.TimerFired())
        if out is not None and not self.state.requested:
            assert bool(out.entries) == (due is not None and due <= self.now)
            after = self.state.next_due()
            assert after is None or after > self.now

    @rule(heard=st.integers(0, 3))
    def settled(self, heard: int) -> None:
        self.happens(i.RunSettled(1, heard))

    @rule(node=st.booleans(), solo=st.booleans())
    def interrupted(self, node: bool, solo: bool) -> None:
        """A life ends, and the next one begins: perhaps alone in its isolate."""
        running = {key for key, step in self.state.open.items() if step.running}
        out = self.happens(i.Interrupted("gone", node))
        if out is None:
            return
        self.state.solo = solo
        self.state.requested.clear()
        told = {
            entry.key for entry in out.entries
            if isinstance(entry, e.AttemptInterrupted | e.AttemptFailed | e.StepErrored)
        }  # fmt: skip
        assert told == running
        assert not any(step.running for step in self.state.open.values())

    @rule()
    def diverged(self) -> None:
        self.happens(i.RunDiverged(1, "another path"))

    @precondition(lambda self: self.state.status is Status.PAUSED)
    @rule()
    def resumed(self) -> None:
        self.happens(i.Resume())

    @precondition(lambda self: len(self.journal) > 12)
    @rule(how=st.sampled_from([i.RunReturned(1, b"\xc0"), i.RunFailed(1, ERROR), i.Terminate("api"), i.Resume()]))
    def ends_or_not(self, how: Any) -> None:
        self.happens(how)

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def the_journal_says_all(self) -> None:
        rebuilt = from_journal(map(e.decode, self.journal))
        for slot in JOURNALLED:
            assert getattr(rebuilt, slot) == getattr(self.state, slot), slot

    @invariant()
    def the_clock_is_waited_for_or_not(self) -> None:
        state = self.state
        retries = [step.retry_at for key, step in state.open.items() if step.retry_at is not None]
        queued = {key for key, *_ in state.requested}
        waiting = [step for key, step in state.open.items() if step.retry_at is not None and key not in queued]
        assert (state.next_due() is None) == (not state.sleeps and not state.waits and not waiting)
        assert len(queued) == len(state.requested)
        assert not queued & state.finished
        assert len(retries) >= len(waiting)

    @invariant()
    def each_result_is_recorded_once_and_delivered_in_one_group(self) -> None:
        entries = [e.decode(data) for data in self.journal]
        ended = [entry for entry in entries if isinstance(entry, ENDED)]
        assert len({entry.key for entry in ended}) == len(ended)
        deliveries = [entry.delivery for entry in ended if entry.delivery]
        assert deliveries == sorted(deliveries)
        assert self.state.deliveries == max(deliveries, default=0)
        cursor = ReplayCursor(entries)
        handed_over = [completion.key for group in cursor.groups for completion in group.completions]
        assert handed_over == [entry.key for entry in ended if entry.delivery]
        assert [group.number for group in cursor.groups] == sorted(set(deliveries))
        assert set(cursor.results) | cursor.cancelled == self.state.finished

    @invariant()
    def no_step_has_more_attempts_than_its_configuration_allows(self) -> None:
        failures: dict[str, list[int]] = {}
        config: dict[str, StepConfig] = {}
        for data in self.journal:
            entry = e.decode(data)
            if isinstance(entry, e.AttemptStarted | e.AttemptFailed | e.StepErrored | e.StepSucceeded):
                config.setdefault(entry.key, entry.config or DEFAULT_CONFIG)
                assert entry.attempt == len(failures.get(entry.key, ())) + 1
                assert entry.attempt <= config[entry.key].retries + 1
            if isinstance(entry, e.AttemptFailed):
                failures.setdefault(entry.key, []).append(entry.attempt)
        assert all(found == [*range(1, len(found) + 1)] for found in failures.values())

    @invariant()
    def each_event_is_kept_or_was_taken_once(self) -> None:
        taken = [entry.payload for data in self.journal if isinstance(entry := e.decode(data), e.WaitCompleted)]
        kept = [payload for queue in self.state.events.values() for _, payload in queue]
        assert sorted(taken + kept, key=repr) == sorted(self.sent, key=repr)
        assert self.state.events_count == len(kept) <= limits.EVENTS_BUFFERED_MAX
        waiting = {wait.event_type for wait in self.state.waits.values()}
        assert not waiting & set(self.state.events)

    @invariant()
    def a_run_that_has_ended_holds_nothing_open(self) -> None:
        state = self.state
        if state.terminal:
            assert not (state.open or state.sleeps or state.waits or state.requested)
            assert state.ended_at is not None
            assert self.statuses[-1] is state.status


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
