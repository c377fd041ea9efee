"""Creation: new runs on their way to the disk, and into the hands of the dispatcher.

Nobody is told of a run before it is on disk. Its program may start before that, when an isolate is ready and the id was
made here: then nothing but the machine can refuse it. Its first steps, and whatever else would act outside, are held
back in the isolate until the run is recorded (``isolate/workflow/ahead.py``), so a run that never gets to the disk has
done nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from stellwerk.core import limits
from stellwerk.core.errors import InstanceExistsError
from stellwerk.node.workflow.live import LiveRun
from stellwerk.node.workflow.runs import Runs
from stellwerk.store import base
from stellwerk.wire import isolate as messages


@dataclass(frozen=True, slots=True)
class Draft:
    """A new instance that is not on disk yet. ``own_id``: its id was made here, so it is not taken."""

    live: LiveRun
    decision: base.Decision
    own_id: bool


class Creation:
    """Records new runs, and lets them begin."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def record(self, drafts: Sequence[Draft]) -> list[Exception | None]:
        """Returns when each is on disk or refused, with the errors, in order. Raises what the store refuses at once."""
        loop = asyncio.get_running_loop()
        recorded: asyncio.Future[None] = loop.create_future()
        errors: list[Exception | None] = [None] * len(drafts)
        waiting = dict(enumerate(drafts))

        def start_early() -> None:
            for draft in waiting.values():
                if draft.own_id:
                    self._start_early(draft.live)

        def done(index: int, error: Exception | None) -> None:
            del waiting[index]
            errors[index] = error
            if error is None:
                self._recorded(drafts[index].live)
            elif not isinstance(error, InstanceExistsError):
                self._not_recorded(drafts[index].live, error)
            if not waiting and not recorded.done():
                recorded.set_result(None)

        for index, draft in enumerate(drafts):
            draft.decision.done = lambda error, index=index: done(index, error)
        self._runs.store.submit([draft.decision for draft in drafts])
        loop.call_soon(start_early)  # not now: the process that writes would have to share its processor with it
        await recorded
        return errors

    def _start_early(self, live: LiveRun) -> None:
        if not isinstance(live.created.params, bytes):
            return  # they are read from the store first
        live.unrecorded, live.commits = True, 1
        self._runs.table.add(live)
        if not self._runs.dispatcher.start_early(live):
            live.unrecorded, live.commits = False, 0
            self._runs.table.forget(live)

    def _recorded(self, live: LiveRun) -> None:
        """Its turn may come. Past what memory should hold, only its name is kept."""
        runs = self._runs
        runs.counters.created += 1
        if live.unrecorded:
            live.unrecorded = False
            live.commits -= 1
            if live.isolate is not None:  # or it has gone, and the run is about to be given to another one
                live.isolate.channel.send(messages.RunRecorded(live.number))
        elif runs.dispatcher.queued >= limits.RUNS_LIVE_MAX:
            runs.dispatcher.enqueue(live.key)
        else:
            live.number = runs.table.next_number()
            runs.table.add(live)
            runs.dispatcher.enqueue(live)

    def _not_recorded(self, live: LiveRun, error: Exception) -> None:
        """It may be on disk all the same, and a repeat would hear that it is: so the store is asked in a moment."""
        if live.unrecorded:
            self._runs.drop(live, error)
        else:
            self._runs.dispatcher.look_again(live.key)
