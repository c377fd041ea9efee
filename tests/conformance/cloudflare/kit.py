"""Cloudflare's documented behaviour as cases: each test is a program and what must become of it.

A program is the body of ``run(event, step)`` (or of a handler, for what bindings do), written beside its assertions
and carried to one Worker in the params. ``notes`` is that Worker's memory: what a program notes, ``Lab.notes`` shows,
so that a test can count how often something ran. The numbers in ``covers`` are those of the checklist in Cloudflare's
own suite (workers-sdk, ``workflows-shared/tests``, read August 2026); ``exclusions.toml`` names what is missing.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

from tests.integration.node.kit import ANode, a_worker

F = TypeVar("F", bound=Callable[..., Any])

LAB = """
import asyncio
import os
from datetime import datetime, timedelta
from textwrap import indent

import workers
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint
from workers.workflows import NonRetryableError

notes = {}


async def _run(code, **names):
    scope = dict(globals(), **names)
    exec(compile("async def program():\\n" + indent(code, "    "), "<case>", "exec"), scope)
    return await scope["program"]()


class Script(WorkflowEntrypoint):
    async def run(self, event, step):
        note = notes.setdefault(event["instanceId"], []).append
        data = event["payload"].get("data")
        return await _run(event["payload"]["code"], env=self.env, event=event, step=step, data=data, note=note)


class Limited(Script):
    pass


class Plain(WorkflowEntrypoint):
    async def run(self, event, step):
        return {
            "payload": event["payload"], "id": event["instanceId"], "workflow": event["workflowName"],
            "timestamp": isinstance(event["timestamp"], datetime),
        }


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        asked = await request.json()
        if "code" in asked:
            return Response.json(await _run(asked["code"], env=self.env, data=asked.get("data")))
        return Response.json({"pid": os.getpid(), "notes": notes.get(asked["notes"], [])})
"""


def write_lab(workspace: Path, name: str = "lab", **config: Any) -> None:
    """The Worker that runs what tests give it."""
    suffix = "" if name == "lab" else f"-{name}"
    config.setdefault(
        "workflows",
        [
            {"name": f"script{suffix}", "binding": "FLOW", "class_name": "Script"},
            {"name": f"limited{suffix}", "binding": "LIMITED", "class_name": "Limited", "limits": {"steps": 5}},
            {"name": f"plain{suffix}", "binding": "PLAIN", "class_name": "Plain"},
        ],
    )
    a_worker(workspace, name, LAB, **config)


class Lab:
    """The node of these tests, and the words in which they are written."""

    def __init__(self, node: ANode) -> None:
        self.node = node
        self._numbers = itertools.count(1)

    def begin(self, code: str, data: Any = None, *, workflow: str = "script", instance_id: str | None = None) -> str:
        """A new instance whose program is ``code``; its id."""
        instance_id = instance_id or f"case-{next(self._numbers)}"
        return self.node.create(workflow, {"code": dedent(code), "data": data}, instance_id=instance_id)

    def run(self, code: str, data: Any = None, *, workflow: str = "script") -> dict[str, Any]:
        """The instance with that program, once it has ended."""
        return self.node.ended(workflow, self.begin(code, data, workflow=workflow))

    def output(self, code: str, data: Any = None, *, workflow: str = "script") -> Any:
        """What the program returns; it must complete."""
        ended = self.run(code, data, workflow=workflow)
        assert ended["status"] == "complete", ended["error"]
        return ended["output"]

    def waiting(self, instance_id: str, *, workflow: str = "script") -> dict[str, Any]:
        return self.node.ended(workflow, instance_id, "waiting")

    def ended(self, instance_id: str, *, workflow: str = "script") -> dict[str, Any]:
        return self.node.ended(workflow, instance_id)

    def send(self, instance_id: str, event_type: str, payload: Any = None, *, workflow: str = "script") -> None:
        answer = self.node.send_event(workflow, instance_id, event_type, payload)
        assert answer.is_success, answer.text

    def bind(self, code: str, data: Any = None, *, worker: str = "lab") -> Any:
        """What the body of a handler returns: for what programs do with bindings."""
        answer = self.node.ask(worker, "/", method="POST", json={"code": dedent(code), "data": data})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def notes(self, instance_id: str) -> list[Any]:
        noted: list[Any] = self.node.ask("lab", "/", method="POST", json={"notes": instance_id}).json()["notes"]
        return noted

    def kill_isolate(self) -> None:
        """The end of everything that the Worker had in memory."""
        pid = self.node.ask("lab", "/", method="POST", json={"notes": ""}).json()["pid"]
        os.kill(pid, signal.SIGKILL)


def step_named(instance: dict[str, Any], name: str) -> dict[str, Any]:
    """A step of a described instance, by ``name-count``."""
    (step,) = (step for step in instance["steps"] if step.get("name") == name)
    found: dict[str, Any] = step
    return found


def covers(*numbers: int) -> Callable[[F], F]:
    """Says which cases of Cloudflare's suite this test is. ``test_coverage.py`` reads it from the source."""

    def mark(test: F) -> F:
        return test

    return mark
