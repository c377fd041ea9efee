"""How many isolates a version gets."""

from __future__ import annotations

from stellwerk.core.isolate.capacity import backoff_ms, is_idle, may_start, wants_another
from stellwerk.core.limits import CRASHES_BACKOFF_MS


def test_another_isolate_is_wanted_only_when_every_one_is_loaded() -> None:
    assert wants_another([10, 10], starting=0, isolates_max=4, scale_load=10)
    assert not wants_another([10, 9], starting=0, isolates_max=4, scale_load=10)


def test_one_isolate_is_started_at_a_time() -> None:
    assert not wants_another([10, 10], starting=1, isolates_max=4, scale_load=10)
    assert not may_start([], starting=1, isolates_max=4)


def test_a_version_has_no_more_isolates_than_its_worker_allows() -> None:
    assert not wants_another([10, 10], starting=0, isolates_max=2, scale_load=10)
    assert may_start([10], starting=0, isolates_max=2)
    assert not may_start([10, 10], starting=0, isolates_max=2)


def test_a_worker_that_allows_no_isolate_still_gets_one() -> None:
    assert may_start([], starting=0, isolates_max=0)
    assert not may_start([0], starting=0, isolates_max=0)


def test_an_isolate_is_idle_after_its_time_and_never_while_it_works() -> None:
    assert not is_idle(load=0, quiet_ms=999, idle_ms=1000)
    assert is_idle(load=0, quiet_ms=1000, idle_ms=1000)
    assert not is_idle(load=1, quiet_ms=10**9, idle_ms=1000)


def test_the_pause_grows_with_the_failures_and_stays_at_the_longest() -> None:
    pauses = [backoff_ms(failures) for failures in range(len(CRASHES_BACKOFF_MS) + 3)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == CRASHES_BACKOFF_MS[-1]
