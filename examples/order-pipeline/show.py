"""What the demo shows: a live table in a terminal, plain lines elsewhere, and the result at the end."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from demo import Demo
    from reconcile import Report

LINE_EVERY_S = 1.0


class Progress:
    """Shows how far the demo is, as often as it is told to."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.update(force=True)
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        self._console.print(f"{self._demo.seconds():5.1f} s  {text}", soft_wrap=True)

    def update(self, *, force: bool = False) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif force or time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.note("  ".join(f"{name} {value}" for name, value in self._figures().items()))

    def _figures(self) -> dict[str, int]:
        statuses = Counter(self._demo.statuses.values())
        named = {name: statuses[name] for name in ("queued", "running", "waiting", "complete", "errored")}
        return {"answered": len(self._demo.answers), **named, "repeated posts": self._demo.shop.repeats}

    def _table(self) -> Table:
        table = Table(title=f"{self._demo.seconds():.0f} s")
        figures = self._figures()
        for name in figures:
            table.add_column(name, justify="right")
        table.add_row(*map(str, figures.values()))
        return table


def show_report(demo: Demo, report: Report) -> None:
    """The table of outcomes and the figures."""
    console = Console(highlight=False)
    table = Table(title="What became of the orders")
    table.add_column("outcome")
    table.add_column("orders", justify="right")
    for outcome, count in sorted(report.outcomes.items(), key=lambda item: -item[1]):
        table.add_row(outcome, str(count))
    console.print(table)
    recovery = ", ".join(f"{seconds:.1f} s" for seconds in demo.recoveries_s)
    console.print(
        f"{len(demo.lines)} posts ({demo.shop.repeats} repeated), {len(demo.statuses)} runs, {demo.steps} steps, "
        f"{len(demo.recoveries_s)} kills, ready again after {recovery}; {demo.seconds():.0f} s in all.",
        soft_wrap=True,
    )
