"""The runs that this isolate has: started, spoken to, and let go at the node's word."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from workers._js import JsDict
from workers._relaxed import relaxed_call
from workers.entrypoints import ExecutionContext

from stellwerk.core.workflow import inputs
from stellwerk.isolate.failures import to_error_value
from stellwerk.isolate.invocation import Invocation
from stellwerk.isolate.loader import LoadedWorker
from stellwerk.isolate.logs import LogCapture, current
from stellwerk.isolate.workflow.attempts import Attempts
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.step import ListedWorkflowStep, WorkflowStep
from stellwerk.wire import isolate as messages
from stellwerk.wire import values
from stellwerk.wire.channel import Channel


class IsolateRuns:
    """Live runs by number. ``on_idle`` is called when the last one has left."""

    def __init__(
        self,
        channel: Channel,
        worker: LoadedWorker,
        env: Any,
        logs: LogCapture,
        flags: frozenset[str],
        on_idle: Callable[[], None],
    ) -> None:
        self._channel, self._worker, self._env, self._logs = channel, worker, env, logs
        self._step_class = WorkflowStep if "python_workflows_implicit_dependencies" in flags else ListedWorkflowStep
        self._on_idle = on_idle
        self._attempts = Attempts()
        self.live: dict[int, Run] = {}
        self._pasts: dict[int, list[messages.RunPast]] = {}  # of runs that are about to start

    def past(self, message: messages.RunPast) -> None:
        self._pasts.setdefault(message.run, []).append(message)

    def start(self, message: messages.RunStart) -> None:
        if message.run in self._pasts:
            message = _joined(self._pasts.pop(message.run), message)
        try:
            cls, kind = self._worker.find(message.class_name)
            if kind != "workflow":
                raise TypeError(f"'{message.class_name}' is not a WorkflowEntrypoint")
        except TypeError as error:
            self._channel.send(inputs.RunFailed(message.run, to_error_value(error)))
            return
        run = Run(
            message,
            attempts=self._attempts,
            send=self._channel.send,
            keep_together=self._channel.keep_together,
            on_end=self._run_ended,
            report_unhandled=self._unhandled,
            steps_max=message.steps_max,
        )
        self.live[message.run] = run
        run.start(lambda: self._program(run, cls, message))

    async def _program(self, run: Run, cls: Any, message: messages.RunStart) -> Any:
        current.set(self._run_invocation(run))
        step = self._step_class(run)
        instance = cls(ExecutionContext(None), self._env)
        event = JsDict(
            payload=values.decode(message.params, mapping=JsDict),
            timestamp=datetime.fromtimestamp(message.created_at / 1000),
            instanceId=message.instance_id,
            workflowName=message.workflow,
        )
        result = relaxed_call(instance.run, event, step)
        return await result if inspect.isawaitable(result) else result

    def _run_invocation(self, run: Run) -> Invocation:
        start = run.start_message
        return Invocation(
            start.instance_id, traceparent=start.traceparent, scope=run.number, instance=start.instance_id, live=run
        )

    def recorded(self, message: messages.RunRecorded) -> None:
        run = self.live.get(message.run)
        if run is not None:
            run.recorded()

    def deliver(self, message: messages.Deliver) -> None:
        run = self.live.get(message.run)
        if run is not None:
            run.deliver(message)

    def grant(self, message: messages.AttemptGranted) -> None:
        run = self.live.get(message.run)
        if run is not None:
            run.grant(message)

    def stop(self, message: messages.RunStop) -> None:
        self._pasts.pop(message.run, None)
        run = self.live.get(message.run)
        if run is not None:
            run.stop()

    def _run_ended(self, run: Run) -> None:
        self.live.pop(run.number, None)
        if not self.live:
            self._on_idle()

    def _unhandled(self, context: dict[str, Any]) -> None:
        """What asyncio would print about a run's tasks and futures: a log record instead."""
        error = context.get("exception")
        stack = to_error_value(error).stack if isinstance(error, BaseException) else ""
        self._logs.emit("error", str(context.get("message", "unhandled")), stack)


def _joined(parts: list[messages.RunPast], start: messages.RunStart) -> messages.RunStart:
    journal, blobs = [], dict(start.blobs)
    for part in parts:
        journal += part.journal
        blobs.update(part.blobs)
    return msgspec.structs.replace(start, journal=journal + start.journal, blobs=blobs)
