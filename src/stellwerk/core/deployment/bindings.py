"""Is each binding connected? The rows of the table that ``stellwerk dev`` shows, before anything can get lost.

Two questions are asked. From the manifests alone: does the Worker exist, does it define that workflow? And, once a
Worker's module has been imported: does it have that class? The second answer comes in as ``exports``; for a Worker that
is not in there yet, the class is taken to exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stellwerk.core.deployment.document import did_you_mean
from stellwerk.core.deployment.manifest import Manifest, ServiceBinding, WorkflowBinding
from stellwerk.core.ids import WorkerName

DEFAULT_ENTRYPOINT = "Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """The classes that a Worker's main module has, by kind."""

    entrypoints: frozenset[str] = frozenset()
    workflows: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRow:
    """One binding and whether it leads somewhere. ``reason`` says why not, and what to do; empty when connected."""

    worker: WorkerName
    binding: str
    kind: str  # service, workflow
    target: str  # "charge", "charge#Refund", "orders/order-workflow"
    key: str  # where it is declared: "services[0]"
    reason: str = ""

    @property
    def connected(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the bindings are held against."""

    manifests: Mapping[str, Manifest]
    exports: Mapping[WorkerName, Exports]
    definers: Mapping[str, list[str]] = field(default_factory=dict)  # workflow name -> Workers that define it


def check_bindings(
    manifests: Iterable[Manifest],
    exports: Mapping[WorkerName, Exports] | None = None,
) -> tuple[BindingRow, ...]:
    """One row per service and workflow binding, ordered by Worker and declaration. A row not connected is an error."""
    by_name = {manifest.name: manifest for manifest in sorted(manifests, key=lambda manifest: manifest.name)}
    definers: dict[str, list[str]] = {}
    for manifest in by_name.values():
        for workflow in manifest.defined_workflows():
            definers.setdefault(workflow.name, []).append(manifest.name)
    known = _Known(manifests=by_name, exports=exports or {}, definers=definers)
    rows: list[BindingRow] = []
    for manifest in by_name.values():
        rows.extend(_service_row(known, manifest, index, item) for index, item in enumerate(manifest.services))
        rows.extend(_workflow_row(known, manifest, index, item) for index, item in enumerate(manifest.workflows))
    return tuple(rows)


def _service_row(known: _Known, manifest: Manifest, index: int, item: ServiceBinding) -> BindingRow:
    named = item.entrypoint != DEFAULT_ENTRYPOINT
    return BindingRow(
        worker=WorkerName(manifest.name),
        binding=item.binding,
        kind="service",
        target=f"{item.service}#{item.entrypoint}" if named else item.service,
        key=f"services[{index}]",
        reason=_no_worker(known, item.service) or _no_entrypoint(known, item),
    )


def _workflow_row(known: _Known, manifest: Manifest, index: int, item: WorkflowBinding) -> BindingRow:
    owner = item.script_name or manifest.name
    return BindingRow(
        worker=WorkerName(manifest.name),
        binding=item.binding,
        kind="workflow",
        target=f"{owner}/{item.name}",
        key=f"workflows[{index}]",
        reason=_no_worker(known, owner) or _not_defined(known, owner, item) or _no_workflow_class(known, owner, item),
    )


def _no_worker(known: _Known, name: str) -> str:
    if name in known.manifests:
        return ""
    hint = did_you_mean(name, known.manifests)
    return f'no Worker is named "{name}". {hint or _there_are("Workers", known.manifests)}'


def _no_entrypoint(known: _Known, item: ServiceBinding) -> str:
    exports = known.exports.get(WorkerName(item.service))
    if exports is None or item.entrypoint in exports.entrypoints:
        return ""
    return _no_class(item.service, item.entrypoint, "WorkerEntrypoint", exports.entrypoints)


def _no_workflow_class(known: _Known, owner: str, item: WorkflowBinding) -> str:
    exports = known.exports.get(WorkerName(owner))
    if exports is None or item.class_name in exports.workflows:
        return ""
    return _no_class(owner, item.class_name, "WorkflowEntrypoint", exports.workflows)


def _no_class(worker: str, name: str, kind: str, existing: Iterable[str]) -> str:
    """``Default`` is written by nobody as a misspelling, so the list helps more than the nearest name there."""
    names = list(existing)
    hint = did_you_mean(name, names) or _there_are(f"{kind} classes", names)
    return f'the main module of "{worker}" has no {kind} class "{name}". {hint}'


def _not_defined(known: _Known, owner: str, item: WorkflowBinding) -> str:
    """Whether ``owner`` defines the workflow under that name and class, and nobody else does."""
    defined = {workflow.name: workflow for workflow in known.manifests[owner].defined_workflows()}
    found = defined.get(item.name)
    if found is None:
        hint = did_you_mean(item.name, defined) or _there_are("Workflows", defined)
        return f'the Worker "{owner}" defines no workflow "{item.name}". {hint}'
    if found.class_name != item.class_name:
        return f'"{owner}" defines "{item.name}" with class_name "{found.class_name}", not "{item.class_name}".'
    others = [name for name in known.definers[item.name] if name != owner]
    if others:
        return f'the Workers "{owner}" and "{others[0]}" both define the workflow "{item.name}". Rename one of them.'
    return ""


def _there_are(what: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f"{what} that exist: {listed}." if listed else f"There are no {what} yet."
