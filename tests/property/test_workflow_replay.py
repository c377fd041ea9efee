"""Random programs of steps, sleeps, events, races and time-outs: a replay takes the path that the journal shows.

Two properties. A journal that is complete but for its end gives, when it is replayed, the same end, and no step begins.
And wherever a crash falls, the next life ends, keeps every recorded result, and begins no step that had ended; what a
race or a time-out had not decided yet it may decide otherwise, and then that is what later lives replay.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.isolate_workflow.little_node import End, Mark, a_life

from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.state import from_journal
from stellwerk.core.workflow.status import Status


@dataclass(frozen=True)
class Step:
    name: str
    turns: int
    failures: int


@dataclass(frozen=True)
class Nested:
    name: str
    inner: tuple[Step, ...]


@dataclass(frozen=True)
class Sleep:
    name: str
    ms: int
    hidden: bool


@dataclass(frozen=True)
class Wait:
    event_type: str


@dataclass(frozen=True)
class Series:
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Together:
    parts: tuple[Any, ...]
    how: str  # gather, first, as_completed, group


@dataclass(frozen=True)
class Within:
    part: Any
    hours: int


steps = st.builds(Step, st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 2, 9]))
sleeps = st.builds(Sleep, st.sampled_from("xy"), st.sampled_from([0, 10, 5_000, 10_000_000]), st.booleans())
leaves = (
    steps | steps | st.builds(Nested, st.just("n"), st.tuples(steps, steps)) | sleeps
    | st.builds(Wait, st.sampled_from(["paid", "sent"]))
)  # fmt: skip
programs = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Series, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(
            Together,
            st.lists(inner, min_size=2, max_size=3).map(tuple),
            st.sampled_from(["gather", "first", "as_completed", "group"]),
        )
        | st.builds(Within, inner, st.sampled_from([1, 2]))
    ),
    max_leaves=8,
)
CONFIG = {"retries": {"limit": 2, "delay": "1 minute", "backoff": "constant"}}
NESTED = {"retries": {"limit": 2, "delay": 1, "backoff": "constant"}}  # the clock jumps for settled programs only


async def perform(step: Any, plan: Any) -> Any:
    """A plan as a program; what it answers tells the path it took."""
    match plan:
        case Step(name, turns, failures):
            return await _step(step, name, turns, failures)
        case Nested(name, inner):

            @step.do(name)
            async def outer() -> Any:
                return [await _step(step, part.name, part.turns, part.failures, NESTED) for part in inner]

            return await outer()
        case Sleep(name, ms, hidden):
            await (asyncio.sleep(ms / 1000) if hidden else step.sleep(name, ms))  # bounded: the clock jumps
            return name
        case Wait(event_type):
            try:
                return (await step.wait_for_event("wait", event_type, timeout="90 minutes")).payload
            except Exception as error:
                return type(error).__name__
        case Series(parts):
            return [await perform(step, part) for part in parts]
        case Together(parts, how):
            return await _together(step, parts, how)
        case Within(part, hours):
            try:
                async with asyncio.timeout(hours * 3600):
                    return await perform(step, part)
            except TimeoutError:
                return "timed out"


async def _step(step: Any, name: str, turns: int, failures: int, config: Any = CONFIG) -> Any:
    @step.do(name, config=config)
    async def run(ctx: Any) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        if ctx.attempt <= failures:
            raise ValueError(f"attempt {ctx.attempt}")
        return f"{name} after {ctx.attempt}"

    try:
        return await run()
    except ValueError as error:
        return str(error)


async def _together(step: Any, parts: tuple[Any, ...], how: str) -> Any:
    work = [asyncio.ensure_future(perform(step, part)) for part in parts]
    if how == "first":
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        return [[task in done for task in work], [task.result() for task in work if task in done]]
    if how == "as_completed":
        return [await task for task in asyncio.as_completed(work)]
    if how == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(perform(step, part)) for part in parts[:1]]
        return [await task for task in (*tasks, *work)]
    return await asyncio.gather(*work)


def ends(plan: Any, **options: Any) -> End:
    async def program(step: Any) -> Any:
        return await perform(step, plan)

    return a_life(program, events=EVENTS, **options)


EVENTS = [("paid", 1), ("sent", 2), ("paid", 3)]
lost = st.sampled_from(["node", "isolate"])


@dataclass(frozen=True)
class Crash:
    where: float  # between the first decision of the life and its last but one
    lost: str
    solo: bool
    one_by_one: bool


crashes = st.builds(Crash, st.floats(0, 1, exclude_max=True), lost, st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(plan=programs, one_by_one=st.booleans(), lost=lost)
def test_a_journal_that_is_complete_but_for_its_end_gives_the_same_end(plan: Any, one_by_one: bool, lost: str) -> None:
    first = ends(plan, one_by_one=one_by_one)
    assert first.status is Status.COMPLETE, (first.state.error, first.state.reason)
    assert first.unhandled == []
    before_the_end = first.marks[-2] if len(first.marks) > 1 else Mark(1, 0)
    journal = first.journal[: before_the_end.entries]
    again = ends(plan, journal=journal, events_sent=before_the_end.events, lost=lost)
    assert again.status is Status.COMPLETE, again.state.reason
    ended = {entry.key for data in journal if isinstance(entry := e.decode(data), e.StepSucceeded | e.StepErrored)}
    assert not ended & {key for key, _ in again.begun}
    if first.journal[before_the_end.entries :] == first.journal[-1:]:  # nothing but the end was missing
        assert again.output == first.output


@settings(max_examples=60, deadline=None)
@given(plan=programs, crashes=st.lists(crashes, min_size=1, max_size=3))
def test_wherever_a_crash_falls_the_next_lives_agree(plan: Any, crashes: list[Crash]) -> None:
    life = ends(plan, one_by_one=crashes[0].one_by_one)
    for crash in crashes:
        if len(life.marks) < 2:
            return
        mark = life.marks[int(crash.where * (len(life.marks) - 1))]
        journal = life.journal[: mark.entries]
        waiting = from_journal(map(e.decode, journal)).status is Status.WAITING
        how = "" if waiting and crash.lost == "node" else crash.lost
        before, earlier = life, life.marks
        life = ends(
            plan, journal=journal, events_sent=mark.events, lost=how, solo=crash.solo and how != "",
            one_by_one=crash.one_by_one,
        )  # fmt: skip
        assert life.status is Status.COMPLETE, (life.state.error, life.state.reason)
        assert life.journal[: len(journal)] == journal
        ended = {key: value for key, value in before.results.items() if key in _ended(journal)}
        assert {key: life.results[key] for key in ended} == ended
        assert not set(ended) & {key for key, _ in life.begun}
        life.marks[:0] = [kept for kept in earlier if kept.entries <= mark.entries]


def _ended(journal: list[bytes]) -> set[str]:
    return {entry.key for data in journal if isinstance(entry := e.decode(data), e.StepSucceeded | e.StepErrored)}
