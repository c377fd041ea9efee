"""The Python side: Cloudflare's ``bindings-test/test_workflow.py`` and workerd's ``workflow-entrypoint`` test."""

from __future__ import annotations

from tests.conformance.cloudflare.kit import Lab


def test_ten_and_five_make_fifteen_by_the_names_of_parameters(lab: Lab) -> None:
    code = """
    @step.do("first")
    async def a():
        return 10
    @step.do("second")
    async def b():
        return 5
    @step.do("sum")
    async def total(first, second):
        return first + second
    return await total()
    """
    assert lab.output(code) == 15


def test_a_step_without_a_name_is_called_like_its_function(lab: Lab) -> None:
    code = """
    @step.do()
    async def first():
        return 2
    @step.do()
    async def second(ctx, first):
        return [ctx.step.name, first]
    return await second()
    """
    assert lab.output(code) == ["second", 2]


def test_concurrent_dependencies_run_at_once_and_each_only_once(lab: Lab) -> None:
    instance = lab.begin(
        """
        together = asyncio.Barrier(2)
        @step.do("two")
        async def two():
            note("two")
            await together.wait()
            return 2
        @step.do("three")
        async def three():
            note("three")
            await together.wait()
            return 3
        @step.do("product", concurrent=True)
        async def product(two, three):
            return two * three
        @step.do("again", concurrent=True)
        async def again(two, product):
            return [two, product]
        return await again()
        """
    )
    assert lab.ended(instance)["output"] == [2, 6]
    assert sorted(lab.notes(instance)) == ["three", "two"]


def test_a_sleep_of_nothing_and_one_until_soon(lab: Lab) -> None:
    code = """
    await step.sleep("nap", 0)
    await step.sleep_until("soon", datetime.now() + timedelta(milliseconds=100))
    return "awake"
    """
    ended = lab.run(code)
    assert ended["output"] == "awake"
    assert [(step["type"], step["name"], step["finished"]) for step in ended["steps"]] == [
        ("sleep", "nap-1", True),
        ("sleep", "soon-1", True),
    ]


def test_nobody_sleeps_until_the_past(lab: Lab) -> None:
    error = lab.run("await step.sleep_until('past', datetime.now() - timedelta(days=1))")["error"]
    assert error["message"] == "You can't sleep until a time in the past, time-traveler"


def test_a_step_memoised_under_its_name_is_not_run_again_as_a_dependency(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("base")
        async def base():
            note("base")
            return 1
        @step.do("step_4")
        async def four(base):
            return base + 3
        @step.do("step_5")
        async def five(base, step_4):
            return base + step_4
        return [await four(), await five(), await base(), await base()]
        """
    )
    assert lab.ended(instance)["output"] == [4, 5, 1, 1]
    assert lab.notes(instance) == ["base"] * 3  # as a dependency once, and once for each direct call


def test_a_failing_dependency_prevents_what_depends_on_it(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("fails", config={"retries": {"limit": 0, "delay": 0}})
        async def fails():
            raise ValueError("the first one")
        @step.do("depends")
        async def depends(fails):
            note("must not run")
        try:
            await depends()
        except ValueError as error:
            return str(error)
        """
    )
    assert lab.ended(instance)["output"] == "the first one"
    assert lab.notes(instance) == []


def test_an_unknown_parameter_is_an_error_at_the_call(lab: Lab) -> None:
    code = """
    @step.do("one")
    async def one(unknown, ctx=None):
        note("must not run")
    try:
        await one()
    except TypeError as error:
        return str(error)
    """
    assert lab.output(code) == "Received unexpected parameter unknown"


LISTED = """
@step.do("first")
async def first():
    return 1
@step.do("second")
async def second():
    return 2
{rest}
"""


def test_before_the_flag_dependencies_are_listed_in_order_with_ctx_anywhere(lab: Lab) -> None:
    rest = """
@step.do("third", depends=[first, second], concurrent=True)
async def third(left, ctx, right):
    return [left, ctx.step.name, right]
return await third()
"""
    assert lab.output(LISTED.format(rest=rest), workflow="script-old") == [1, "third", 2]


def test_before_the_flag_a_wrong_number_of_dependencies_is_an_error(lab: Lab) -> None:
    rest = """
found = []
@step.do("fewer", [first])
async def fewer(a, b):
    pass
@step.do("none")
async def none(a):
    pass
for each in (fewer, none):
    try:
        await each()
    except TypeError as error:
        found.append(str(error))
return found
"""
    assert lab.output(LISTED.format(rest=rest), workflow="script-old") == [
        "Step declares 2 non-ctx parameter(s) but 'depends' has 1 item(s)",
        "Step has 1 non-ctx parameter(s) but no 'depends' list provided",
    ]


def test_the_event_is_read_by_key_and_get(lab: Lab) -> None:
    code = """
    return [event["instanceId"], event.get("workflowName"), sorted(event["payload"]), event.get("missing", 7)]
    """
    instance = lab.begin(code)
    assert lab.ended(instance)["output"] == [instance, "script", ["code", "data"], 7]


def test_the_second_attempt_may_succeed(lab: Lab) -> None:
    code = """
    @step.do("flaky", config={"retries": {"limit": 1, "delay": 0}})
    async def flaky(ctx):
        if ctx["attempt"] == 1:
            raise RuntimeError("once")
        return ctx["attempt"]
    return await flaky()
    """
    assert lab.output(code) == 2


def test_an_approval_completes_the_run(lab: Lab) -> None:
    instance = lab.begin(
        """
        got = await step.wait_for_event("approval", "approval", timeout="1 hour")
        return {"event_payload": got["payload"]}
        """
    )
    lab.waiting(instance)
    lab.bind(
        "await (await env.FLOW.get(data)).sendEvent({'type': 'approval', 'payload': {'approved': True}})", instance
    )
    assert lab.ended(instance)["output"] == {"event_payload": {"approved": True}}


def test_results_and_instances_are_never_foreign_objects(lab: Lab) -> None:
    kinds = lab.bind(
        """
        instance = await env.PLAIN.create(id="kinds", params={"a": {"b": 1}})
        status = await instance.status()
        return [type(instance.id).__name__, type(status["status"]).__name__, isinstance(status, dict)]
        """
    )
    assert kinds == ["str", "str", True]
