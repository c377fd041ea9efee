"""What a run freezes, and whether each binding leads somewhere."""

from __future__ import annotations

import pytest

from stellwerk.core.deployment.bindings import BindingRow, Exports, check_bindings
from stellwerk.core.deployment.manifest import Manifest, ServiceBinding, WorkflowBinding
from stellwerk.core.deployment.run_manifest import Served, run_manifest
from stellwerk.core.errors import WorkerNotFoundError
from stellwerk.core.ids import VersionId, WorkerName


def a_worker(name: str, *services: str, workflows: tuple[WorkflowBinding, ...] = ()) -> Manifest:
    """``services`` are names of Workers, or ``worker#Entrypoint``."""
    bindings = []
    for target in services:
        service, _, entrypoint = target.partition("#")
        bindings.append(ServiceBinding(binding=service.upper(), service=service, entrypoint=entrypoint or "Default"))
    return Manifest(
        name=name,
        main="a.py",
        compatibility_date="2026-01-31",
        services=tuple(bindings),
        workflows=workflows,
    )


def a_workflow(name: str, *, script: str | None = None, class_name: str = "Flow") -> WorkflowBinding:
    return WorkflowBinding(name=name, binding="FLOW", class_name=class_name, script_name=script)


def served(*manifests: Manifest) -> dict[WorkerName, Served]:
    return {WorkerName(m.name): (VersionId(f"{m.name}-1"), m) for m in manifests}


def test_a_run_freezes_every_worker_that_it_can_reach_once() -> None:
    serving = served(
        a_worker("gateway", workflows=(a_workflow("flow", script="orders"),)),
        a_worker("orders", "charge", "notify", workflows=(a_workflow("flow"),)),
        a_worker("charge", "ledger", "orders"),
        a_worker("notify", "ledger"),
        a_worker("ledger", "ledger"),
        a_worker("unreached", "orders"),
    )
    frozen = run_manifest(WorkerName("orders"), VersionId("orders-1"), serving)
    assert frozen == {name: f"{name}-1" for name in ("orders", "charge", "notify", "ledger")}
    assert list(run_manifest(WorkerName("gateway"), VersionId("gateway-1"), serving))[:2] == ["gateway", "orders"]


def test_the_run_keeps_its_own_version_even_when_another_one_serves() -> None:
    serving = served(a_worker("orders", "charge"), a_worker("charge", "orders"), a_worker("extra"))
    older = a_worker("orders", "extra")
    frozen = run_manifest(WorkerName("orders"), VersionId("orders-0"), serving, manifest=older)
    assert frozen == {"orders": "orders-0", "extra": "extra-1"}


def test_a_deployment_is_asked_once_per_worker() -> None:
    serving = served(a_worker("a", "b", "c"), a_worker("b", "d"), a_worker("c", "d"), a_worker("d", "a", "b"))
    asked: list[str] = []

    def draw(worker: WorkerName) -> Served | None:
        asked.append(worker)
        return serving.get(worker)

    run_manifest(WorkerName("a"), VersionId("a-1"), draw, manifest=serving[WorkerName("a")][1])
    assert sorted(asked) == ["b", "c", "d"]


def test_a_missing_worker_is_named_with_the_binding_its_owner_and_the_cure() -> None:
    serving = served(a_worker("orders", "enrich"), a_worker("enrich", "chargee"), a_worker("charge"))
    with pytest.raises(WorkerNotFoundError) as caught:
        run_manifest(WorkerName("orders"), VersionId("orders-1"), serving)
    assert str(caught.value) == (
        'The binding CHARGEE of the Worker "enrich" leads to the Worker "chargee", which does not exist. '
        'Deploy "chargee", or change services[0].service in the configuration of "enrich". Did you mean "charge"?'
    )


def test_a_missing_script_of_a_workflow_is_named_as_well() -> None:
    gateway = a_worker("gateway", workflows=(a_workflow("flow", script="orders"),))
    with pytest.raises(WorkerNotFoundError, match=r"workflows\[0\]\.script_name"):
        run_manifest(WorkerName("gateway"), VersionId("1"), served(gateway).get, manifest=gateway)


def test_a_run_of_a_worker_that_does_not_exist_is_refused() -> None:
    with pytest.raises(WorkerNotFoundError, match='There is no Worker "x"'):
        run_manifest(WorkerName("x"), VersionId("1"), {})


# -- the table of bindings --------------------------------------------------------------------------------------------


def rows(*manifests: Manifest, exports: dict[str, Exports] | None = None) -> list[BindingRow]:
    known = {WorkerName(name): value for name, value in (exports or {}).items()}
    return list(check_bindings(manifests, known))


def test_connected_bindings_are_listed_by_worker_and_declaration() -> None:
    found = rows(
        a_worker("orders", "charge", "charge#Refund", workflows=(a_workflow("flow"),)),
        a_worker("gateway", workflows=(a_workflow("flow", script="orders"),)),
        a_worker("charge"),
    )
    assert [(row.worker, row.binding, row.kind, row.target, row.key, row.connected) for row in found] == [
        ("gateway", "FLOW", "workflow", "orders/flow", "workflows[0]", True),
        ("orders", "CHARGE", "service", "charge", "services[0]", True),
        ("orders", "CHARGE", "service", "charge#Refund", "services[1]", True),
        ("orders", "FLOW", "workflow", "orders/flow", "workflows[0]", True),
    ]


@pytest.mark.parametrize(
    ("manifests", "reason"),
    [
        ([a_worker("a", "charg"), a_worker("charge")], 'no Worker is named "charg". Did you mean "charge"?'),
        ([a_worker("a", "xyz"), a_worker("charge")], 'no Worker is named "xyz". Workers that exist: a, charge.'),
        (
            [a_worker("a", workflows=(a_workflow("flow", script="ordrs"),)), a_worker("orders")],
            'no Worker is named "ordrs". Did you mean "orders"?',
        ),
        (
            [
                a_worker("a", workflows=(a_workflow("flw", script="orders"),)),
                a_worker("orders", workflows=(a_workflow("flow"),)),
            ],
            'the Worker "orders" defines no workflow "flw". Did you mean "flow"?',
        ),
        (
            [a_worker("a", workflows=(a_workflow("flow", script="orders"),)), a_worker("orders")],
            'the Worker "orders" defines no workflow "flow". There are no Workflows yet.',
        ),
        (
            [
                a_worker("a", workflows=(a_workflow("flow", script="orders", class_name="Flows"),)),
                a_worker("orders", workflows=(a_workflow("flow"),)),
            ],
            '"orders" defines "flow" with class_name "Flow", not "Flows".',
        ),
        (
            [a_worker("a", workflows=(a_workflow("flow"),)), a_worker("b", workflows=(a_workflow("flow"),))],
            'the Workers "a" and "b" both define the workflow "flow". Rename one of them.',
        ),
    ],
)
def test_a_binding_that_leads_nowhere_says_so_and_who_exists(manifests: list[Manifest], reason: str) -> None:
    row = rows(*manifests)[0]
    assert (row.connected, row.reason) == (False, reason)


def test_classes_are_checked_once_the_module_has_been_imported() -> None:
    caller = a_worker("a", "charge", "charge#Refnd", workflows=(a_workflow("flow"),))
    assert all(row.connected for row in rows(caller, a_worker("charge")))
    exports = {
        "charge": Exports(entrypoints=frozenset({"Refund"})),
        "a": Exports(entrypoints=frozenset({"Default"}), workflows=frozenset({"OtherFlow"})),
    }
    assert [row.reason for row in rows(caller, a_worker("charge"), exports=exports)] == [
        'the main module of "charge" has no WorkerEntrypoint class "Default". '
        "WorkerEntrypoint classes that exist: Refund.",
        'the main module of "charge" has no WorkerEntrypoint class "Refnd". Did you mean "Refund"?',
        'the main module of "a" has no WorkflowEntrypoint class "Flow". Did you mean "OtherFlow"?',
    ]
