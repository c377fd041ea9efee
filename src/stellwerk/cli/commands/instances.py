"""``workflows instances``: runs of a workflow. ``latest`` may stand for an id everywhere."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from stellwerk.cli.client import Client
from stellwerk.cli.commands.workflows import WorkflowName, parse_json_argument
from stellwerk.cli.exits import CommandError, Exit
from stellwerk.cli.options import DEFAULT, Common
from stellwerk.cli.render import Output, elapsed

LATEST = "latest"
_PAGE = 100
Instance = Annotated[str, Parameter(help="Id of the instance, or `latest`.")]


def list_instances(
    workflow: WorkflowName,
    /,
    *,
    status: Annotated[
        str | None, Parameter(help="Only those with this status: queued, running, waiting, complete, errored, ...")
    ] = None,
    limit: Annotated[int, Parameter(help="At most so many, the newest first.")] = 50,
    common: Common = DEFAULT,
) -> None:
    """List instances of a workflow, the newest first."""
    rows: list[dict[str, Any]] = []
    params: dict[str, str | int] = {} if status is None else {"status": status}
    with common.connect() as client:
        while len(rows) < limit:
            params["per_page"] = min(_PAGE, limit - len(rows))
            part, info = client.page("workflows", workflow, "instances", params=params)
            rows += part
            if not part or not info.get("cursor"):
                break
            params["cursor"] = info["cursor"]
    output = common.output()
    if output.as_json:
        output.json(rows)
        return
    cells = [(r["id"], r["status"], r["version_id"], r["created_on"], r["modified_on"]) for r in rows]
    output.table(("INSTANCE", "STATUS", "VERSION", "CREATED", "MODIFIED"), cells, empty="No instances.")


def describe_instance(workflow: WorkflowName, instance: Instance = LATEST, /, *, common: Common = DEFAULT) -> None:
    """Show one instance: its status, why it waits, and each step with its attempts."""
    with common.connect() as client:
        instance_id = _resolve(client, workflow, instance)
        shown = client.get("workflows", workflow, "instances", instance_id)
    output = common.output()
    if output.as_json:
        output.json({"id": instance_id, **shown})
        return
    extra = shown.get("stellwerk") or {}
    error = shown.get("error")
    output.record(
        [
            ("instance", instance_id),
            ("status", shown["status"]),
            ("why", extra.get("why")),
            ("worker", extra.get("worker")),
            ("version", shown["versionId"]),
            ("trigger", shown["trigger"]["source"]),
            ("queued", shown["queued"]),
            ("start", shown["start"]),
            ("end", shown["end"]),
            ("params", shown["params"]),
            ("output", shown["output"]),
            ("error", f"{error['name']}: {error['message']}" if error else None),
        ]
    )
    output.line()
    _print_steps(output, shown["steps"])


def _print_steps(output: Output, steps: list[dict[str, Any]]) -> None:
    rows = []
    for step in steps:
        if step["type"] == "termination":
            rows.append(("(terminated)", "termination", "terminated", "-", "-", step["trigger"]["source"]))
            continue
        failure = step.get("error")
        shown = f"{failure['name']}: {failure['message']}" if failure else step.get("output")
        attempts = str(len(step["attempts"])) if "attempts" in step else "-"
        status = _step_status(step)
        spent = elapsed(step["start"], step["end"]) if status != "waiting" else f"until {step['end']}"
        rows.append((step["name"], step["type"], status, attempts, spent, shown))
    output.table(("STEP", "TYPE", "STATUS", "ATTEMPTS", "TIME", "RESULT"), rows, empty="No steps yet.")


def _step_status(step: dict[str, Any]) -> str:
    if step["type"] != "step":
        if not step["finished"]:
            return "waiting"
        return "failed" if step.get("error") else "ok"
    if step["success"] is None:
        return "retrying" if step.get("retryAt") else "running"
    return "ok" if step["success"] else "failed"


def terminate(workflow: WorkflowName, instance: Instance, /, *, common: Common = DEFAULT) -> None:
    """End an instance for good. Its steps in flight are cancelled; what they have done stays done."""
    _change_status(workflow, instance, "terminate", common)


def resume(workflow: WorkflowName, instance: Instance, /, *, common: Common = DEFAULT) -> None:
    """Take a paused instance up again, at the step where it stands."""
    _change_status(workflow, instance, "resume", common)


def _change_status(workflow: str, instance: str, verb: str, common: Common) -> None:
    with common.connect() as client:
        instance_id = _resolve(client, workflow, instance)
        result = client.patch("workflows", workflow, "instances", instance_id, "status", json={"status": verb})
    output = common.output()
    if output.as_json:
        output.json({"id": instance_id, **result})
    else:
        output.line(f"{instance_id} {result['status']}")


def send_event(
    workflow: WorkflowName,
    instance: Instance,
    /,
    *,
    type: Annotated[str, Parameter(help="Type of the event, as `wait_for_event` names it.")],
    payload: Annotated[
        str,
        Parameter(help="Payload as JSON; `@file` reads a file, `-` standard input.", allow_leading_hyphen=True),
    ] = "{}",
    common: Common = DEFAULT,
) -> None:
    """Send an event to an instance. It is kept until the instance waits for it."""
    body = parse_json_argument("--payload", payload)
    with common.connect() as client:
        instance_id = _resolve(client, workflow, instance)
        client.post("workflows", workflow, "instances", instance_id, "events", type, json=body)
    output = common.output()
    if output.as_json:
        output.json({"id": instance_id, "type": type})
    else:
        output.line(f"{instance_id} {type} sent")


def _resolve(client: Client, workflow: str, instance: str) -> str:
    if instance != LATEST:
        return instance
    newest, _ = client.page("workflows", workflow, "instances", params={"per_page": 1})
    if not newest:
        raise CommandError(
            f'The workflow "{workflow}" has no instance yet.',
            cure=f"Start one: stellwerk workflows trigger {workflow}.",
            exit_code=Exit.NOT_FOUND,
            code="instance.not_found",
        )
    return str(newest[0]["id"])
