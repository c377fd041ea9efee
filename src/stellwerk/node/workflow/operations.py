"""What a workflow binding offers to user code: create, create_batch, get, status, terminate, send_event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stellwerk.core.errors import InvalidRequestError
from stellwerk.node.workflow.engine import Engine
from stellwerk.node.workflow.live import LiveRun
from stellwerk.wire import values

Operation = Callable[[str, dict[str, Any], LiveRun | None, str], Awaitable[Any]]


class WorkflowOperations:
    """Operations by name, values in and values out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._operations: dict[str, Operation] = {
            "create": self._create,
            "create_batch": self._create_batch,
            "get": self._get,
            "status": self._status,
            "terminate": self._terminate,
            "send_event": self._send_event,
        }

    async def perform(
        self, workflow: str, operation: str, args: bytes, *, parent: LiveRun | None, traceparent: str
    ) -> bytes:
        """Raises ``InvalidRequestError`` for an operation or arguments that are none, and what the engine refuses."""
        found = self._operations.get(operation)
        given = values.decode(args)
        if found is None or not isinstance(given, dict):
            raise InvalidRequestError(f'A workflow binding has no operation "{operation}".')
        return values.encode(await found(workflow, given, parent, traceparent))

    async def _create(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, traceparent: str) -> Any:
        params = args.get("params")
        created = await self._engine.create(
            workflow,
            instance_id=_optional_text(args.get("id"), "id"),
            params=values.encode({} if params is None else params),
            trigger="binding",
            parent=parent,
            traceparent=traceparent,
        )
        return {"id": created}

    async def _create_batch(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, _: str) -> Any:
        items = []
        for item in args.get("batch") or ():
            if not isinstance(item, dict):
                raise InvalidRequestError("create_batch takes a list of {id?, params?}.")
            params = item.get("params")
            items.append((_optional_text(item.get("id"), "id"), values.encode({} if params is None else params)))
        created = await self._engine.create_batch(workflow, items, trigger="binding", parent=parent)
        return [{"id": instance_id} for instance_id in created]

    async def _get(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, _: str) -> Any:
        instance_id = _text(args.get("id"), "id")
        await self._engine.status(workflow, instance_id)
        return {"id": instance_id}

    async def _status(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, _: str) -> Any:
        found = await self._engine.status(workflow, _text(args.get("id"), "id"))
        error = None if found.error is None else {"name": found.error.name, "message": found.error.message}
        output = None if found.output is None else values.decode(found.output)
        return {"status": found.status.value, "output": output, "error": error}

    async def _terminate(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, _: str) -> Any:
        await self._engine.terminate(workflow, _text(args.get("id"), "id"), trigger="binding")
        return None

    async def _send_event(self, workflow: str, args: dict[str, Any], parent: LiveRun | None, _: str) -> Any:
        payload = values.encode(args.get("payload"))
        await self._engine.send_event(workflow, _text(args.get("id"), "id"), _text(args.get("type"), "type"), payload)
        return None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be text, not {type(value).__name__}.")
    return value


def _optional_text(value: object, name: str) -> str | None:
    return None if value is None else _text(value, name)
