"""From a loaded workspace to what serves: the work behind ``stellwerk dev`` each time something changed.

Whether a Worker changed is not guessed from files: its upload is made, and equal content and configuration are an
equal version, which already serves.

A Worker that is no longer in the workspace is taken out of service, if it came from here, and if nothing in the
workspace is broken: a Worker whose configuration cannot be read just now is not gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stellwerk.core.deployment.bindings import BindingRow
from stellwerk.core.errors import ConfigError, ConflictError, StellwerkError
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.workspace.loader import WorkerSource, Workspace

SOURCE = "dev"

Outcome = Literal["deployed", "unchanged", "failed", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What became of one Worker: a row of the table that ``stellwerk dev`` prints.

    ``version`` is what serves after it (also after a failure, if one did before); ``replaced`` what served before.
    ``source`` is None for what was removed, and for a problem that belongs to no Worker (then ``worker`` is "").
    """

    worker: str
    outcome: Outcome
    source: WorkerSource | None = None
    version: LoadedVersion | None = None
    replaced: LoadedVersion | None = None
    routes: tuple[str, ...] = ()  # patterns: "gateway.localhost/*"
    default: bool = False  # answers what no route claims
    bindings: tuple[BindingRow, ...] = ()  # connected, or with the reason why not
    notices: tuple[str, ...] = ()
    problem: StellwerkError | None = None


async def deploy_workspace(workspace: Workspace, deployments: Deployments) -> list[WorkerReport]:
    """Uploads and deploys every Worker that changed; the order does not matter, and one failure stops no other.

    Returns a report per Worker, in order of name, then one per problem of the workspace.
    """
    before = {version.worker: version for version in deployments.workers()}
    uploads = await asyncio.gather(*(_upload(source, deployments) for source in workspace.workers))
    removed = await _remove_missing(workspace, deployments)
    failures = {
        source.manifest.name: upload
        for source, upload in zip(workspace.workers, uploads, strict=True)
        if isinstance(upload, StellwerkError)
    }
    failures |= await _deploy([upload for upload in uploads if isinstance(upload, LoadedVersion)], deployments)
    bindings = deployments.bindings()
    reports = [_report(source, before, failures, deployments, bindings) for source in workspace.workers]
    reports += [WorkerReport(worker=name, outcome="removed", replaced=before[name]) for name in removed]
    reports.sort(key=lambda report: report.worker)
    return reports + [WorkerReport(worker="", outcome="failed", problem=problem) for problem in workspace.problems]


async def _upload(source: WorkerSource, deployments: Deployments) -> LoadedVersion | StellwerkError:
    try:
        return await deployments.upload(source.manifest, source.files, source=SOURCE)
    except StellwerkError as error:
        return error


async def _remove_missing(workspace: Workspace, deployments: Deployments) -> list[str]:
    if workspace.problems:
        return []
    present = {source.manifest.name for source in workspace.workers}
    missing = [
        version.worker
        for version in deployments.workers()
        if version.worker not in present and deployments.deployed_from(version.worker) == SOURCE
    ]
    for worker in missing:
        await deployments.remove(worker)
    return missing


async def _deploy(versions: Iterable[LoadedVersion], deployments: Deployments) -> dict[str, StellwerkError]:
    """Deploys what does not serve yet; returns what failed.

    When a route or workflow moved from one Worker to another, the one that gained it must wait for the one that lost
    it: so what conflicts is tried again as long as others succeed.
    """
    failures: dict[str, StellwerkError] = {}
    waiting = list(versions)
    while waiting:
        conflicting = []
        for version in waiting:
            serving = deployments.serving(version.worker)
            failures.pop(version.worker, None)
            if serving is not None and serving.version_id == version.version_id:
                continue
            try:
                await deployments.deploy(version.worker, version.version_id, source=SOURCE)
            except (ConflictError, ConfigError) as error:
                failures[version.worker] = error
                conflicting.append(version)
            except StellwerkError as error:
                failures[version.worker] = error
        waiting = conflicting if len(conflicting) < len(waiting) else []
    return failures


def _report(
    source: WorkerSource,
    before: dict[str, LoadedVersion],
    failures: dict[str, StellwerkError],
    deployments: Deployments,
    bindings: tuple[BindingRow, ...],
) -> WorkerReport:
    worker = source.manifest.name
    version, replaced, routes = deployments.serving(worker), before.get(worker), deployments.routes()
    changed = version is not None and (replaced is None or replaced.version_id != version.version_id)
    outcome: Outcome = "failed" if worker in failures else "deployed" if changed else "unchanged"
    return WorkerReport(
        worker=worker,
        outcome=outcome,
        source=source,
        version=version,
        replaced=replaced if changed else None,
        routes=tuple(row.pattern for row in routes.rows if row.worker == worker),
        default=routes.default == worker,
        bindings=tuple(row for row in bindings if row.worker == worker),
        notices=source.notices + (version.notices if version is not None else ()),
        problem=failures.get(worker),
    )
