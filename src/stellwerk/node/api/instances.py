"""Instances of workflows over HTTP: create, list, describe, terminate, send an event."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stellwerk.core import limits
from stellwerk.core.errors import InvalidRequestError, WorkflowNotFoundError
from stellwerk.core.ids import LOCAL_ACCOUNT, is_event_type, is_instance_id
from stellwerk.core.times import iso_from_ms
from stellwerk.core.workflow import entries
from stellwerk.core.workflow.status import Status
from stellwerk.node.api.envelope import NotBuiltError, success
from stellwerk.node.api.journal import blob_hashes, render_instance, show_values
from stellwerk.node.api.ports import Ports
from stellwerk.node.api.requests import Page, page_info, parse_page, read_json, read_object, text_field
from stellwerk.store.base import InstanceRow
from stellwerk.wire import values

TRIGGER = "api"


class InstancesApi:
    """The routes below ``/workflows/{workflow}/instances``."""

    def __init__(self, ports: Ports) -> None:
        self._deployments = ports.deployments
        self._engine = ports.engine
        self._store = ports.store
        self._now_ms = ports.now_ms

    def routes(self) -> list[Route]:
        many = "/accounts/{account}/workflows/{workflow}/instances"
        one = many + "/{instance}"
        return [
            Route(many, self.create, methods=["POST"]),
            Route(many + "/batch", self.create_batch, methods=["POST"]),
            Route(one, self.describe, methods=["GET"]),
            Route(many, self.list_instances, methods=["GET"]),
            Route(many + "/", self.list_instances, methods=["GET"]),  # how wrangler resolves "latest"
            Route(one + "/status", self.change_status, methods=["PATCH"]),
            Route(one + "/events/{event_type}", self.send_event, methods=["POST"]),
        ]

    # -- reading -----------------------------------------------------------------------------------------------------

    async def list_instances(self, request: Request) -> Response:
        """Newest first. Both ways of going on work: ``cursor`` (wrangler) and ``page`` (the Python SDK)."""
        workflow = await self._workflow(request)
        page = parse_page(request)
        status = _parse_status(request.query_params.get("status", ""))
        rows, cursor = await self._rows(workflow, status, page)
        counts = await self._store.status_counts(LOCAL_ACCOUNT)
        total = sum(n for (name, s), n in counts.items() if name == workflow and (status is None or s is status))
        info = {**page_info(page, count=len(rows), total=total), "cursor": cursor}
        return success([_render_row(row) for row in rows], info=info)

    async def _rows(self, workflow: str, status: Status | None, page: Page) -> tuple[list[InstanceRow], str]:
        cursor = page.cursor
        if not cursor and page.skip:
            if page.skip > limits.PAGE_DEPTH_MAX:
                raise InvalidRequestError(
                    f"Page {page.number} lies more than {limits.PAGE_DEPTH_MAX} instances deep.",
                    cure='Go on with "cursor" instead of "page".',
                )
            cursor = await self._skip(workflow, status, page.skip)
            if not cursor:
                return [], ""
        return await self._store.instances(LOCAL_ACCOUNT, workflow, status=status, limit=page.size, cursor=cursor)

    async def _skip(self, workflow: str, status: Status | None, skip: int) -> str:
        """The cursor behind the first ``skip`` instances; empty when there are no more."""
        cursor = ""
        while skip:
            step = min(skip, limits.PAGE_SIZE_MAX)
            _, cursor = await self._store.instances(LOCAL_ACCOUNT, workflow, status=status, limit=step, cursor=cursor)
            if not cursor:
                return ""
            skip -= step
        return cursor

    async def describe(self, request: Request) -> Response:
        run = await self._engine.describe(await self._workflow(request), request.path_params["instance"])
        journal = [entries.decode(data) for data in run.journal]
        blobs = await self._store.blobs(LOCAL_ACCOUNT, blob_hashes(journal))
        return success(render_instance(run.row, journal, show_values(values.to_jsonable, blobs)))

    # -- changing ----------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Answers when it is on disk; with ``?wait_ms=`` (our own) when it has ended, or when that time has passed."""
        workflow = await self._workflow(request)
        instance_id, params = self._parse_item(await read_object(request))
        made = await self._engine.create(workflow, instance_id=instance_id, params=params, trigger=TRIGGER)
        created = self._created(workflow, made)
        wait_ms = _wait_ms(request)
        if wait_ms:
            ended = await self._engine.wait(workflow, made, timeout_ms=wait_ms)
            created["status"] = ended.status.value
        return success(created)

    async def create_batch(self, request: Request) -> Response:
        """Up to 100; those whose id exists are left out of the answer, as Cloudflare does."""
        workflow = await self._workflow(request)
        body = await read_json(request)
        if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
            raise InvalidRequestError('The body must be a list of {"instance_id", "params"}.')
        if not 1 <= len(body) <= limits.BATCH_CREATE_MAX:
            raise InvalidRequestError(
                f"{len(body)} instances in one batch; 1 to {limits.BATCH_CREATE_MAX} are possible.",
                cure="Split the batch.",
            )
        items = [self._parse_item(item) for item in body]
        made = await self._engine.create_batch(workflow, items, trigger=TRIGGER)
        return success([self._created(workflow, instance_id) for instance_id in made])

    def _parse_item(self, item: dict[str, Any]) -> tuple[str | None, bytes]:
        instance_id = text_field(item, "instance_id")
        if instance_id is not None and not is_instance_id(instance_id):
            raise InvalidRequestError(
                f"{instance_id[:120]!r} cannot be the id of an instance.",
                cure="Letters, digits, - and _, at most 100, not - first.",
            )
        params = values.from_jsonable(item.get("params", {}), size_max=limits.EVENT_PAYLOAD_BYTES_MAX)
        return instance_id, params

    def _created(self, workflow: str, instance_id: str) -> dict[str, Any]:
        """What Cloudflare answers to a create. The status is the one that was acknowledged; it may have moved on."""
        version, _ = self._deployments.workflow(workflow)
        return {
            "id": instance_id,
            "status": Status.QUEUED.value,
            "version_id": version.version_id,
            "workflow_id": workflow,
        }

    async def change_status(self, request: Request) -> Response:
        workflow, instance_id = await self._workflow(request), request.path_params["instance"]
        verb = text_field(await read_object(request), "status")
        match verb:
            case "terminate":
                await self._engine.terminate(workflow, instance_id, trigger=TRIGGER)
            case "resume":
                await self._engine.resume(workflow, instance_id)
            case "pause" | "restart":
                raise NotBuiltError(f'"{verb}" is not built yet.', cure="terminate and resume are.")
            case _:
                raise InvalidRequestError(f'"status" is {verb!r}, expected pause, resume, restart or terminate.')
        status = await self._engine.status(workflow, instance_id)
        return success({"status": status.status.value, "timestamp": iso_from_ms(self._now_ms())})

    async def send_event(self, request: Request) -> Response:
        """The body is the payload itself. Returns once the event is on disk, waited for or not."""
        workflow, instance_id = await self._workflow(request), request.path_params["instance"]
        event_type = request.path_params["event_type"]
        if not is_event_type(event_type):
            raise InvalidRequestError(
                f"{event_type[:120]!r} cannot be the type of an event.",
                cure="Letters, digits, - and _, at most 100, not - first.",
            )
        payload = await read_json(request, default={})
        data = values.from_jsonable(payload, size_max=limits.EVENT_PAYLOAD_BYTES_MAX)
        await self._engine.send_event(workflow, instance_id, event_type, data)
        return success({})

    async def _workflow(self, request: Request) -> str:
        """The workflow of the path: one that a serving Worker defines, or one of which there are instances still.

        Taking a Worker out of service must not hide its runs from the operator who has to end them.
        """
        name: str = request.path_params["workflow"]
        try:
            return self._deployments.workflow(name)[1].name
        except WorkflowNotFoundError:
            counts = await self._store.status_counts(LOCAL_ACCOUNT)
            if any(workflow == name for workflow, _ in counts):
                return name
            raise


def _wait_ms(request: Request) -> int:
    """How long the caller wants to wait for the end of the run; 0: not at all."""
    query = request.scope["query_string"].decode("latin-1")
    text = dict(parse_qsl(query)).get("wait_ms", "0") if query else "0"
    if not text.isdecimal() or len(text) > 9 or int(text) > limits.CONTROL_WAIT_MS_MAX:
        raise InvalidRequestError(
            f'"wait_ms" is {text[:40]!r}.', cure=f"Milliseconds from 0 to {limits.CONTROL_WAIT_MS_MAX}."
        )
    return int(text)


def _parse_status(text: str) -> Status | None:
    if not text:
        return None
    try:
        return Status(text)
    except ValueError:
        raise InvalidRequestError(
            f'"status" is {text[:40]!r}.', cure=f"Known are: {', '.join(status.value for status in Status)}."
        ) from None


def _render_row(row: InstanceRow) -> dict[str, Any]:
    return {
        "id": row.instance_id,
        "version_id": row.version_id,
        "workflow_id": row.workflow,
        "status": row.status.value,
        "created_on": iso_from_ms(row.created_at),
        "modified_on": iso_from_ms(row.modified_at),
        "started_on": iso_from_ms(row.started_at) if row.started_at is not None else None,
        "ended_on": iso_from_ms(row.ended_at) if row.ended_at is not None else None,
    }
