"""The isolate's half of one run, on a wire whose other end is the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from stellwerk.core.workflow.actions import Completion
from stellwerk.isolate.host import IsolateHost
from stellwerk.isolate.invocation import Invocation
from stellwerk.isolate.logs import current
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.step import WorkflowStep
from stellwerk.wire import isolate as messages


class Wire:
    """A run without a node: what it says is kept, and what it is told is up to the test."""

    def __init__(
        self, program: Callable[[Any], Any], journal: list[bytes], *, careful: bool = False, unrecorded: bool = False
    ) -> None:
        self.said: list[Any] = []
        start = messages.RunStart(
            7, "orders", "Orders", "id", b"\x80", 1, journal, {}, 1_000, careful, unrecorded=unrecorded
        )
        self.run = Run(
            start, attempts=Attempts(), send=self.said.append, on_end=lambda run: None, keep_together=lambda: None,
            report_unhandled=lambda context: None, steps_max=100,
        )  # fmt: skip
        nothing: Any = SimpleNamespace(bindings=())
        step: Any = WorkflowStep(self.run)
        step.host = IsolateHost(nothing, nothing, nothing, frozenset(), lambda level, text, stack: None)

        async def run() -> Any:
            current.set(Invocation("id", instance="id", live=self.run))
            return await program(step)

        self.run.start(run)

    async def quiet(self) -> None:
        """Lets everything happen that does not wait for the test."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def hears(self, kind: type) -> Any:
        for _ in range(1_000):
            for message in self.said:
                if isinstance(message, kind):
                    self.said.remove(message)
                    return message
            await asyncio.sleep(0)
        raise AssertionError(f"no {kind.__name__} came: {self.said}")


def recorded(key: str, number: int = 1) -> messages.Deliver:
    return messages.Deliver(7, [Completion(key)], 2_000, number)


def a_step(step: Any, name: str, begun: list[str]) -> Any:
    @step.do(name)  # type: ignore[untyped-decorator]
    async def run() -> str:
        begun.append(name)
        return name

    return run
