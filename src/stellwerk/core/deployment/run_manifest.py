"""What a run freezes at its start: the version of every Worker that it can reach through bindings.

The run manifest is the transitive closure over ``services`` and ``workflows`` bindings, each Worker once, so that all
parts of a run speak to the same version of a Worker for as long as the run lives. What is not reached through these
bindings (Durable Objects, consumers of queues, Workers dispatched by URL) is not frozen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.errors import WorkerNotFoundError
from stellwerk.core.ids import VersionId, WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundWorker:
    """A binding that leads to a Worker: its name in ``env``, and the key that says which Worker."""

    worker: WorkerName
    binding: str
    key: str


def bound_workers(manifest: Manifest) -> list[BoundWorker]:
    """Every binding of a Worker that leads to a Worker by name, as declared; also one that leads to itself."""
    found = [
        BoundWorker(worker=WorkerName(item.service), binding=item.binding, key=f"services[{index}].service")
        for index, item in enumerate(manifest.services)
    ]
    found.extend(
        BoundWorker(worker=WorkerName(item.script_name), binding=item.binding, key=f"workflows[{index}].script_name")
        for index, item in enumerate(manifest.workflows)
        if item.script_name
    )
    return found


Served = tuple[VersionId, Manifest]
Serving = Mapping[WorkerName, Served] | Callable[[WorkerName], Served | None]
"""Which version of a Worker this run gets: the one that its deployment chose, by its percentages."""


def run_manifest(
    worker: WorkerName,
    version_id: VersionId,
    serving: Serving,
    *,
    manifest: Manifest | None = None,
) -> dict[WorkerName, VersionId]:
    """The versions that a run of ``worker`` at ``version_id`` freezes, itself included.

    ``manifest`` is that version's; None means that it is the one that serves. ``serving`` is asked once per other
    Worker, so a deployment by percentages is drawn once. Raises ``WorkerNotFoundError`` when a binding leads nowhere.
    """
    if manifest is None:
        served = _served(serving, worker)
        if served is None:
            raise WorkerNotFoundError(f'There is no Worker "{worker}".', cure="Deploy it first.")
        manifest = served[1]
    frozen = {worker: version_id}
    waiting = deque([manifest])
    while waiting:
        current = waiting.popleft()
        for bound in bound_workers(current):
            if bound.worker in frozen:
                continue
            served = _served(serving, bound.worker)
            if served is None:
                raise _missing(serving, current, bound)
            frozen[bound.worker] = served[0]
            waiting.append(served[1])
    return frozen


def _served(serving: Serving, worker: WorkerName) -> Served | None:
    return serving.get(worker) if isinstance(serving, Mapping) else serving(worker)


def _missing(serving: Serving, owner: Manifest, bound: BoundWorker) -> WorkerNotFoundError:
    hint = did_you_mean(bound.worker, serving) if isinstance(serving, Mapping) else ""
    cure = f'Deploy "{bound.worker}", or change {bound.key} in the configuration of "{owner.name}". {hint}'
    return WorkerNotFoundError(
        f'The binding {bound.binding} of the Worker "{owner.name}" leads to the Worker "{bound.worker}", '
        "which does not exist.",
        cure=cure.strip(),
    )
