"""Counters for hot paths, and how they become Prometheus' text.

A hot path adds to a plain integer in a slot, nothing more: no lock (all of it runs on the event loop), no label
look-up, no allocation. Everything else (names, labels, text) happens when somebody scrapes. What is a state rather
than a count (isolates by state, queue depths) is asked of its owner at that moment through ``Gauges``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BOUNDS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
"""Upper bounds: from a commit on fast storage to a request that somebody would call stuck."""


class Histogram:
    """Counts of observations per bucket, in milliseconds. ``observe`` costs one bisection of 16 numbers."""

    __slots__ = ("counts", "total_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.total_ms = 0.0

    def observe(self, elapsed_ms: float) -> None:
        self.counts[bisect_left(LATENCY_BOUNDS_MS, elapsed_ms)] += 1
        self.total_ms += elapsed_ms

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus' form: cumulative, upper bounds in seconds."""
        rendered: list[tuple[str, float]] = []
        below = 0
        for bound_ms, count in zip(LATENCY_BOUNDS_MS, self.counts, strict=False):
            below += count
            rendered.append((f"{bound_ms / 1000:g}", below))
        rendered.append(("+Inf", below + self.counts[-1]))
        return rendered


class Counters:
    """What is counted at the node's seams. One object, made by the composition root and handed to the services.

    ``requests`` and ``control_requests`` are indexed by the status' hundreds (index 2: 200 to 299); index 0 counts
    those whose client left before a status was sent. Services that count for themselves stand in ``Gauges``.
    """

    __slots__ = (
        "commit_latency",
        "control_requests",
        "isolates_crashed",
        "log_dropped",
        "log_records",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = [0] * 6
        self.control_requests = [0] * 6
        self.isolates_crashed = 0
        self.commit_latency = Histogram()
        self.log_records = 0
        self.log_dropped = 0


class Ingress(Protocol):
    """What the public server counts itself."""

    accepted: int
    refused: int

    @property
    def connections(self) -> int: ...


@dataclass(slots=True)
class Gauges:
    """What is asked at scrape time. Each returns {label value: number}; the composition root fills in what it has."""

    ingress: Ingress | None = None
    isolates: Callable[[], Mapping[str, int]] = dict  # by state
    queues: Callable[[], Mapping[str, int]] = dict  # depth by name of the queue inside the node
    counted: list[tuple[str, object]] = field(default_factory=list)
    """(prefix, object): every public integer attribute of the object is a counter that only grows, exported as
    ``stellwerk_<prefix>_<name>_total``. For services with counters of their own: ``("workflow", engine.counters)``."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Scrape:
    """One moment's figures: counters, gauges, and what the store was asked for just before."""

    counters: Counters
    gauges: Gauges
    runs: Mapping[tuple[str, str], int]  # (workflow, status) -> instances
    commits: int
    ready: bool
    version: str


class _Collector:
    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterable[Metric]:
        """A metric that nobody feeds is left out: a zero would be taken for a measurement."""
        scrape, counters = self._scrape, self._scrape.counters
        yield _by_class("stellwerk_requests", "Requests answered by the ingress", counters.requests)
        yield _by_class("stellwerk_control_requests", "Calls of the control plane", counters.control_requests)
        yield _counter("isolates_crashed", "Isolates that ended without being asked to", counters.isolates_crashed)
        yield _counter("log_records", "Log records taken", counters.log_records)
        yield _counter("log_dropped", "Log records lost because somebody was too slow", counters.log_dropped)
        yield _counter("commits", "Commits that reached the disk", scrape.commits)
        if counters.commit_latency.count:
            yield _histogram(
                "stellwerk_commit_seconds", "A commit, from its begin to the disk", counters.commit_latency
            )
        yield _gauge("ready", "1 when the node serves", int(scrape.ready))
        info = GaugeMetricFamily("stellwerk_info", "The node's release", labels=["version"])
        info.add_metric([scrape.version], 1)
        yield info
        runs = GaugeMetricFamily("stellwerk_runs", "Workflow instances by status", labels=["workflow", "status"])
        for (workflow, status), number in sorted(scrape.runs.items()):
            runs.add_metric([workflow, status], number)
        yield runs
        yield from self._of_services(scrape.gauges)

    def _of_services(self, gauges: Gauges) -> Iterable[Metric]:
        if gauges.ingress is not None:
            yield _counter("connections", "Connections accepted by the ingress", gauges.ingress.accepted)
            yield _counter("requests_refused", "Requests that never reached a Worker", gauges.ingress.refused)
            yield _gauge("connections_open", "Connections that the ingress holds", gauges.ingress.connections)
        yield _labelled("stellwerk_isolates", "Isolates by state", "state", gauges.isolates())
        yield _labelled("stellwerk_queue_depth", "What waits inside the node", "queue", gauges.queues())
        for prefix, counted in gauges.counted:
            for name, value in _integers(counted):
                yield _counter(f"{prefix}_{name}", f"{prefix}: {name}", value)


def render(scrape: Scrape) -> bytes:
    """Prometheus' text format. A registry of its own per scrape: nothing global, nothing left behind."""
    registry = CollectorRegistry()
    registry.register(_Collector(scrape))
    return generate_latest(registry)


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"stellwerk_{name}", text, value=value)


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"stellwerk_{name}", text, value=value)


def _by_class(name: str, text: str, counts: list[int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["status"])
    for hundreds, count in enumerate(counts):
        family.add_metric([f"{hundreds}xx" if hundreds else "none"], count)
    return family


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key in sorted(values):
        family.add_metric([key], values[key])
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.total_ms / 1000)


def _integers(counted: object) -> list[tuple[str, int]]:
    """The public integer attributes of an object, whether it has slots or a dictionary."""
    names = {name for kind in type(counted).__mro__ for name in getattr(kind, "__slots__", ())}
    names.update(getattr(counted, "__dict__", {}))
    found = ((name, getattr(counted, name, None)) for name in sorted(names) if not name.startswith("_"))
    return [(name, value) for name, value in found if isinstance(value, int) and not isinstance(value, bool)]
