"""An instance's journal as Cloudflare's API describes an instance: steps, attempts, sleeps, waits, the end.

Pure: entries in, JSON out. What Cloudflare has no word for (incarnation, run manifest, why it waits) stands under
``stellwerk``, where its clients do not look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stellwerk.core.times import iso_from_ms
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.entries import AnyEntry, BlobRef, ErrorValue
from stellwerk.core.workflow.status import TERMINAL, Status
from stellwerk.core.workflow.steps import DEFAULT_CONFIG, UNLIMITED, StepConfig
from stellwerk.store.base import InstanceRow

Show = Callable[[bytes | BlobRef], Any]
"""A stored value to JSON."""

SENSITIVE = "[REDACTED]"
INTERRUPTED = "Interrupted"


def blob_hashes(entries: Iterable[AnyEntry]) -> list[str]:
    """The blobs that a description of these entries needs."""
    values = (getattr(entry, name, None) for entry in entries for name in ("params", "value", "payload"))
    return sorted({value.sha256 for value in values if isinstance(value, BlobRef)})


def show_values(to_jsonable: Callable[[bytes], Any], blobs: Mapping[str, bytes]) -> Show:
    """How values are shown, large ones from ``blobs``. A blob that is gone is said, not hidden."""

    def show(value: bytes | BlobRef) -> Any:
        if isinstance(value, BlobRef):
            data = blobs.get(value.sha256)
            return f"[missing blob {value.sha256}, {value.size} bytes]" if data is None else to_jsonable(data)
        return to_jsonable(value)

    return show


def render_instance(row: InstanceRow, entries: list[AnyEntry], show: Show) -> dict[str, Any]:
    """The instance in the shape of ``GET .../instances/{id}``."""
    created = next((entry for entry in entries if isinstance(entry, e.Created)), None)
    final = next((entry for entry in reversed(entries) if isinstance(entry, e.Completed | e.Errored)), None)
    ended = row.status in TERMINAL
    rendered: dict[str, Any] = {
        "status": row.status.value,
        "params": show(created.params) if created else None,
        "trigger": {"source": created.trigger if created else "unknown"},
        "versionId": row.version_id,
        "queued": iso_from_ms(row.created_at),
        "start": _moment(row.started_at),
        "end": _moment(row.ended_at) if ended else None,
        "success": row.status is Status.COMPLETE if ended else None,
        "error": render_error(final.error) if isinstance(final, e.Errored) else None,
        "output": show(final.value) if isinstance(final, e.Completed) else None,
        "steps": render_steps(entries, show),
    }
    rendered["stellwerk"] = {
        "incarnation": row.incarnation,
        "worker": row.worker,
        "class_name": row.class_name,
        "manifest": dict(created.manifest) if created else {},
        "wake": _moment(row.wake_at),
        "entries": len(entries),
        "why": explain(row, entries),
    }
    return rendered


def render_steps(entries: list[AnyEntry], show: Show) -> list[dict[str, Any]]:
    """Steps, sleeps and waits in the order in which the program asked for them, then the termination if any."""
    story = _Story(show)
    for entry in entries:
        story.tell(entry)
    return [step for step in story.steps.values() if not step.pop("hidden", False)] + story.tail


class _Story:
    """Grows one dictionary per step key while the entries pass by."""

    def __init__(self, show: Show) -> None:
        self._preserving = True
        self.steps: dict[str, dict[str, Any]] = {}
        self.tail: list[dict[str, Any]] = []
        self._show = show

    def tell(self, entry: AnyEntry) -> None:
        match entry:
            case e.StepSucceeded() | e.StepErrored() | e.AttemptFailed() | e.AttemptStarted() | e.AttemptInterrupted():
                self._tell_step(entry)
            case e.SleepStarted() | e.SleepCompleted() | e.SleepCancelled():
                self._tell_sleep(entry)
            case e.WaitStarted() | e.WaitCompleted() | e.WaitTimedOut():
                self._tell_wait(entry)
            case e.Created():
                self._preserving = entry.preserve_non_retryable
            case e.Terminated():
                self.tail.append(
                    {"type": "termination", "at": iso_from_ms(entry.at), "trigger": {"source": entry.trigger}}
                )
            case e.RunInterrupted():
                for step in self.steps.values():
                    _interrupt(step, entry.at, entry.cause)
            case _:
                pass

    def _tell_step(
        self, entry: e.StepSucceeded | e.StepErrored | e.AttemptFailed | e.AttemptStarted | e.AttemptInterrupted
    ) -> None:
        if isinstance(entry, e.AttemptInterrupted):
            if entry.key in self.steps:
                _interrupt(self.steps[entry.key], entry.at, entry.cause)
            return
        begun = entry.at if isinstance(entry, e.AttemptStarted) else entry.started_at
        step = self.steps.setdefault(entry.key, _new_step(entry.name, entry.count, begun, entry.config))
        if isinstance(entry, e.AttemptStarted):
            step["attempts"].append(_attempt(begun))
            return
        attempt = _open_attempt(step, begun)
        attempt["end"] = iso_from_ms(entry.at)
        attempt["success"] = isinstance(entry, e.StepSucceeded)
        if isinstance(entry, e.StepSucceeded):
            step.update(end=attempt["end"], success=True)
            step["output"] = SENSITIVE if entry.sensitive else self._show(entry.value)
            return
        attempt["error"] = self._attempt_error(entry.error)
        if isinstance(entry, e.StepErrored):
            step.update(end=attempt["end"], success=False, error=attempt["error"])
        else:
            step["retryAt"] = iso_from_ms(entry.retry_at)

    def _attempt_error(self, error: ErrorValue) -> dict[str, str]:
        """As Cloudflare's logs have it: until the date of a compatibility flag they hid what a step threw for good."""
        if self._preserving or error.name != "NonRetryableError":
            return render_error(error)
        return {
            "name": "WorkflowFatalError",
            "message": f'Step threw a NonRetryableError with message "{error.message}"',
        }

    def _tell_sleep(self, entry: e.SleepStarted | e.SleepCompleted | e.SleepCancelled) -> None:
        if isinstance(entry, e.SleepStarted):
            self.steps[entry.key] = {
                "type": "sleep",
                "name": _label(entry.name, entry.count),
                "start": iso_from_ms(entry.at),
                "end": iso_from_ms(entry.wake_at),
                "finished": False,
                "error": None,
                "hidden": entry.hidden,
            }
        elif entry.key in self.steps:
            self.steps[entry.key].update(end=iso_from_ms(entry.at), finished=True)

    def _tell_wait(self, entry: e.WaitStarted | e.WaitCompleted | e.WaitTimedOut) -> None:
        if isinstance(entry, e.WaitStarted):
            self.steps[entry.key] = {
                "type": "waitForEvent",
                "name": _label(entry.name, entry.count),
                "start": iso_from_ms(entry.at),
                "end": iso_from_ms(entry.timeout_at),
                "finished": False,
                "eventType": entry.event_type,
                "output": None,
                "error": None,
            }
        elif entry.key in self.steps:
            step = self.steps[entry.key]
            step.update(end=iso_from_ms(entry.at), finished=True)
            if isinstance(entry, e.WaitCompleted):
                step["output"] = self._show(entry.payload)
            else:
                step["error"] = render_error(entry.error)


def _new_step(name: str, count: int, begun_at: int, config: StepConfig | None) -> dict[str, Any]:
    return {
        "type": "step",
        "name": _label(name, count),
        "start": iso_from_ms(begun_at),
        "end": None,
        "success": None,
        "output": None,
        "error": None,
        "config": render_config(config),
        "attempts": [],
    }


def _attempt(begun_at: int) -> dict[str, Any]:
    return {"start": iso_from_ms(begun_at), "end": None, "success": None, "error": None}


def _open_attempt(step: dict[str, Any], begun_at: int) -> dict[str, Any]:
    """The attempt that an ending belongs to: the one that was announced, else a new one (first attempts are lazy)."""
    attempts: list[dict[str, Any]] = step["attempts"]
    if attempts and attempts[-1]["end"] is None:
        attempts[-1]["start"] = iso_from_ms(begun_at)
    else:
        attempts.append(_attempt(begun_at))
    step.pop("retryAt", None)
    return attempts[-1]


def _interrupt(step: dict[str, Any], at: int, cause: str) -> None:
    """Ends an attempt that something else ended. ``success`` False, and a name that says it did not fail by itself."""
    attempts = step.get("attempts")
    if attempts and attempts[-1]["end"] is None:
        attempts[-1].update(end=iso_from_ms(at), success=False, error={"name": INTERRUPTED, "message": cause})


def _label(name: str, count: int) -> str:
    """``name-count``, as Cloudflare's log names a step."""
    return f"{name}-{count}"


def render_config(config: StepConfig | None) -> dict[str, Any]:
    """A step's configuration; JSON has no Infinity, so unlimited retries are shown as null."""
    shown = config or DEFAULT_CONFIG
    return {
        "retries": {
            "limit": None if shown.retries == UNLIMITED else shown.retries,
            "delay": shown.delay,
            "backoff": shown.backoff,
        },
        "timeout": shown.timeout,
    }


def render_error(error: ErrorValue) -> dict[str, str]:
    """Cloudflare shows name and message; the stack stays in the journal and the log."""
    return {"name": error.name, "message": error.message}


def explain(row: InstanceRow, entries: list[AnyEntry]) -> str:
    """One line: why the instance is where it is."""
    match row.status:
        case Status.QUEUED:
            return "waits for its turn to run"
        case Status.WAITING:
            return _explain_waiting(row, entries)
        case Status.PAUSED:
            reasons = [entry.reason for entry in entries if isinstance(entry, e.Paused)]
            return f"paused: {reasons[-1]}" if reasons else "paused"
        case Status.ERRORED:
            errors = [entry.error for entry in entries if isinstance(entry, e.Errored)]
            return f"failed: {errors[-1].name}: {errors[-1].message}" if errors else "failed"
        case _:
            return ""


def _explain_waiting(row: InstanceRow, entries: list[AnyEntry]) -> str:
    open_waits: dict[str, str] = {}
    for entry in entries:
        match entry:
            case e.WaitStarted():
                open_waits[entry.key] = f'the event "{entry.event_type}" until {iso_from_ms(entry.timeout_at)}'
            case e.SleepStarted():
                open_waits[entry.key] = f"{iso_from_ms(entry.wake_at)} ({entry.name})"
            case e.AttemptFailed():
                open_waits[entry.key] = f'the next attempt of "{entry.name}" at {iso_from_ms(entry.retry_at)}'
            case (
                e.WaitCompleted()
                | e.WaitTimedOut()
                | e.SleepCompleted()
                | e.SleepCancelled()
                | e.StepSucceeded()
                | e.StepErrored()
                | e.AttemptStarted()
            ):
                open_waits.pop(entry.key, None)
            case _:
                pass
    if open_waits:
        return "waits for " + ", ".join(open_waits.values())
    return f"waits until {iso_from_ms(row.wake_at)}" if row.wake_at is not None else "waits"


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_from_ms(at_ms)
