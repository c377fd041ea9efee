"""What the control plane needs of the rest of the node: small Protocols, so that HTTP is tested without a node.

The real ones are ``node/deployment/deployments.py``, ``node/workflow/engine.py`` and a ``store``; the composition
root hands them over as one ``Ports``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stellwerk.core.deployment.manifest import Manifest, WorkflowBinding
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.core.workflow.status import Status
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.telemetry.log import LogSink
from stellwerk.node.telemetry.metrics import Counters, Gauges
from stellwerk.store.base import DeploymentRow, InstanceRow, StoredRun, VersionRow


class Deployments(Protocol):
    """What serves, and how it changes."""

    async def upload(
        self, manifest: Manifest, files: Mapping[str, bytes], *, source: str, message: str = ""
    ) -> LoadedVersion:
        """Makes a version; the same upload again is the same version. Serves nothing yet."""

    async def deploy(self, worker: str, version_id: str, *, source: str, message: str = "") -> None:
        """Lets the version serve; returns once it does."""

    async def remove(self, worker: str) -> None:
        """Takes the Worker out of service."""

    def serving(self, worker: str) -> LoadedVersion | None: ...

    def workers(self) -> Sequence[LoadedVersion]:
        """What serves, ordered by name."""

    def workflows(self) -> Sequence[tuple[LoadedVersion, WorkflowBinding]]: ...

    def workflow(self, name: str) -> tuple[LoadedVersion, WorkflowBinding]:
        """Raises ``WorkflowNotFoundError``, naming the nearest."""


class InstanceStatus(Protocol):
    """How an instance stands."""

    @property
    def status(self) -> Status: ...
    @property
    def output(self) -> bytes | None: ...
    @property
    def error(self) -> ErrorValue | None: ...


class Engine(Protocol):
    """Runs of workflows. Every method returns once what it did is on disk."""

    async def create(self, workflow: str, *, instance_id: str | None, params: bytes, trigger: str) -> str: ...

    async def create_batch(
        self, workflow: str, items: list[tuple[str | None, bytes]], *, trigger: str
    ) -> list[str]: ...

    async def status(self, workflow: str, instance_id: str) -> InstanceStatus: ...

    async def wait(self, workflow: str, instance_id: str, *, timeout_ms: int) -> InstanceStatus:
        """The status once the run has ended, or after ``timeout_ms``, whatever it is then."""

    async def terminate(self, workflow: str, instance_id: str, *, trigger: str) -> None: ...

    async def resume(self, workflow: str, instance_id: str) -> None: ...

    async def send_event(self, workflow: str, instance_id: str, event_type: str, payload: bytes) -> None: ...

    async def describe(self, workflow: str, instance_id: str) -> StoredRun: ...


class Records(Protocol):
    """The part of a ``Store`` that the control plane reads."""

    @property
    def settings(self) -> dict[str, str | int]: ...

    @property
    def commits(self) -> int: ...

    async def instances(
        self, account_id: str, workflow: str, *, status: Status | None = None, limit: int = 50, cursor: str = ""
    ) -> tuple[list[InstanceRow], str]: ...

    async def status_counts(self, account_id: str) -> dict[tuple[str, Status], int]: ...

    async def blobs(self, account_id: str, hashes: Sequence[str]) -> dict[str, bytes]: ...

    async def version(self, version_id: str) -> VersionRow | None: ...

    async def versions(self, account_id: str, worker: str) -> list[VersionRow]: ...

    async def deployments(self, account_id: str, worker: str) -> list[DeploymentRow]: ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Ports:
    """Everything the control plane is given."""

    deployments: Deployments
    engine: Engine
    store: Records
    log: LogSink
    counters: Counters
    gauges: Gauges
    now_ms: Callable[[], int]
    token: str
    ready: Callable[[], bool]
    """Whether the store is open, unfinished runs are taken up, and the ingress listens."""

    system: Callable[[], dict[str, Any]]
    """Facts that only the composition root knows, for ``/v1/system``: addresses, isolation level, state folder."""
