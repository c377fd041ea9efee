"""What a run freezes at its start: the version of every Worker that it can reach through bindings.

The run manifest is the transitive closure over ``services`` and ``workflows`` bindings, each Worker once, so that all
parts of a run speak to the same version of a Worker for as long as the run lives. What is not reached through these
bindings (Durable Objects, consumers of queues, Workers dispatched by URL) is not frozen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.errors import WorkerNotFoundError
from stellwerk.core.ids import VersionId, WorkerName

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
        for where, binding, target in _bindings(current):
            if target in frozen:
                continue
            served = _served(serving, target)
            if served is None:
                raise _missing(serving, current, where, binding, target)
            frozen[target] = served[0]
            waiting.append(served[1])
    return frozen


def _served(serving: Serving, worker: WorkerName) -> Served | None:
    return serving.get(worker) if isinstance(serving, Mapping) else serving(worker)


def _bindings(manifest: Manifest) -> list[tuple[str, str, WorkerName]]:
    """Key, binding and target of each binding that leads to a Worker."""
    found = [
        (f"services[{index}].service", service.binding, WorkerName(service.service))
        for index, service in enumerate(manifest.services)
    ]
    found.extend(
        (f"workflows[{index}].script_name", workflow.binding, WorkerName(workflow.script_name))
        for index, workflow in enumerate(manifest.workflows)
        if workflow.script_name
    )
    return found


def _missing(serving: Serving, owner: Manifest, key: str, binding: str, target: WorkerName) -> WorkerNotFoundError:
    hint = did_you_mean(target, serving) if isinstance(serving, Mapping) else ""
    cure = f'Deploy "{target}", or change {key} in the configuration of "{owner.name}". {hint}'
    return WorkerNotFoundError(
        f'The binding {binding} of the Worker "{owner.name}" leads to the Worker "{target}", which does not exist.',
        cure=cure.strip(),
    )
