"""What serves at one moment: one version per Worker, and everything that follows from that set.

A view is never changed. A deployment builds the next view first, which is where two Workers that cannot serve together
are found out; only then is it recorded, and the node's one reference moved on. So whoever reads, reads one consistent
state, without a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stellwerk.core.deployment.bindings import BindingRow, Exports, check_bindings
from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import WorkflowBinding
from stellwerk.core.deployment.routing import RouteTable, build_routes
from stellwerk.core.deployment.run_manifest import run_manifest
from stellwerk.core.errors import ConflictError, WorkerNotFoundError, WorkflowNotFoundError
from stellwerk.core.ids import VersionId, WorkerName
from stellwerk.node.deployment.version import LoadedVersion


class Serving:
    """The versions that serve together.

    Raises ``ConflictError`` when two Workers define a workflow of one name, ``ConfigError`` when two claim one route.
    """

    def __init__(self, versions: Iterable[LoadedVersion] = ()) -> None:
        self.versions: Mapping[str, LoadedVersion] = {
            version.worker: version for version in sorted(versions, key=lambda version: version.worker)
        }
        self._workflows = _workflows_by_name(self.versions.values())
        self.routes: RouteTable = build_routes(version.manifest for version in self.versions.values())
        self._frozen: dict[str, dict[str, str]] = {}

    def with_version(self, version: LoadedVersion) -> Serving:
        """The view in which ``version`` serves its Worker."""
        return Serving({**self.versions, version.worker: version}.values())

    def without(self, worker: str) -> Serving:
        return Serving(version for version in self.versions.values() if version.worker != worker)

    def workflow(self, name: str) -> tuple[LoadedVersion, WorkflowBinding]:
        """Who defines the workflow ``name``. Raises ``WorkflowNotFoundError``, naming the nearest one."""
        found = self._workflows.get(name)
        if found is None:
            cure = did_you_mean(name, self._workflows) or _there_are(self._workflows)
            raise WorkflowNotFoundError(f'There is no workflow "{name}".', cure=cure)
        return found

    def workflows(self) -> list[tuple[LoadedVersion, WorkflowBinding]]:
        return [self._workflows[name] for name in sorted(self._workflows)]

    def bindings(self, exports: Mapping[WorkerName, Exports] | None = None) -> tuple[BindingRow, ...]:
        return check_bindings([version.manifest for version in self.versions.values()], exports)

    def freeze(self, worker: str) -> dict[str, str]:
        """The run manifest of a run of ``worker`` that is created now. Raises ``WorkerNotFoundError``."""
        frozen = self._frozen.get(worker)
        if frozen is None:
            version = self.versions.get(worker)
            if version is None:
                cure = did_you_mean(worker, self.versions) or "Deploy it first."
                raise WorkerNotFoundError(f'There is no Worker "{worker}".', cure=cure)
            served = {
                WorkerName(name): (VersionId(each.version_id), each.manifest) for name, each in self.versions.items()
            }
            drawn = run_manifest(WorkerName(worker), VersionId(version.version_id), served, manifest=version.manifest)
            frozen = self._frozen[worker] = {str(name): str(version_id) for name, version_id in drawn.items()}
        return dict(frozen)


def _workflows_by_name(versions: Iterable[LoadedVersion]) -> dict[str, tuple[LoadedVersion, WorkflowBinding]]:
    found: dict[str, tuple[LoadedVersion, WorkflowBinding]] = {}
    for version in versions:
        for workflow in version.manifest.defined_workflows():
            other = found.setdefault(workflow.name, (version, workflow))[0]
            if other is not version:
                raise ConflictError(
                    f'The Workers "{other.worker}" and "{version.worker}" both define the workflow "{workflow.name}".',
                    cure="Rename it in one of them; or give one a script_name, if it only calls the other's.",
                )
    return found


def _there_are(names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f"Workflows that exist: {listed}." if listed else "No deployed Worker defines a workflow."
