"""``engine.test.ts`` and ``delay.test.ts``: failures, delays, events, limits, restarts."""

from __future__ import annotations

import pytest
from tests.conformance.cloudflare.kit import Lab, covers, step_named, write_lab
from tests.integration.node.kit import ANode

ONE_STEP = """
@step.do("one", config=data)
async def one(ctx):
    note(ctx.attempt)
    {body}
return await one()
"""


@covers(64, 65)
def test_a_non_retryable_error_ends_the_step_after_one_attempt_with_its_name_and_message(lab: Lab) -> None:
    instance = lab.begin(ONE_STEP.format(body='raise NonRetryableError("broken for good")'))
    ended = lab.ended(instance)
    assert lab.notes(instance) == [1]
    error = {"name": "NonRetryableError", "message": "broken for good"}
    (attempt,) = step_named(ended, "one-1")["attempts"]
    assert attempt["error"] == error
    assert ended["error"] == error


@covers(64)
def test_an_error_whose_message_begins_so_is_not_retried_either(lab: Lab) -> None:
    instance = lab.begin(ONE_STEP.format(body='raise Exception("NonRetryableError: x")'))
    assert lab.ended(instance)["status"] == "errored"
    assert lab.notes(instance) == [1]


@covers(65)
def test_before_the_flag_became_the_default_the_message_is_cloudflares(lab: Lab) -> None:
    ended = lab.run(ONE_STEP.format(body='raise NonRetryableError("x")'), workflow="script-old")
    (attempt,) = step_named(ended, "one-1")["attempts"]
    assert attempt["error"] == {
        "name": "WorkflowFatalError",
        "message": 'Step threw a NonRetryableError with message "x"',
    }
    assert ended["error"] == {
        "name": "WorkflowFatalError",
        "message": "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError and it "
        "was not handled",
    }


@covers(66)
def test_a_failed_step_that_is_caught_does_not_fail_the_run(lab: Lab) -> None:
    ended = lab.run(
        """
        @step.do("fails", config={"retries": {"limit": 0, "delay": 0}})
        async def fails():
            raise TypeError("wrong")
        try:
            await fails()
        except TypeError as error:
            return str(error)
        """
    )
    assert (ended["status"], ended["output"]) == ("complete", "wrong")
    assert [attempt["success"] for attempt in step_named(ended, "fails-1")["attempts"]] == [False]


DELAYED = """
def delay(given):
    note([given.ctx.attempt, str(given.error)])
    {body}

@step.do("delayed", config={{"retries": {{"limit": 2, "delay": {function}}}}})
async def delayed(ctx):
    if ctx.attempt < 3:
        raise ValueError(f"attempt {{ctx.attempt}}")
    return ctx.config
return await delayed()
"""


@covers(67, 69)
@pytest.mark.parametrize("body", ["return 50", "return '50 milliseconds' if False else 50"])
def test_a_delay_function_is_asked_and_hidden_from_the_context(lab: Lab, body: str) -> None:
    instance = lab.begin(DELAYED.format(body=body, function="delay"))
    ended = lab.ended(instance)
    assert lab.notes(instance) == [[1, "attempt 1"], [2, "attempt 2"]]
    assert ended["output"] == {"retries": {"limit": 2, "backoff": "exponential"}, "timeout": "10 minutes"}


@covers(67)
def test_a_delay_function_may_be_asynchronous(lab: Lab) -> None:
    code = """
    async def delay(given):
        await asyncio.sleep(0)
        return "1 second"

    @step.do("delayed", config={"retries": {"limit": 1, "delay": delay}})
    async def delayed(ctx):
        if ctx.attempt == 1:
            raise ValueError("once")
        return ctx.attempt
    return await delayed()
    """
    assert lab.output(code) == 2


@covers(68)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no idea')", "threw an error: no idea"),
        (
            "return 'soon'",
            'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")',
        ),
        (
            "return -1",
            'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")',
        ),
    ],
)
def test_a_delay_function_that_fails_ends_the_step(lab: Lab, body: str, message: str) -> None:
    ended = lab.run(DELAYED.format(body=body, function="delay"))
    assert ended["error"] == {
        "name": "NonRetryableDelayError",
        "message": f'The delay function for step "delayed-1" {message}',
    }
    assert len(step_named(ended, "delayed-1")["attempts"]) == 1


WAITS = """
got = await step.wait_for_event("wait", "ready", timeout="1 hour")
return got.payload
"""


@covers(70)
def test_an_event_comes_while_the_run_is_active(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("send to myself")
        async def send():
            await (await env.FLOW.get(event["instanceId"])).send_event({"type": "ready", "payload": "mine"})
        await send()
        return (await step.wait_for_event("wait", "ready", timeout="1 hour")).payload
        """
    )
    assert lab.ended(instance)["output"] == "mine"


@covers(71)
def test_an_event_wakes_a_run_whose_isolate_is_gone(lab: Lab) -> None:
    instance = lab.begin(WAITS)
    lab.waiting(instance)
    lab.kill_isolate()
    lab.send(instance, "ready", "after all")
    assert lab.ended(instance)["output"] == "after all"


@covers(72)
def test_a_waiter_that_timed_out_takes_no_later_event(lab: Lab) -> None:
    instance = lab.begin(
        """
        try:
            await step.wait_for_event("late", "ready", timeout=30)
        except Exception as error:
            note([type(error).__name__, str(error)])
        first = await step.wait_for_event("second", "ready", timeout="1 hour")
        second = await step.wait_for_event("third", "ready", timeout="1 hour")
        return [first.payload, second.payload]
        """
    )
    lab.node.ended("script", instance, "waiting")
    lab.send(instance, "ready", 1)
    lab.send(instance, "ready", 2)
    ended = lab.ended(instance)
    assert ended["output"] == [1, 2]
    assert lab.notes(instance)[0] == ["WorkflowTimeoutError", "Execution timed out after 30ms"]
    waits = [(step["name"], step["error"] is None) for step in ended["steps"]]
    assert waits == [("late-1", False), ("second-1", True), ("third-1", True)]


def test_events_wait_in_the_order_of_their_coming_for_who_asks_first(lab: Lab) -> None:
    instance = lab.begin(
        """
        await step.wait_for_event("start", "go", timeout="1 hour")
        one = [(await step.wait_for_event(f"wait {n}", "item", timeout="1 hour")).payload for n in range(2)]
        two = await asyncio.gather(*(step.wait_for_event(f"more {n}", "item", timeout="1 hour") for n in range(2)))
        return [one, [each.payload for each in two]]
        """
    )
    lab.waiting(instance)
    for number in range(3):
        lab.send(instance, "item", number)
    lab.send(instance, "go")
    lab.node.ended("script", instance, "waiting")
    lab.send(instance, "item", 3)
    assert lab.ended(instance)["output"] == [[0, 1], [2, 3]]


@covers(73)
def test_the_status_survives_the_end_of_the_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    workspace = tmp_path_factory.mktemp("restart")
    write_lab(workspace)
    with ANode(workspace) as node:
        first = Lab(node)
        instance = first.begin("note(1)\n" + WAITS)
        before = first.waiting(instance)
    with ANode(workspace) as node:
        second = Lab(node)
        after = second.node.instance("script", instance)
        assert (after["status"], after["start"]) == ("waiting", before["start"])
        second.send(instance, "ready", "still here")
        assert second.ended(instance)["output"] == "still here"


@covers(74, 75)
@pytest.mark.parametrize("result", ["b'x' * 200_000", "{'deep': [b'x' * 200_000]}"])
def test_large_binary_results_can_be_described(lab: Lab, result: str) -> None:
    ended = lab.run(
        f"""
        @step.do("binary")
        async def binary():
            return {result}
        await binary()
        """
    )
    assert step_named(ended, "binary-1")["success"] is True


def steps(number: int) -> str:
    return f"""
    for n in range({number}):
        @step.do(f"step {{n}}")
        async def one():
            note(n)
        await one()
        await step.sleep("does not count", 0)
    return "done"
    """


@covers(76)
def test_one_step_over_the_limit_fails_the_run(lab: Lab) -> None:
    instance = lab.begin(steps(6), workflow="limited")
    ended = lab.ended(instance, workflow="limited")
    assert ended["error"] == {
        "name": "WorkflowFatalError",
        "message": "The limit of 5 steps has been reached. This limit can be changed in your worker configuration.",
    }
    assert lab.notes(instance) == [0, 1, 2, 3, 4]


@covers(77)
def test_exactly_as_many_steps_as_the_limit_are_fine(lab: Lab) -> None:
    assert lab.output(steps(5), workflow="limited") == "done"


@covers(78)
def test_the_default_limit_is_ten_thousand_steps(lab: Lab) -> None:
    (version,) = lab.node.result("/workflows/script/versions")
    assert version["limits"]["steps"] == 10_000


@covers(79)
@pytest.mark.parametrize(
    ("code", "status"),
    [("return 1", "complete"), ("raise ValueError('x')", "errored")],
)
def test_what_has_ended_cannot_be_terminated(lab: Lab, code: str, status: str) -> None:
    instance = lab.begin(code)
    assert lab.ended(instance)["status"] == status
    message = terminate_by_binding(lab, instance)
    assert "Cannot terminate instance since its on a finite state" in message


@covers(80, 81)
def test_what_is_terminated_cannot_be_terminated_again(lab: Lab) -> None:
    instance = lab.begin("await step.sleep('long', '1 hour')")
    lab.waiting(instance)
    assert terminate_by_binding(lab, instance) == ""
    assert "(instance.cannot_terminate)" in terminate_by_binding(lab, instance)


def terminate_by_binding(lab: Lab, instance: str) -> str:
    said = lab.bind(
        """
        try:
            await (await env.FLOW.get(data)).terminate()
        except Exception as error:
            return str(error)
        return ""
        """,
        instance,
    )
    assert isinstance(said, str)
    return said


# -- time-outs (section 3.7) ------------------------------------------------------------------------------------------


def test_an_attempt_over_its_time_out_fails_and_its_late_result_is_dropped(lab: Lab) -> None:
    instance = lab.begin(
        """
        late = asyncio.Event()
        @step.do("slow", config={"timeout": 60, "retries": {"limit": 1, "delay": 1}})
        async def slow(ctx):
            if ctx.attempt == 1:
                await late.wait()
                note("late")
                return "late"
            late.set()
            await asyncio.sleep(0)
            return "second"
        return await slow()
        """
    )
    ended = lab.ended(instance)
    assert ended["output"] == "second"
    first, _ = step_named(ended, "slow-1")["attempts"]
    assert first["error"] == {"name": "WorkflowTimeoutError", "message": "Execution timed out after 60ms"}
    assert lab.notes(instance) == ["late"]


def test_what_leaves_the_run_and_is_no_exception_of_the_program_is_its_error(lab: Lab) -> None:
    ended = lab.run("raise KeyError('missing')")
    assert ended["error"] == {"name": "KeyError", "message": "'missing'"}
