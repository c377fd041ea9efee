"""How a journal is shown: entries in, Cloudflare's description out."""

from __future__ import annotations

import json
from typing import Any

from stellwerk.core.times import iso_from_ms
from stellwerk.core.workflow import entries as e
from stellwerk.core.workflow.entries import AnyEntry, BlobRef, ErrorValue
from stellwerk.core.workflow.status import Status
from stellwerk.core.workflow.steps import UNLIMITED, StepConfig
from stellwerk.node.api.journal import SENSITIVE, blob_hashes, explain, render_instance, render_steps, show_values
from stellwerk.store.base import InstanceRow
from stellwerk.wire import values

ERROR = ErrorValue(name="ValueError", message="no", stack="secret path")
SHOW = show_values(values.to_jsonable, {})


def steps_of(*journal: AnyEntry) -> list[dict[str, Any]]:
    return render_steps(list(journal), SHOW)


def an_instance(status: Status, **changes: Any) -> InstanceRow:
    known: dict[str, Any] = {
        "account_id": "local",
        "workflow": "pipeline",
        "instance_id": "a",
        "incarnation": 1,
        "status": status,
        "worker": "orders",
        "version_id": "v1",
        "class_name": "Pipeline",
        "created_at": 1,
        "modified_at": 1,
    }
    return InstanceRow(**{**known, **changes})


def succeeded(at: int, *, attempt: int = 1, started_at: int = 0, sensitive: bool = False) -> AnyEntry:
    return e.StepSucceeded(
        at=at,
        key="do:a-1",
        name="a",
        count=1,
        attempt=attempt,
        started_at=started_at,
        value=values.encode(7),
        delivery=1,
        sensitive=sensitive,
    )


def failed(at: int, *, attempt: int, started_at: int, retry_at: int) -> AnyEntry:
    return e.AttemptFailed(
        at=at, key="do:a-1", name="a", count=1, attempt=attempt, started_at=started_at, error=ERROR, retry_at=retry_at
    )


def test_a_step_that_failed_twice_shows_three_attempts_and_the_first_start() -> None:
    [step] = steps_of(
        failed(20, attempt=1, started_at=10, retry_at=30),
        failed(40, attempt=2, started_at=30, retry_at=50),
        succeeded(60, attempt=3, started_at=50),
    )
    assert (step["name"], step["success"], step["output"]) == ("a-1", True, 7)
    assert (step["start"], step["end"]) == (iso_from_ms(10), iso_from_ms(60))
    assert [attempt["success"] for attempt in step["attempts"]] == [False, False, True]
    assert [attempt["start"] for attempt in step["attempts"]] == [iso_from_ms(at) for at in (10, 30, 50)]
    assert step["attempts"][0]["error"] == {"name": "ValueError", "message": "no"}
    assert "retryAt" not in step


def test_a_running_step_has_an_open_attempt_and_a_configuration_that_wrangler_can_read() -> None:
    [step] = steps_of(e.AttemptStarted(at=5, key="do:a-1", name="a", count=1, attempt=1))
    assert step["success"] is None
    assert step["attempts"] == [{"start": iso_from_ms(5), "end": None, "success": None, "error": None}]
    assert step["config"]["retries"]["delay"] == 1_000


def test_an_announced_attempt_and_its_end_are_one_attempt() -> None:
    [step] = steps_of(e.AttemptStarted(at=5, key="do:a-1", name="a", count=1, attempt=1), succeeded(9, started_at=4))
    assert len(step["attempts"]) == 1
    assert step["attempts"][0]["end"] == iso_from_ms(9)


def test_an_interrupted_attempt_says_what_interrupted_it_and_the_step_goes_on() -> None:
    started = e.AttemptStarted(at=5, key="do:a-1", name="a", count=1, attempt=1)
    [step] = steps_of(started, e.AttemptInterrupted(at=6, key="do:a-1", attempt=1, cause="node ended"), succeeded(9))
    assert [attempt["success"] for attempt in step["attempts"]] == [False, True]
    assert step["attempts"][0]["error"] == {"name": "Interrupted", "message": "node ended"}
    assert step["success"] is True


def test_a_run_interruption_closes_attempts_that_were_open() -> None:
    started = e.AttemptStarted(at=5, key="do:a-1", name="a", count=1, attempt=1)
    [step] = steps_of(started, e.RunInterrupted(at=6, cause="isolate lost"))
    assert step["attempts"][0]["end"] == iso_from_ms(6)
    assert step["success"] is None


def test_a_step_that_failed_for_good_shows_its_error() -> None:
    errored = e.StepErrored(at=9, key="do:a-1", name="a", count=1, attempt=1, started_at=4, error=ERROR, delivery=1)
    [step] = steps_of(errored)
    assert (step["success"], step["error"]) == (False, {"name": "ValueError", "message": "no"})


def test_a_sensitive_output_is_not_shown() -> None:
    [step] = steps_of(succeeded(9, sensitive=True))
    assert step["output"] == SENSITIVE


def test_a_sleep_is_finished_when_its_timer_fired_and_a_hidden_one_is_not_shown() -> None:
    visible = e.SleepStarted(at=1, key="sleep:n-1", name="n", count=1, wake_at=50)
    hidden = e.SleepStarted(at=1, key="sleep:h-1", name="h", count=1, wake_at=50, hidden=True)
    [sleep] = steps_of(visible, hidden)
    assert (sleep["type"], sleep["finished"], sleep["end"]) == ("sleep", False, iso_from_ms(50))
    [sleep] = steps_of(visible, hidden, e.SleepCompleted(at=51, key="sleep:n-1", delivery=1))
    assert (sleep["finished"], sleep["end"]) == (True, iso_from_ms(51))
    assert "hidden" not in sleep


def test_a_wait_shows_its_event_or_its_time_out() -> None:
    wait = e.WaitStarted(at=1, key="wait:w-1", name="w", count=1, event_type="shipped", timeout_at=99, timeout_ms=98)
    done = e.WaitCompleted(
        at=5, key="wait:w-1", event_type="shipped", payload=values.encode("p"), event_at=4, delivery=1
    )
    [shown] = steps_of(wait, done)
    assert (shown["type"], shown["finished"], shown["output"], shown["error"]) == ("waitForEvent", True, "p", None)
    [shown] = steps_of(wait, e.WaitTimedOut(at=99, key="wait:w-1", error=ERROR, delivery=1))
    assert (shown["finished"], shown["error"]["name"]) == (True, "ValueError")


def test_steps_stand_in_the_order_in_which_they_were_asked_for() -> None:
    steps = steps_of(
        e.AttemptStarted(at=1, key="do:a-1", name="a", count=1, attempt=1),
        e.SleepStarted(at=2, key="sleep:n-1", name="n", count=1, wake_at=3),
        succeeded(5),
        e.Terminated(at=6, trigger="api"),
    )
    assert [step["type"] for step in steps] == ["step", "sleep", "termination"]


def test_unlimited_retries_are_still_json() -> None:
    config = StepConfig(retries=UNLIMITED)
    [step] = steps_of(e.AttemptStarted(at=1, key="do:a-1", name="a", count=1, attempt=1, config=config))
    assert json.loads(json.dumps(step, allow_nan=False))["config"]["retries"]["limit"] is None


def test_a_blob_that_is_gone_is_said() -> None:
    ref = BlobRef(sha256="ab", size=9)
    done = e.Completed(at=1, value=ref)
    assert blob_hashes([done, e.EventReceived(at=1, event_type="x", payload=b"")]) == ["ab"]
    shown = render_instance(an_instance(Status.COMPLETE), [done], SHOW)
    assert shown["output"] == "[missing blob ab, 9 bytes]"


def test_an_errored_instance_has_cloudflares_shape() -> None:
    journal: list[AnyEntry] = [
        e.Created(
            at=1,
            params=values.encode({}),
            worker="orders",
            version_id="v1",
            class_name="Pipeline",
            trigger="binding",
            manifest={"orders": "v1"},
            steps_max=10,
        ),
        e.Errored(at=9, error=ERROR),
    ]
    shown = render_instance(an_instance(Status.ERRORED, ended_at=9), journal, SHOW)
    assert (shown["success"], shown["error"]) == (False, {"name": "ValueError", "message": "no"})
    assert shown["versionId"] == "v1"
    assert shown["stellwerk"]["manifest"] == {"orders": "v1"}
    assert "secret path" not in json.dumps(shown)


def test_a_waiting_instance_says_what_it_waits_for() -> None:
    wait = e.WaitStarted(at=1, key="wait:w-1", name="w", count=1, event_type="shipped", timeout_at=99, timeout_ms=98)
    row = an_instance(Status.WAITING, wake_at=99)
    assert explain(row, [wait]) == f'waits for the event "shipped" until {iso_from_ms(99)}'
    retry = failed(20, attempt=1, started_at=10, retry_at=30)
    assert 'the next attempt of "a"' in explain(row, [retry])
    assert explain(row, [retry, succeeded(40)]) == f"waits until {iso_from_ms(99)}"
    assert explain(an_instance(Status.PAUSED), [e.Paused(at=1, reason="diverged at a")]) == "paused: diverged at a"
    assert explain(an_instance(Status.COMPLETE), []) == ""
