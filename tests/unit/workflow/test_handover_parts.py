"""A large journal goes to its isolate in parts: in order, complete, and none of them much over its size."""

from __future__ import annotations

from stellwerk.core.limits import KIB, MIB, RUN_PART_BYTES
from stellwerk.node.workflow.handover import split


def test_what_is_small_is_one_part() -> None:
    assert split([b"a", b"b"], {"x": b"c"}) == [([b"a", b"b"], {"x": b"c"})]
    assert split([], {}) == [([], {})]


def test_journal_and_blobs_are_split_in_order_and_nothing_is_lost() -> None:
    journal = [bytes([n]) * (60 * KIB) for n in range(200)]
    blobs = {f"blob {n}": bytes([n]) * MIB for n in range(20)}
    parts = split(journal, blobs)
    assert [entry for entries, _ in parts for entry in entries] == journal
    assert {name: data for _, some in parts for name, data in some.items()} == blobs
    sizes = [sum(map(len, entries)) + sum(map(len, some.values())) for entries, some in parts]
    assert max(sizes) <= RUN_PART_BYTES
    assert len(parts) > 5


def test_one_value_larger_than_a_part_is_a_part_of_its_own() -> None:
    parts = split([b"x" * (RUN_PART_BYTES + 1), b"y"], {})
    assert [list(map(len, entries)) for entries, _ in parts] == [[RUN_PART_BYTES + 1], [1]]
