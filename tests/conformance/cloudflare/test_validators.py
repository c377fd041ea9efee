"""``validators.test.ts``: which names, ids and step configurations are accepted, and what is said to the others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.cloudflare.kit import Lab, covers

CONFIG_HELP = "https://developers.cloudflare.com/workflows/build/sleeping-and-retrying/"


def error_of(lab: Lab, code: str, data: Any = None) -> dict[str, str] | None:
    error: dict[str, str] | None = lab.run(code, data)["error"]
    return error


# -- ids and names ----------------------------------------------------------------------------------------------------


@covers(111, 112, 113)
@pytest.mark.parametrize("instance_id", ["a", "A-b_c", "0", "_begins-so", "a" * 100])
def test_ids_of_letters_digits_and_two_signs_are_accepted(lab: Lab, instance_id: str) -> None:
    assert lab.bind("return (await env.PLAIN.create(id=data)).id", instance_id) == instance_id


@covers(112, 113)
@pytest.mark.parametrize("instance_id", ["", "-a", "a.b", "a b", "#a", "a/b", "a" * 101, "é", "a\n"])
def test_other_ids_are_refused_by_binding_and_control_plane(lab: Lab, instance_id: str) -> None:
    code = "try:\n    await env.PLAIN.create(id=data)\nexcept Exception as error:\n    return str(error)"
    assert "Workflow instance has invalid id" in lab.bind(code, instance_id)
    answer = lab.node.api("/workflows/plain/instances", method="POST", json={"instance_id": instance_id})
    assert answer.status_code == 400


@covers(114, 115)
@pytest.mark.parametrize("name", ["a", "with spaces", "ünïcode ☃", "x" * 256, "a/b:c#d"])
def test_step_names_may_have_spaces_and_any_letters(lab: Lab, name: str) -> None:
    code = """
    @step.do(data)
    async def one(ctx):
        return ctx.step.name
    return await one()
    """
    assert lab.output(code, name) == name


@covers(114, 115)
@pytest.mark.parametrize("name", ["x" * 257, "tab\there", "line\nbreak", "nul\x00"])
@pytest.mark.parametrize("call", ["step.do(data)(lambda: 1)", "await step.sleep(data, 0)"])
def test_step_names_with_control_characters_or_too_long_are_refused(lab: Lab, name: str, call: str) -> None:
    assert error_of(lab, call, name) == {
        "name": "WorkflowFatalError",
        "message": f'Step name "{name}" exceeds max length (256 chars) or invalid characters found',
    }


@pytest.mark.parametrize("event_type", ["", "-a", "a b", "a.b", "x" * 101])
def test_bad_types_of_events_are_refused_on_both_sides(lab: Lab, event_type: str) -> None:
    error = error_of(lab, "await step.wait_for_event('wait', data)", event_type)
    assert error is not None
    assert error["message"].startswith(f'Event type "{event_type}" is not valid')
    waiting = lab.begin("await step.wait_for_event('wait', 'fine')")
    code = "try:\n    await (await env.FLOW.get(data[0])).send_event({'type': data[1]})\n"
    code += "except Exception as error:\n    return str(error)"
    assert "is not valid" in lab.bind(code, [waiting, event_type])


def test_a_payload_over_1_mib_is_refused(lab: Lab) -> None:
    code = """
    try:
        await env.PLAIN.create(params="x" * (1024 * 1024 + 1))
    except Exception as error:
        return str(error)
    """
    assert "1 MiB" in lab.bind(code)
    waiting = lab.begin("await step.wait_for_event('wait', 'fine')")
    answer = lab.node.send_event("script", waiting, "fine", "x" * (1024 * 1024 + 1))
    assert answer.status_code in (400, 413)


# -- configurations ---------------------------------------------------------------------------------------------------

WITH_CONFIG = """
@step.do("one", config={config})
async def one(ctx):
    return ctx.config
return await one()
"""


@covers(116, 117, 118, 119, 120)
@pytest.mark.parametrize(
    "config",
    [
        "{'retries': {'limit': 1}}",
        "{'retries': {'delay': 1}}",
        "{'retries': {'limit': 1, 'delay': 1, 'unknown': 1}}",
        "{'unknown': 1}",
        "{'retries': {'limit': 1, 'delay': 'i like trains'}}",
        "{'timeout': 'i like trains'}",
        "{'timeout': 0}",
        "{'timeout': -1}",
        "{'retries': {'limit': -1, 'delay': 1}}",
        "{'retries': {'limit': 'three', 'delay': 1}}",
        "{'retries': {'limit': 1, 'delay': -1}}",
        "{'retries': {'limit': 1, 'delay': 1, 'backoff': 'random'}}",
        "{'sensitive': 'input'}",
        "{'sensitive': True}",
        "'text'",
        "[]",
    ],
)
def test_a_configuration_that_is_none_is_refused(lab: Lab, config: str) -> None:
    assert error_of(lab, WITH_CONFIG.format(config=config)) == {
        "name": "WorkflowFatalError",
        "message": f'Step config for "one" is in a invalid format. See {CONFIG_HELP}',
    }


@covers(121)
@pytest.mark.parametrize(
    "config",
    [
        "{}",
        "{'retries': {'limit': 0, 'delay': 0}}",
        "{'retries': {'limit': float('inf'), 'delay': '1 second', 'backoff': 'linear'}}",
        "{'retries': {'limit': 3, 'delay': lambda given: 1}}",
        "{'retries': {'limit': 1, 'delay': '2 weeks'}, 'timeout': '1 year'}",
        "{'timeout': 1000}",
        "{'sensitive': 'output'}",
    ],
)
def test_a_configuration_within_the_rules_is_accepted(lab: Lab, config: str) -> None:
    assert lab.run(WITH_CONFIG.format(config=config))["status"] == "complete"
