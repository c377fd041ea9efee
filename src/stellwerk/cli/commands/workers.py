"""``versions`` and ``deployments``: what a Worker was and is."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from stellwerk.cli.options import DEFAULT, Common

WorkerName = Annotated[str, Parameter(help="Name of the Worker.")]


def list_versions(worker: WorkerName, /, *, common: Common = DEFAULT) -> None:
    """List the versions of a Worker, the newest first."""
    with common.connect() as client:
        versions = client.pages("workers", "scripts", worker, "versions", key="items")
    output = common.output()
    if output.as_json:
        output.json(versions)
        return
    rows = [
        (
            v["id"],
            str(v["number"]),
            v["metadata"]["source"],
            v["metadata"]["created_on"],
            v["annotations"].get("workers/message", ""),
        )
        for v in versions
    ]
    output.table(("VERSION", "NUMBER", "SOURCE", "CREATED", "MESSAGE"), rows, empty="No versions.")


def list_deployments(worker: WorkerName, /, *, common: Common = DEFAULT) -> None:
    """List the deployments of a Worker, the newest first; the first one serves."""
    with common.connect() as client:
        deployments = client.pages("workers", "scripts", worker, "deployments", key="deployments")
    output = common.output()
    if output.as_json:
        output.json(deployments)
        return
    rows = [
        (
            d["id"],
            " ".join(f"{v['version_id']}@{v['percentage']:g}%" for v in d["versions"]),
            d["source"],
            d["created_on"],
            d["annotations"].get("workers/message", ""),
        )
        for d in deployments
    ]
    output.table(("DEPLOYMENT", "VERSIONS", "SOURCE", "CREATED", "MESSAGE"), rows, empty="No deployments.")
