"""``workflows``: what can be run, and starting a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from stellwerk.cli.exits import UsageError
from stellwerk.cli.options import DEFAULT, Common

WorkflowName = Annotated[str, Parameter(help="Name of the workflow.")]


def list_workflows(*, common: Common = DEFAULT) -> None:
    """List the workflows that the node knows, with the number of instances by status."""
    with common.connect() as client:
        flows = client.pages("workflows")
    output = common.output()
    if output.as_json:
        output.json(flows)
        return
    rows = [(f["name"], f["script_name"], f["class_name"], _counts(f), f["modified_on"]) for f in flows]
    output.table(("WORKFLOW", "WORKER", "CLASS", "INSTANCES", "MODIFIED"), rows, empty="No workflows are deployed.")


def describe_workflow(workflow: WorkflowName, /, *, common: Common = DEFAULT) -> None:
    """Show one workflow: its class, its Worker's versions, its instances by status."""
    with common.connect() as client:
        flow = client.get("workflows", workflow)
        versions = client.pages("workflows", workflow, "versions")
    output = common.output()
    if output.as_json:
        output.json({**flow, "versions": versions})
        return
    output.record(
        [
            ("workflow", flow["name"]),
            ("worker", flow["script_name"]),
            ("class", flow["class_name"]),
            ("version", flow["version_id"]),
            ("versions", len(versions)),
            ("created", flow["created_on"]),
            ("modified", flow["modified_on"]),
            ("instances", _counts(flow)),
        ]
    )


def trigger(
    workflow: WorkflowName,
    params: Annotated[
        str,
        Parameter(help="Params as JSON; `@file` reads a file, `-` standard input.", allow_leading_hyphen=True),
    ] = "{}",
    /,
    *,
    id: Annotated[str | None, Parameter(help="Id of the instance; without it one is made.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Start an instance. Returns when it is on disk, and prints its id."""
    body: dict[str, Any] = {"params": parse_json_argument("PARAMS", params)}
    if id is not None:
        body["instance_id"] = id
    with common.connect() as client:
        made = client.post("workflows", workflow, "instances", json=body)
    output = common.output()
    if output.as_json:
        output.json(made)
    else:
        output.line(made["id"])


def parse_json_argument(name: str, text: str) -> Any:
    """The JSON in an argument, in the file it names with ``@``, or in standard input (``-``)."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{name}: {text[1:]} cannot be read: {error}.") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}.", cure="""Quote it for the shell: '{"key": 1}'.""") from error


def _counts(flow: dict[str, Any]) -> str:
    counts: dict[str, int] = flow.get("instances") or {}
    return " ".join(f"{status}:{number}" for status, number in sorted(counts.items()) if number) or "-"
