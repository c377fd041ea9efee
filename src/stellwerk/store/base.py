"""What a store does, in domain types. Back ends are siblings and run the same suite (``tests/conformance/store``).

Writing is *group commit*: a decision is handed over with ``submit``, many decisions share one transaction and one
fsync, and ``done`` is called on the event loop once they are on disk, or have failed. Nothing is acknowledged before.
A decision that violates a constraint fails alone; when the commit itself fails, every decision of its group fails,
and its owner drops its copy and reads again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from stellwerk.core.workflow.status import Status

Done = Callable[[Exception | None], None]


# -- workflow ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class InstanceRow:
    """One instance as its index row shows it; everything in it can be derived from the journal."""

    account_id: str
    workflow: str
    instance_id: str
    incarnation: int
    status: Status
    worker: str
    version_id: str
    class_name: str
    created_at: int
    modified_at: int
    started_at: int | None = None
    ended_at: int | None = None
    wake_at: int | None = None  # when a waiting run has to be taken up; None: not by time
    owner: str = ""  # the node that holds the run
    epoch: int = 0  # fencing number of that holder
    lease_expires_at: int | None = None
    versions: tuple[str, ...] = ()  # version ids that the run manifest names; () at create: ``version_id`` alone


JournalRow = tuple[str, str, str, int, int, int, bytes]
"""(account_id, workflow, instance_id, incarnation, seq, at, entry bytes). A plain tuple: it is bound as it is."""

InstanceUpdate = tuple[str, int, int | None, int | None, int | None, str, str, str, int]
"""(status, modified_at, started_at, ended_at, wake_at, account_id, workflow, instance_id, incarnation).
``started_at`` None leaves the stored one. Bound as it is."""


class Decision(msgspec.Struct):
    """The writes of one decision: all or nothing. A struct, because a node makes one per step."""

    journal: list[JournalRow] = []
    create: InstanceRow | None = None  # fails with InstanceExistsError when the id is taken
    update: InstanceUpdate | None = None
    blobs: list[tuple[str, str, bytes]] = []  # (account_id, sha256, data)
    done: Done | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class StoredRun:
    """An instance with its whole journal, as taken up by its owner."""

    row: InstanceRow
    journal: list[bytes]


class WorkflowRoom(Protocol):
    """Instances and their journals."""

    def submit(self, decisions: Sequence[Decision]) -> None:
        """Joins the current group. Returns at once; each decision's ``done`` tells. Raises ``CapacityError`` when
        more than ``WRITES_WAITING_MAX`` decisions wait. From the event loop only."""

    async def load_run(self, account_id: str, workflow: str, instance_id: str) -> StoredRun | None:
        """The newest incarnation with its journal in order, or None."""

    async def instance(self, account_id: str, workflow: str, instance_id: str) -> InstanceRow | None: ...

    async def instances(
        self, account_id: str, workflow: str, *, status: Status | None = None, limit: int = 50, cursor: str = ""
    ) -> tuple[list[InstanceRow], str]:
        """Newest first, and the cursor of the next page ("" at the end)."""

    async def unfinished(self, *, limit: int, cursor: str = "") -> tuple[list[InstanceRow], str]:
        """Instances in ``queued``, ``running`` or ``waitingForPause``, in no order that says anything, and the cursor
        of the next page ("" at the end)."""

    async def due(self, *, now_ms: int, limit: int) -> list[InstanceRow]:
        """Waiting instances whose ``wake_at`` has come, the earliest first."""

    async def next_wake_at(self) -> int | None:
        """The earliest ``wake_at`` of a waiting instance."""

    async def status_counts(self, account_id: str) -> dict[tuple[str, Status], int]:
        """(workflow, status) -> number of instances."""

    async def unfinished_on(self, version_id: str) -> int:
        """How many unfinished runs have this version in their manifest, sleeping ones included."""

    async def live_versions(self) -> set[str]:
        """Versions that an unfinished run's manifest names: they must stay loadable (their drain list is not empty)."""

    async def blobs(self, account_id: str, hashes: Sequence[str]) -> dict[str, bytes]: ...


# -- deployment -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class VersionRow:
    """An immutable version of a Worker. ``config`` is its manifest as JSON; ``bundle`` names its files by hash."""

    account_id: str
    worker: str
    version_id: str
    number: int  # 1, 2, ... per Worker
    created_at: int
    source: str  # dev, api, wrangler
    bundle: str  # sha256 over the files
    config: bytes
    config_hash: str  # sha256 over bundle and config: the same upload again is the same version
    message: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class DeploymentRow:
    """What serves: one or two versions of a Worker with their percentages."""

    account_id: str
    worker: str
    deployment_id: str
    created_at: int
    versions: tuple[tuple[str, float], ...]  # (version_id, percentage), adding up to 100
    source: str
    message: str = ""


class DeploymentRoom(Protocol):
    """Workers, their versions, and what is deployed. Every write returns once it is on disk."""

    async def add_version(self, row: VersionRow) -> VersionRow:
        """Stores the version; an equal ``config_hash`` of the same Worker returns the stored one instead.
        ``number`` in ``row`` is ignored: the store counts."""

    async def version(self, version_id: str) -> VersionRow | None: ...

    async def versions(self, account_id: str, worker: str) -> list[VersionRow]:
        """Newest first."""

    async def add_deployment(self, row: DeploymentRow) -> None: ...

    async def deployments(self, account_id: str, worker: str) -> list[DeploymentRow]:
        """Newest first; the first one serves."""

    async def current_deployments(self) -> list[DeploymentRow]:
        """The serving deployment of every Worker of every account."""

    async def remove_worker(self, account_id: str, worker: str) -> bool:
        """Takes the Worker out of service: its deployments go, versions stay while runs need them."""


class Store(WorkflowRoom, DeploymentRoom, Protocol):
    """Everything that survives a node."""

    @property
    def pending(self) -> bool:
        """Whether decisions wait for their commit."""

    @property
    def reading(self) -> bool:
        """Whether a thread of this process reads: then a busy event loop must give the GIL away once per turn."""

    @property
    def settings(self) -> dict[str, str | int]:
        """Durability settings as read back from the engine at the start, for ``/status`` and ``doctor``."""

    @property
    def commits(self) -> int:
        """Commits that reached the disk since the store was opened."""

    async def close(self) -> None:
        """Commits what waits, then closes. Closing twice is harmless."""
