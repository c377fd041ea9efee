"""Configurations of steps as users write them, names, ids and durations: what is accepted, and what is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stellwerk.core import limits
from stellwerk.core.ids import is_event_type, is_instance_id, is_step_name, is_worker_name, is_workflow_name
from stellwerk.core.times import DAY_MS, DURATION_MS_MAX, YEAR_MS, iso_from_ms, parse_duration_ms
from stellwerk.core.workflow.steps import (
    DEFAULT_CONFIG,
    DYNAMIC_DELAY,
    UNLIMITED,
    InvalidStepConfigError,
    StepConfig,
    may_retry,
    parse_config,
    retry_delay_ms,
    step_key,
)


def retries(**given: Any) -> dict[str, Any]:
    return {"retries": {"limit": 1, "delay": 0, **given}}


# -- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, DEFAULT_CONFIG),
        ({}, DEFAULT_CONFIG),
        ({"retries": None}, DEFAULT_CONFIG),
        (retries(limit=0), StepConfig(0, 0, "exponential")),
        (retries(delay=0), StepConfig(1, 0, "exponential")),
        (retries(delay=1500), StepConfig(1, 1500, "exponential")),
        (retries(delay="10 seconds"), StepConfig(1, "10 seconds", "exponential")),
        (retries(delay=lambda about: 1), StepConfig(1, DYNAMIC_DELAY, "exponential")),
        (retries(backoff="constant"), StepConfig(1, 0, "constant")),
        (retries(backoff="linear"), StepConfig(1, 0, "linear")),
        (retries(limit=math.inf), StepConfig(UNLIMITED, 0, "exponential")),
        (retries(limit=10**400), StepConfig(UNLIMITED, 0, "exponential")),
        (retries(limit=1e300), StepConfig(UNLIMITED, 0, "exponential")),
        (retries(limit=3.0), StepConfig(3, 0, "exponential")),
        ({"timeout": "30 minutes"}, StepConfig(timeout="30 minutes")),
        ({"timeout": 1}, StepConfig(timeout=1)),
        ({"timeout": 0.5}, StepConfig(timeout=1)),
        ({"sensitive": "output"}, StepConfig(sensitive=True)),
        ({"sensitive": None}, DEFAULT_CONFIG),
    ],
)
def test_a_configuration_is_laid_over_the_defaults(given: Any, expected: StepConfig) -> None:
    assert parse_config("charge", given) == expected


@pytest.mark.parametrize(
    "given",
    [
        [],
        "5 retries",
        {"retry": {}},
        {"retries": 5},
        {"retries": {}},
        {"retries": {"limit": 5}},
        {"retries": {"delay": 5}},
        retries(jitter=True),
        retries(limit=-1),
        retries(limit="5"),
        retries(limit=True),
        retries(limit=math.nan),
        retries(delay="i like trains"),
        retries(delay=-1),
        retries(delay=math.nan),
        retries(delay=None),
        retries(delay=DYNAMIC_DELAY),
        retries(backoff="fibonacci"),
        retries(backoff=None),
        {"timeout": 0},
        {"timeout": "0 seconds"},
        {"timeout": "i like trains"},
        {"timeout": -5},
        {"timeout": math.inf},
        {"timeout": True},
        {"sensitive": "input"},
        {"sensitive": True},
        {"retries": {"limit": 1, "delay": 0}, "unknown": 1},
    ],
    ids=repr,
)
def test_what_is_no_configuration_is_refused_with_cloudflares_text(given: Any) -> None:
    with pytest.raises(InvalidStepConfigError) as refused:
        parse_config("charge", given)
    assert str(refused.value) == (
        'Step config for "charge" is in a invalid format. See '
        "https://developers.cloudflare.com/workflows/build/sleeping-and-retrying/"
    )


def test_the_defaults_are_cloudflares() -> None:
    assert DEFAULT_CONFIG.public() == {
        "retries": {"limit": 5, "delay": 1000, "backoff": "exponential"},
        "timeout": "10 minutes",
    }
    assert (DEFAULT_CONFIG.timeout_ms, DEFAULT_CONFIG.delay_ms) == (600_000, limits.STEP_RETRY_DELAY_MS)


def test_what_the_program_sees_of_a_configuration_has_no_function_and_knows_infinity() -> None:
    shown = parse_config("a", {**retries(limit=math.inf, delay=lambda about: 1), "sensitive": "output"}).public()
    assert shown == {
        "retries": {"limit": math.inf, "backoff": "exponential"},
        "timeout": "10 minutes",
        "sensitive": "output",
    }


def test_attempts_are_retries_and_one() -> None:
    config = StepConfig(2, 0, "constant")
    assert [may_retry(config, failed) for failed in (1, 2, 3)] == [True, True, False]
    assert not may_retry(StepConfig(0, 0, "constant"), 1)
    assert may_retry(StepConfig(UNLIMITED, 0, "constant"), 10**9)


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [("constant", [2000] * 4), ("linear", [2000, 4000, 6000, 8000]), ("exponential", [2000, 4000, 8000, 16000])],
)
def test_delays_grow_as_their_backoff_says(backoff: Any, delays: list[int]) -> None:
    config = StepConfig(9, "2 seconds", backoff)
    assert [retry_delay_ms(config, failed) for failed in (1, 2, 3, 4)] == delays
    assert retry_delay_ms(config, 3, 17) == 17  # a function's answer is no base


def test_a_delay_is_never_longer_than_a_year() -> None:
    assert retry_delay_ms(StepConfig(UNLIMITED, 1, "exponential"), 10**6) == limits.SLEEP_MS_MAX
    assert retry_delay_ms(StepConfig(9, "2 years", "constant"), 1) == limits.SLEEP_MS_MAX
    assert retry_delay_ms(StepConfig(9, DYNAMIC_DELAY, "constant"), 1) == limits.STEP_RETRY_DELAY_MS


def test_a_key_names_kind_name_and_count() -> None:
    assert step_key("do", "charge the card", 2) == "do:charge the card-2"


# -- durations and times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        (0, 0),
        (1500, 1500),
        (1500.2, 1501),
        ("1 second", 1_000),
        ("30 seconds", 30_000),
        ("1 minute", 60_000),
        ("1.5 hours", 5_400_000),
        ("1 DAY", DAY_MS),
        (" 2  weeks ", 14 * DAY_MS),
        ("1 month", 30 * DAY_MS),
        ("1 year", YEAR_MS),
        ("3 days", 3 * DAY_MS),
        ("2seconds", 2_000),
        ("9" * 400 + " years", DURATION_MS_MAX),
        (10**400, DURATION_MS_MAX),
        (1e300, DURATION_MS_MAX),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_duration_is_milliseconds_or_a_number_with_a_unit(given: object, ms: int) -> None:
    assert parse_duration_ms(given) == ms


@pytest.mark.parametrize(
    "given",
    [
        "i like trains", "", "5", "seconds", "-1 second", "1 fortnight", "1 second 2 minutes", "1e3 seconds", -1, -0.5,
        math.inf, -math.inf, math.nan, True, None, [], b"1 second",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_duration_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_ms(given)


def test_a_point_in_time_is_written_as_cloudflares_api_does() -> None:
    assert iso_from_ms(0) == "1970-01-01T00:00:00.000Z"
    assert iso_from_ms(1_764_025_528_007) == "2025-11-24T23:05:28.007Z"


# -- names and ids ----------------------------------------------------------------------------------------------------

GOOD_IDS = ["a", "A-1_b", "_x", "0", "550e8400-e29b-41d4-a716-446655440000"]
BAD_IDS = ["", "-a", "#invalid!", "a b", "a.b", "a/b", "é", "a\n", "a\x00"]


@pytest.mark.parametrize("accepts", [is_instance_id, is_event_type, is_workflow_name])
def test_ids_types_and_workflow_names_share_an_alphabet(accepts: Any) -> None:
    assert all(map(accepts, GOOD_IDS))
    assert not any(map(accepts, BAD_IDS))


@pytest.mark.parametrize(
    ("accepts", "longest"),
    [(is_instance_id, 100), (is_event_type, 100), (is_workflow_name, 64), (is_worker_name, 63), (is_step_name, 256)],
)
def test_names_have_a_longest_length(accepts: Any, longest: int) -> None:
    assert accepts("a" * longest)
    assert not accepts("a" * (longest + 1))


def test_a_step_name_may_hold_anything_but_control_characters() -> None:
    assert all(map(is_step_name, ["charge the card", "größe: 5 € 🚂", "a/b", "", "\x7f"]))
    assert not any(map(is_step_name, ["a\x00", "\n", "tab\tbed", "\x1f"]))


def test_a_worker_name_is_lower_case() -> None:
    assert all(map(is_worker_name, ["orders", "a-1", "_x"]))
    assert not any(map(is_worker_name, ["Orders", "-a", "a.b", ""]))
