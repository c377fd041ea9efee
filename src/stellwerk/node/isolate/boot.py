"""What an isolate is told about itself: ``Boot``, made from the version's manifest."""

from __future__ import annotations

from stellwerk.core.deployment.manifest import Manifest
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.wire.isolate import PROTOCOL, BindingSpec, Boot


def boot_message(version: LoadedVersion) -> Boot:
    """What an isolate of this version is told about itself."""
    manifest = version.manifest
    return Boot(
        protocol=PROTOCOL,
        worker=version.worker,
        version_id=version.version_id,
        bundle=str(version.bundle),
        main_module=manifest.main,
        dependencies=[str(folder) for folder in version.dependencies],
        bindings=_bindings(manifest),
        compatibility_date=manifest.compatibility_date,
        compatibility_flags=list(manifest.compatibility_flags),
    )


def _bindings(manifest: Manifest) -> list[BindingSpec]:
    """``env``, in the order in which a later entry of the same name wins: a secret over a var."""
    texts = [
        BindingSpec(name=name, kind="plain_text" if isinstance(value, str) else "json", value=value)
        for name, value in manifest.vars.items()
    ]
    secrets = [BindingSpec(name=name, kind="secret_text", value=value) for name, value in manifest.secrets.items()]
    services = [
        BindingSpec(
            name=service.binding,
            kind="service",
            value={"service": service.service, "entrypoint": service.entrypoint, "props": service.props},
        )
        for service in manifest.services
    ]
    workflows = [
        BindingSpec(name=workflow.binding, kind="workflow", value={"workflow": workflow.name})
        for workflow in manifest.workflows
    ]
    return [*texts, *secrets, *services, *workflows]
