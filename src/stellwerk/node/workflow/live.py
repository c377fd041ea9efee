"""A live run: the owner's copy of an instance, held in memory while something happens to it."""

from __future__ import annotations

from enum import Enum

from stellwerk.core import limits
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.state import RunState
from stellwerk.core.workflow.status import Status
from stellwerk.node.isolate.process import Isolate
from stellwerk.store.base import InstanceUpdate, JournalRow
from stellwerk.wire import isolate as messages

Key = tuple[str, str]
"""(workflow, instance id)"""


class Place(Enum):
    """Where a run is on its way through this node."""

    IDLE = 0  # in memory for a decision; leaves again when that is on disk
    QUEUED = 1  # waits for its turn
    STARTING = 2  # waits for an isolate
    RUNNING = 3  # its program is in an isolate


class LiveRun:
    """One incarnation of one instance, as this node drives it."""

    __slots__ = (
        "account_id", "careful", "commits", "created", "failed_starts", "handed", "held", "incarnation", "instance_id",
        "isolate", "journal", "key", "number", "orphan", "place", "seq", "solo", "state", "timer_at", "traceparent",
        "unrecorded", "workflow", "written",
    )  # fmt: skip

    def __init__(
        self,
        *,
        account_id: str,
        workflow: str,
        instance_id: str,
        incarnation: int,
        number: int,
        state: RunState,
        seq: int,
        written: Status,
        journal: list[bytes] | None,
    ) -> None:
        assert state.created is not None
        self.account_id, self.workflow, self.instance_id = account_id, workflow, instance_id
        self.key: Key = (workflow, instance_id)
        self.incarnation, self.number = incarnation, number
        self.state, self.seq = state, seq
        self.created: e.Created = state.created
        self.written = written  # the status that the index row shows
        self.journal = journal  # all entries so far, until they have gone to an isolate
        self.place = Place.IDLE
        self.isolate: Isolate | None = None
        self.handed = False  # the isolate has been sent the run: what is recorded from here on is delivered to it
        self.held: list[messages.Deliver] | None = None  # deliveries behind one whose values are still being read
        self.unrecorded = False  # its creation is on its way to the disk, and its program has been started
        self.careful = False  # its attempts are recorded before they begin
        self.orphan = False  # the node that had it has ended; recorded before anything is started for it
        self.solo = False  # it gets an isolate of its own
        self.failed_starts = 0
        self.commits = 0  # decisions on their way to the disk
        self.timer_at = 0  # when the timer that is set for it fires; 0: none
        self.traceparent = ""

    @property
    def version_id(self) -> str:
        return self.created.version_id

    @property
    def shown_status(self) -> Status:
        """``running`` as soon as an isolate has it; in the journal that stands only with the first result."""
        if self.state.status is Status.QUEUED and self.place is Place.RUNNING:
            return Status.RUNNING
        return self.state.status

    def rows(self, new: list[e.AnyEntry]) -> list[JournalRow]:
        """The journal rows of further entries; their numbers are used up."""
        account_id, workflow, instance_id, incarnation = (
            self.account_id, self.workflow, self.instance_id, self.incarnation,
        )  # fmt: skip
        seq, encode, journal = self.seq, e.encode, self.journal
        rows: list[JournalRow] = []
        for entry in new:
            data = encode(entry)
            if journal is not None:
                journal.append(data)
            rows.append((account_id, workflow, instance_id, incarnation, seq, entry.at, data))
            seq += 1
        self.seq = seq
        return rows

    def index_update(self, now_ms: int, entries: list[e.AnyEntry]) -> InstanceUpdate | None:
        """What the index row has to say after these entries, when that is something else than it says.

        A run that comes out of the queue is shown as ``running`` when that lasts: when an attempt does, or a second has
        passed. Most runs have ended by then, and are spared one of the two times that their row is written.
        """
        state = self.state
        status = state.status
        if status is self.written:
            return None
        if status is Status.RUNNING and self.written is Status.QUEUED:
            began = state.started_at or now_ms
            if now_ms - began < limits.RUNNING_SHOWN_AFTER_MS and type(entries[-1]) is not e.AttemptStarted:
                return None
        self.written = status
        wake_at = state.next_due() if status is Status.WAITING else None
        return (
            status.value, now_ms, state.started_at, state.ended_at, wake_at,
            self.account_id, self.workflow, self.instance_id, self.incarnation,
        )  # fmt: skip
