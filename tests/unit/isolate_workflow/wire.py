"""The isolate's half of one run, on a wire whose other end is the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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
        step = WorkflowStep(self.run)
        self.run.start(lambda: program(step))

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
