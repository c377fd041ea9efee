"""Who is heard first when an isolate says much at once, and that nothing of it is lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from stellwerk.core import limits
from stellwerk.core.workflow import inputs as i
from stellwerk.node.isolate.traffic import Traffic
from stellwerk.wire import isolate as messages


class ACall:
    """The node's side of a call; notes its answer."""

    def __init__(self, number: int, heard: list[Any]) -> None:
        self.number, self.heard = number, heard

    def answered(self, message: messages.RpcResult) -> None:
        self.heard.append(self.number)

    def lost(self, cause: str) -> None:
        self.heard.append(f"{self.number} lost")


class AnIsolate:
    """Notes whether it is read."""

    def __init__(self, reading: list[str]) -> None:
        self.channel = SimpleNamespace(
            pause_reading=lambda: reading.append("pause"), resume_reading=lambda: reading.append("resume")
        )

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass


class Busy:
    """Traffic of one isolate with so many calls of the node under way."""

    def __init__(self, calls: int) -> None:
        self.heard: list[Any] = []
        runs = SimpleNamespace(
            table=SimpleNamespace(at_work=lambda: True),
            reports=lambda isolate, batch: self.heard.append("reports"),
            isolate_lost=lambda isolate, cause, crashed: self.heard.append("lost"),
        )
        self.reading: list[str] = []
        isolate: Any = AnIsolate(self.reading)
        self.isolate = isolate
        given: Any = None
        engine: Any = SimpleNamespace(runs=runs)
        self.traffic = Traffic(given, given, engine)
        calls_made: list[Any] = [ACall(number, self.heard) for number in range(calls)]
        self.answers = [messages.RpcResult(self.traffic.open(self.isolate, call), b"") for call in calls_made]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_report_is_heard_before_the_answers_that_came_with_it_and_these_in_portions_and_in_order() -> None:
    async def main() -> None:
        busy = Busy(3 * limits.TURN_MESSAGES_MAX)
        busy.traffic.on_messages(busy.isolate, [*busy.answers, i.RunSettled(1, 0)])
        assert busy.heard == ["reports", *range(limits.TURN_MESSAGES_MAX)]
        busy.traffic.on_messages(busy.isolate, [i.RunSettled(1, 0)])
        assert busy.heard[-1] == "reports"
        await turns(4)
        assert [heard for heard in busy.heard if heard != "reports"] == list(range(len(busy.answers)))

    asyncio.run(main())


def test_a_few_messages_are_heard_at_once_as_they_came() -> None:
    async def main() -> None:
        busy = Busy(2)
        busy.traffic.on_messages(busy.isolate, [*busy.answers, i.RunSettled(1, 0)])
        assert busy.heard == [0, 1, "reports"]

    asyncio.run(main())


def test_what_an_isolate_said_before_its_end_is_heard_before_its_end() -> None:
    async def main() -> None:
        busy = Busy(20)
        busy.traffic.on_messages(busy.isolate, busy.answers)
        busy.traffic.on_lost(busy.isolate, "it crashed", True)
        await turns(4)
        assert busy.heard == [*range(20), "lost"]

    asyncio.run(main())


def test_an_isolate_that_says_more_than_the_node_handles_is_not_read_for_a_while() -> None:
    async def main() -> None:
        busy = Busy(limits.MESSAGES_WAITING_MAX + limits.TURN_MESSAGES_MAX)
        busy.traffic.on_messages(busy.isolate, busy.answers)
        assert busy.reading[-1] == "pause"
        await turns(2 * len(busy.answers) // limits.TURN_MESSAGES_MAX)
        assert busy.reading[-1] == "resume"
        assert busy.heard == list(range(len(busy.answers)))

    asyncio.run(main())
