"""Counters become Prometheus' text at scrape time."""

from __future__ import annotations

from stellwerk.node.telemetry.metrics import LATENCY_BOUNDS_MS, Counters, Gauges, Histogram, Scrape, render


def scraped(counters: Counters, gauges: Gauges) -> list[str]:
    scrape = Scrape(counters=counters, gauges=gauges, runs={}, commits=4, ready=True, version="1")
    return render(scrape).decode().splitlines()


def test_a_bound_belongs_to_its_own_bucket_and_buckets_are_cumulative() -> None:
    histogram = Histogram()
    for elapsed_ms in (LATENCY_BOUNDS_MS[0], LATENCY_BOUNDS_MS[1], LATENCY_BOUNDS_MS[-1] + 1):
        histogram.observe(elapsed_ms)
    counts = [count for _, count in histogram.buckets()]
    assert counts[:2] == [1, 2]
    assert counts[-2:] == [2, 3]
    assert histogram.count == 3


def test_every_slot_of_the_counters_is_exported() -> None:
    counters = Counters()
    for name in Counters.__slots__:
        value = getattr(counters, name)
        if isinstance(value, int):
            setattr(counters, name, 987_654)
        elif isinstance(value, list):
            value[2] = 987_654
        else:
            value.observe(1)
            value.total_ms = 987_654_000.0
    shown = [line for line in scraped(counters, Gauges()) if line.endswith(" 987654.0")]
    assert len(shown) == len(Counters.__slots__)


def test_counters_of_a_service_are_exported_by_their_names() -> None:
    class EngineCounters:
        __slots__ = ("_hidden", "label", "live")

        def __init__(self) -> None:
            self.live, self.label, self._hidden = 3, "x", 9

    lines = scraped(Counters(), Gauges(counted=[("engine", EngineCounters())]))
    assert "stellwerk_engine_live_total 3.0" in lines
    assert not any("label" in line or "hidden" in line for line in lines if line.startswith("stellwerk_engine"))


def test_what_nobody_feeds_is_left_out_instead_of_shown_as_zero() -> None:
    text = "\n".join(scraped(Counters(), Gauges()))
    assert "commit_seconds" not in text
    assert "connections" not in text


def test_the_ingress_is_asked_for_its_own_figures() -> None:
    class Server:
        accepted, refused, connections = 7, 2, 3

    lines = scraped(Counters(), Gauges(ingress=Server()))
    assert {"stellwerk_connections_total 7.0", "stellwerk_connections_open 3.0"} <= set(lines)
    assert "stellwerk_requests_refused_total 2.0" in lines
