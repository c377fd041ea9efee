"""``step``: what a workflow's ``run(event, step)`` gets. Names, modes and texts are Cloudflare's.

``step.do`` makes a decorator, and the decorated function an asynchronous callable; nothing runs before it is called.
There are two ways to name dependencies. With the flag ``python_workflows_implicit_dependencies`` (on by default from
2026-02-25) each parameter of the callback is matched by name with a step declared before; without it, ``depends``
lists them in order. A parameter named ``ctx`` gets the step's context in both.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import msgspec

from stellwerk.core.ids import is_event_type, is_step_name
from stellwerk.core.limits import SLEEP_MS_MAX
from stellwerk.core.times import parse_duration_ms
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, InvalidStepConfigError, StepConfig, parse_config
from stellwerk.isolate.failures import WorkflowFatalError
from stellwerk.isolate.workflow.attempts import now_ms
from stellwerk.isolate.workflow.run import Run
from stellwerk.isolate.workflow.waits import sleep_until_ms, wait_for_event

_MISSING: Any = object()


_DEFAULT: tuple[StepConfig, None] = (DEFAULT_CONFIG, None)
_parameters: dict[CodeType | None, tuple[str, ...]] = {}  # by code: a step in a loop is declared again and again
_checked: set[str] = set()
REMEMBERED_MAX = 4_096  # code objects and names that are looked at once only; then the tables start anew


def _read_parameters(fn: Callable[..., Any], code: CodeType | None) -> tuple[str, ...]:
    names = tuple(inspect.signature(fn).parameters)
    if code is not None:
        if len(_parameters) >= REMEMBERED_MAX:
            _parameters.clear()
        _parameters[code] = names
    return names


class StepFunction(msgspec.Struct, eq=False, dict=True, weakref=True):
    """A declared step: calling it runs it, and every call is a step of its own."""

    step: WorkflowStep
    name: str
    fn: Callable[..., Any]
    names: tuple[str, ...]  # of its parameters
    depends: Sequence[StepFunction] | None
    concurrent: bool
    config: StepConfig
    delay: Callable[..., Any] | None

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.fn

    @property
    def __name__(self) -> str:
        return getattr(self.fn, "__name__", self.name)

    async def __call__(self) -> Any:
        step, names = self.step, self.names
        if names or self.depends:
            args = await step._arguments(self)
            value = await step._run.perform(self, args, "ctx" in names)
        else:
            value = await step._run.perform(self, _NO_ARGS, False)
        step._results[self.name] = value
        return value


_NO_ARGS: dict[str, Any] = {}


class WorkflowStep:
    """The ``step`` object of one life of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._results: dict[str, Any] = {}
        self._in_flight: dict[str, asyncio.Task[Any]] = {}

    def do(
        self, name: str | None = None, *, concurrent: bool = False, config: object = None
    ) -> Callable[[Callable[..., Any]], StepFunction]:
        """Declares a step whose parameters name the steps that it depends on."""
        return partial(_declare, self, name, None, concurrent, config)

    async def sleep(self, name: str, duration: object) -> None:
        """Sleeps durably. ``duration``: milliseconds, or a string such as ``"30 seconds"``; at most 365 days."""
        _check_name(name)
        await sleep_until_ms(self._run, name, now_ms() + parse_duration_ms(duration))

    async def sleep_until(self, name: str, timestamp: object) -> None:
        """Sleeps until a time: a datetime (naive: local time), an ISO string, or milliseconds since the epoch."""
        _check_name(name)
        wake_at = min(_moment_ms(timestamp), now_ms() + SLEEP_MS_MAX)
        if wake_at < now_ms() and not self._run.replay.next_has_begun("sleep", name):
            raise ValueError("You can't sleep until a time in the past, time-traveler")
        await sleep_until_ms(self._run, name, wake_at)

    async def wait_for_event(self, name: str, event_type: str, /, timeout: object = "24 hours") -> Any:
        """Waits for an event of a type; ``{payload, timestamp, type}``. Raises ``WorkflowTimeoutError``."""
        _check_name(name)
        if not is_event_type(event_type):
            raise WorkflowFatalError(
                f'Event type "{event_type}" is not valid: letters, digits, "-" and "_", at most 100 characters'
            )
        return await wait_for_event(self._run, name, event_type, timeout)

    # -- dependencies -------------------------------------------------------------------------------------------------

    async def _arguments(self, step: StepFunction) -> dict[str, Any]:
        wanted = [name for name in step.names if name != "ctx"]
        targets = self._dependencies(step, wanted)
        if step.concurrent:
            results = await asyncio.gather(*(self._resolve(target) for target in targets))
        else:
            results = [await self._resolve(target) for target in targets]
        return dict(zip(wanted, results, strict=True))

    def _dependencies(self, step: StepFunction, wanted: list[str]) -> Sequence[StepFunction]:
        found = []
        for name in wanted:
            target = self._run.declared.get(name)
            if target is None or target is step:
                raise TypeError(f"Received unexpected parameter {name}")
            found.append(target)
        return found

    async def _resolve(self, step: StepFunction) -> Any:
        """The result of a dependency: remembered, under way already, or run now. By name, as Cloudflare does."""
        known = self._results.get(step.name, _MISSING)
        if known is not _MISSING:
            return known
        task = self._in_flight.get(step.name)
        if task is None:
            task = self._in_flight[step.name] = asyncio.ensure_future(step())
        return await task


class ListedWorkflowStep(WorkflowStep):
    """``step`` without the flag: dependencies are listed, in the order of the callback's parameters."""

    def do(
        self, name: str | None = None, depends: Any = None, concurrent: bool = False, config: object = None
    ) -> Callable[[Callable[..., Any]], StepFunction]:
        """Declares a step whose dependencies stand in ``depends``."""
        return partial(_declare, self, name, depends, concurrent, config)

    def _dependencies(self, step: StepFunction, wanted: list[str]) -> Sequence[StepFunction]:
        depends = step.depends
        if depends is None:
            if wanted:
                raise TypeError(f"Step has {len(wanted)} non-ctx parameter(s) but no 'depends' list provided")
            return []
        if len(depends) != len(wanted):
            raise TypeError(
                f"Step declares {len(wanted)} non-ctx parameter(s) but 'depends' has {len(depends)} item(s)"
            )
        return depends


def _declare(
    step: WorkflowStep, name: str | None, depends: Any, concurrent: bool, config: object, fn: Callable[..., Any]
) -> StepFunction:
    label = fn.__name__ if name is None else name
    if label not in _checked:
        _check_name(label)
    # What a method is bound to, and what functools.wraps has noted, is not in the code.
    code = fn.__code__ if type(fn) is FunctionType and not fn.__dict__ else None
    names = _parameters.get(code)
    if names is None:
        names = _read_parameters(fn, code)
    parsed, delay = _DEFAULT if config is None else _parse(label, config)
    declared = step._run.declared[label] = StepFunction(step, label, fn, names, depends, concurrent, parsed, delay)
    return declared


def _parse(name: str, config: object) -> tuple[StepConfig, Callable[..., Any] | None]:
    try:
        parsed = parse_config(name, config)
    except InvalidStepConfigError as error:
        raise WorkflowFatalError(str(error)) from None
    delay = None
    if (
        isinstance(config, dict)
        and isinstance(config.get("retries"), dict)
        and callable(config["retries"].get("delay"))
    ):
        delay = config["retries"]["delay"]
    return parsed, delay


def _check_name(name: str) -> None:
    if name in _checked:
        return
    if not (isinstance(name, str) and is_step_name(name)):
        raise WorkflowFatalError(f'Step name "{name}" exceeds max length (256 chars) or invalid characters found')
    if len(_checked) >= REMEMBERED_MAX:
        _checked.clear()
    _checked.add(name)


def _moment_ms(timestamp: object) -> int:
    if isinstance(timestamp, datetime):
        return int(timestamp.timestamp() * 1000)
    if isinstance(timestamp, str):
        return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        return int(timestamp)
    raise TypeError(f"Not a time: {timestamp!r}; expected a datetime, an ISO string, or milliseconds since the epoch")
