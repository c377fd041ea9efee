"""The recorder: from inputs to a decision that joins the store's current group. Nothing is acted upon here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from stellwerk.core import limits
from stellwerk.core.errors import IllegalTransitionError, StellwerkError
from stellwerk.core.ids import AccountId
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow import inputs as i
from stellwerk.core.workflow.actions import Decision
from stellwerk.core.workflow.machine import advance
from stellwerk.node.clock import Clock
from stellwerk.node.workflow.counters import EngineCounters
from stellwerk.node.workflow.live import LiveRun
from stellwerk.store import base
from stellwerk.store.base import WorkflowRoom

Blobs = list[tuple[str, str, bytes]]
Recorded = Callable[[LiveRun, Decision, Exception | None], None]


class Recorder:
    """Decides and hands over to the store. ``recorded(live, decision, error)`` is called when it is on disk, or never
    will be; ``granted(live, decision)`` when a decision has grants and nothing to record."""

    def __init__(
        self,
        *,
        account_id: AccountId,
        store: WorkflowRoom,
        clock: Clock,
        counters: EngineCounters,
        recorded: Recorded,
        granted: Callable[[LiveRun, Decision], None],
    ) -> None:
        self._account_id, self._store, self._clock, self._counters = account_id, store, clock, counters
        self._recorded, self._granted = recorded, granted

    def prepare(self, live: LiveRun, batch: Sequence[Any], now_ms: int) -> base.Decision | None:
        """What inputs that arrived together lead to: one decision, one record. What the machine does not allow is
        counted and leads to nothing. None: there is nothing to record."""
        out = Decision()
        blobs: Blobs = []
        state = live.state
        for incoming in batch:
            try:
                advance(state, self._outsource(incoming, blobs), now_ms=now_ms, out=out)
            except IllegalTransitionError:
                self._counters.reports_refused += 1
        if not out.entries:
            self._granted(live, out)  # of attempts whose start is on disk already
            return None
        live.commits += 1
        done = partial(self._recorded, live, out)
        return base.Decision(live.rows(out.entries), None, live.index_update(now_ms, out.entries), blobs, done)

    def decide(self, live: LiveRun, incoming: Any) -> tuple[Decision, base.Decision | None]:
        """One input, whose refusal is the caller's to hear: raises what the machine raises."""
        out = Decision()
        blobs: Blobs = []
        now_ms = self._clock.now_ms()
        advance(live.state, self._outsource(incoming, blobs), now_ms=now_ms, out=out)
        if not out.entries:
            return out, None
        live.commits += 1
        return out, base.Decision(live.rows(out.entries), None, live.index_update(now_ms, out.entries), blobs)

    def submit(self, decisions: Sequence[base.Decision | None]) -> None:
        """Joins the current group. A store that takes no more is heard by every decision."""
        given = [decision for decision in decisions if decision is not None]
        if not given:
            return
        try:
            self._store.submit(given)
        except StellwerkError as error:
            for decision in given:
                assert decision.done is not None
                decision.done(error)

    def blob(self, value: bytes, blobs: Blobs) -> e.BlobRef:
        """A reference to ``value``, which is added to ``blobs``."""
        reference = e.BlobRef(hashlib.sha256(value).hexdigest(), len(value))
        blobs.append((self._account_id, reference.sha256, value))
        return reference

    def _outsource(self, incoming: Any, blobs: Blobs) -> Any:
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
