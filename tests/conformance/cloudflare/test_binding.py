"""``binding.test.ts``: what a Worker may ask of a workflow, and what it hears."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.cloudflare.kit import Lab, covers
from tests.integration.node.kit import until

UNTIL_ENDED = """
async def ended(instance):
    for _ in range(2000):
        status = await instance.status()
        if status["status"] in ("complete", "errored", "terminated"):
            return status
        await asyncio.sleep(0.005)
"""


@covers(1)
def test_create_takes_an_id_and_params_and_the_run_sees_them(lab: Lab) -> None:
    params = {"name": "x", "nested": {"list": [1, None, True]}}
    code = UNTIL_ENDED + (
        "instance = await env.PLAIN.create(id='with-params', params=data)\n"
        "return [instance.id, (await ended(instance))['output']]"
    )
    instance_id, output = lab.bind(code, params)
    assert instance_id == "with-params"
    assert output["payload"] == params
    assert output["id"] == "with-params"


@covers(2)
def test_the_event_names_its_workflow(lab: Lab) -> None:
    instance = lab.node.create("plain", {})
    assert lab.node.ended("plain", instance)["output"]["workflow"] == "plain"


@covers(3)
def test_create_without_anything_makes_an_id_and_runs_with_an_empty_payload(lab: Lab) -> None:
    instance_id, output = lab.bind(
        UNTIL_ENDED + "instance = await env.PLAIN.create()\nreturn [instance.id, (await ended(instance))['output']]"
    )
    assert instance_id
    assert output == {"payload": {}, "id": instance_id, "workflow": "plain", "timestamp": True}


@covers(4)
@pytest.mark.parametrize("instance_id", ["#invalid!", "-first", "", "a" * 101, "a b", "ä"])
def test_a_bad_id_is_refused(lab: Lab, instance_id: str) -> None:
    message = lab.bind(
        """
        try:
            await env.PLAIN.create({"id": data})
        except Exception as error:
            return str(error)
        """,
        instance_id,
    )
    assert "Workflow instance has invalid id" in message


def test_an_id_that_was_used_is_refused_also_after_its_end(lab: Lab) -> None:
    """Chosen as in production (section 3.6); Cloudflare's local engine hands out the old instance instead."""
    code = UNTIL_ENDED + (
        "instance = await env.PLAIN.create(id='twice')\n"
        "await ended(instance)\n"
        "try:\n"
        "    await env.PLAIN.create(id='twice')\n"
        "except Exception as error:\n"
        "    return str(error)\n"
    )
    assert "(instance.already_exists)" in lab.bind(code)


@covers(6)
def test_get_returns_a_handle(lab: Lab) -> None:
    found = lab.bind(
        """
        await env.PLAIN.create(id="handle")
        handle = await env.PLAIN.get("handle")
        names = ("status", "pause", "resume", "terminate", "restart", "delete", "send_event", "sendEvent")
        return [handle.id, [name for name in names if not callable(getattr(handle, name, None))]]
        """
    )
    assert found == ["handle", []]


def test_get_of_an_unknown_instance_says_so(lab: Lab) -> None:
    message = lab.bind(
        """
        try:
            await env.PLAIN.get("nobody")
        except Exception as error:
            return str(error)
        """
    )
    assert message.startswith("(instance.not_found)")


@covers(16)
def test_a_batch_returns_handles_in_order_and_all_can_be_found(lab: Lab) -> None:
    made, found = lab.bind(
        """
        batch = await env.PLAIN.create_batch([{"id": f"batch-{n}", "params": {"n": n}} for n in (3, 1, 2)])
        return [[each.id for each in batch], [(await env.PLAIN.get(each.id)).id for each in batch]]
        """
    )
    assert made == found == ["batch-3", "batch-1", "batch-2"]


def test_a_batch_leaves_out_what_exists(lab: Lab) -> None:
    made = lab.bind(
        """
        await env.PLAIN.create(id="there-already")
        ids = ("new-1", "there-already", "new-2", "new-1")
        return [each.id for each in await env.PLAIN.createBatch([{"id": each} for each in ids])]
        """
    )
    assert made == ["new-1", "new-2"]


@covers(17)
def test_an_empty_batch_is_refused(lab: Lab) -> None:
    message = lab.bind(
        """
        try:
            await env.PLAIN.create_batch([])
        except Exception as error:
            return str(error)
        """
    )
    assert "batchCreate should have at least 1 instance" in message


@covers(19)
def test_the_status_of_a_waiting_instance_has_no_output_and_no_error(lab: Lab) -> None:
    """Deviates on purpose: Cloudflare's local engine says ``running``, production ``waiting``; so do we."""
    instance = lab.begin("await step.wait_for_event('a', 'never', timeout='1 hour')")
    lab.waiting(instance)
    status = lab.bind("return dict(await (await env.FLOW.get(data)).status())", instance)
    assert (status["status"], status.get("output"), status.get("error")) == ("waiting", None, None)


@covers(20)
def test_a_complete_instance_has_its_output(lab: Lab) -> None:
    output = {"list": [1, 2.5, None, "x"], "empty": {}, "true": True}
    instance = lab.begin("return data", output)
    lab.ended(instance)
    status = lab.bind("return dict(await (await env.FLOW.get(data)).status())", instance)
    assert (status["status"], status["output"], status.get("error")) == ("complete", output, None)


@covers(21)
def test_an_errored_instance_has_its_error(lab: Lab) -> None:
    instance = lab.begin("raise ValueError('it broke')")
    lab.ended(instance)
    status = lab.bind("return dict(await (await env.FLOW.get(data)).status())", instance)
    assert (status["status"], status.get("output")) == ("errored", None)
    assert status["error"] == {"name": "ValueError", "message": "it broke"}


@covers(22)
def test_the_outputs_of_steps_are_listed_in_order_whatever_their_type(lab: Lab) -> None:
    outputs: list[Any] = [1, "text", None, [1, 2], {"a": 1}, True, 1.5]
    ended = lab.run(
        """
        for index, value in enumerate(data):
            @step.do(f"step {index}")
            async def one():
                return value
            await one()
        """,
        outputs,
    )
    assert [step["output"] for step in ended["steps"]] == outputs
    assert [step["name"] for step in ended["steps"]] == [f"step {index}-1" for index in range(len(outputs))]


@covers(23)
def test_a_terminated_instance_is_terminated_for_every_handle(lab: Lab) -> None:
    instance = lab.begin("await step.sleep('long', '1 hour')")
    lab.waiting(instance)
    statuses = lab.bind(
        """
        handle = await env.FLOW.get(data)
        await handle.terminate()
        return [(await handle.status())["status"], (await (await env.FLOW.get(data)).status())["status"]]
        """,
        instance,
    )
    assert statuses == ["terminated", "terminated"]


@covers(24)
def test_the_waiter_gets_the_event_with_its_type_and_payload(lab: Lab) -> None:
    instance = lab.begin(
        """
        got = await step.wait_for_event("an approval", "approved", timeout="1 hour")
        return {"payload": got.payload, "type": got["type"], "moment": isinstance(got["timestamp"], datetime)}
        """
    )
    lab.waiting(instance)
    lab.bind(
        "await (await env.FLOW.get(data)).send_event({'type': 'approved', 'payload': {'by': ['me', 1]}})", instance
    )
    assert lab.ended(instance)["output"] == {"payload": {"by": ["me", 1]}, "type": "approved", "moment": True}


@covers(25)
def test_two_waits_one_after_the_other_each_get_their_event(lab: Lab) -> None:
    instance = lab.begin(
        """
        first = await step.wait_for_event("first", "one", timeout="1 hour")
        second = await step.wait_for_event("second", "two", timeout="1 hour")
        return [first.payload, second.payload]
        """
    )
    lab.waiting(instance)
    lab.send(instance, "one", "1")
    lab.send(instance, "two", "2")
    assert lab.ended(instance)["output"] == ["1", "2"]


@covers(26)
def test_a_run_terminated_while_it_waits_begins_no_further_step(lab: Lab) -> None:
    instance = lab.begin(
        """
        await step.wait_for_event("never", "never", timeout="1 hour")
        @step.do("after")
        async def after():
            note("after")
        await after()
        """
    )
    lab.waiting(instance)
    assert lab.node.api(
        f"/workflows/script/instances/{instance}/status", method="PATCH", json={"status": "terminate"}
    ).is_success
    ended = lab.ended(instance)
    assert ended["status"] == "terminated"
    assert [step["type"] for step in ended["steps"]] == ["waitForEvent", "termination"]
    refused = lab.node.send_event("script", instance, "never", {})
    assert refused.status_code == 409
    assert lab.notes(instance) == []


def test_a_terminated_run_is_told_and_its_step_under_way_leaves_no_result(lab: Lab) -> None:
    instance = lab.begin(
        """
        @step.do("long")
        async def long():
            note("began")
            try:
                await asyncio.Event().wait()
            finally:
                note("was ended")
        await long()
        """
    )
    until(lambda: lab.notes(instance) == ["began"], "the step runs")
    lab.bind("await (await env.FLOW.get(data)).terminate()", instance)
    until(lambda: lab.notes(instance) == ["began", "was ended"], "the step was ended")
    assert lab.ended(instance)["status"] == "terminated"


def test_what_is_not_built_says_so(lab: Lab) -> None:
    instance = lab.begin("await step.sleep('long', '1 hour')")
    messages = lab.bind(
        """
        handle, found = await env.FLOW.get(data), []
        for name in ("pause", "resume", "restart", "delete"):
            try:
                await getattr(handle, name)()
            except Exception as error:
                found.append(str(error))
        await handle.terminate()
        return found
        """,
        instance,
    )
    assert len(messages) == 4
    assert all("not built yet" in message for message in messages)
