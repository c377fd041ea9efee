"""The table of wrangler's keys: complete in itself, and what the documentation shows of it."""

from __future__ import annotations

import pytest

from stellwerk.core.deployment.wrangler_keys import (
    NESTED_KEYS,
    WRANGLER_KEYS,
    KeyRule,
    State,
    asks_for_nothing,
    render_key_table,
)

ALL_RULES = [*WRANGLER_KEYS.items(), *((f"{w}.{k}", r) for w, rules in NESTED_KEYS.items() for k, r in rules.items())]


@pytest.mark.parametrize(("key", "rule"), ALL_RULES, ids=[key for key, _ in ALL_RULES])
def test_every_key_has_a_reason_of_one_line(key: str, rule: KeyRule) -> None:
    assert rule.reason
    assert "\n" not in rule.reason
    assert not rule.reason.endswith("."), "the reason is put into sentences"
    assert not (rule.quiet and rule.state is not State.WITHOUT_EFFECT)


def test_the_keys_that_make_a_worker_are_honoured() -> None:
    for key in ("name", "main", "vars", "services", "workflows", "routes", "route", "limits", "env"):
        assert WRANGLER_KEYS[key].state is State.HONOURED


def test_every_group_of_nested_keys_belongs_to_an_honoured_key() -> None:
    for within in NESTED_KEYS:
        assert WRANGLER_KEYS[within.split("[")[0].split(".")[0]].state is State.HONOURED


@pytest.mark.parametrize("value", [None, False, "", [], {}, {"a": []}, {"a": {"b": []}, "c": None}])
def test_what_is_empty_asks_for_nothing(value: object) -> None:
    assert asks_for_nothing(value)


@pytest.mark.parametrize("value", [True, 0, 1, "x", [0], [{}], {"a": [1]}, {"a": {"b": "x"}}])
def test_what_holds_anything_asks_for_something(value: object) -> None:
    assert not asks_for_nothing(value)


def test_the_rendered_table_has_every_key_once_with_state_and_reason() -> None:
    lines = render_key_table().splitlines()
    for key, rule in ALL_RULES:
        (line,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert rule.state.value in line
        assert rule.reason in line
    assert len(lines) == len(ALL_RULES) + 2
