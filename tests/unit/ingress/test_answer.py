"""Rendering of answers and of error pages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.node.ingress import answer, pages
from stellwerk.node.ingress.answer import BadAnswer, render_head
from stellwerk.node.ingress.strict import TOKEN

BYTES_MAX = 10_000


def test_a_head_is_a_status_line_and_lines_of_lower_case_headers() -> None:
    head, length = render_head(200, "", [(b"X-A", b"1"), (b"Content-Length", b"5"), (b"x-a", b"")], BYTES_MAX)
    assert head == b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: "
    assert length == 5


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0, -1])
def test_only_final_statuses_can_be_sent(status: int) -> None:
    with pytest.raises(BadAnswer):
        render_head(status, "", [], BYTES_MAX)


def test_texts_instead_of_bytes_are_refused() -> None:
    with pytest.raises(BadAnswer, match="must be bytes"):
        render_head(200, "", [(b"x-a", "text")], BYTES_MAX)  # type: ignore[list-item]


def test_a_head_that_is_too_large_is_refused() -> None:
    with pytest.raises(BadAnswer, match="at most 10000"):
        render_head(200, "", [(b"x-a", b"b" * 10_000)], BYTES_MAX)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5), st.text(max_size=10))
def test_no_header_or_reason_can_begin_another_line(headers: list[tuple[bytes, bytes]], reason: str) -> None:
    try:
        head, _ = render_head(200, reason, headers, BYTES_MAX)
    except BadAnswer:
        return
    lines = head.split(b"\r\n")
    assert len(lines) <= 1 + len(headers)
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert lines[0].startswith(b"HTTP/1.1 200 ") or lines[0] == b"HTTP/1.1 200 OK"
    assert all(TOKEN.match(line) for line in lines[1:])


def test_the_names_that_are_remembered_are_bounded() -> None:
    for number in range(2 * answer.NAMES_KNOWN_MAX):
        head, _ = render_head(200, "", [(b"x-%d" % number, b"1")], BYTES_MAX)
        assert head.endswith(b"\r\nx-%d: 1" % number)
    assert len(answer._known) <= answer.NAMES_KNOWN_MAX


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/*", False),
        (b"application/json", False),
        (b"text/html", True),
        (b"TEXT/HTML", True),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        (b"application/json, text/html;q=0.5", False),
        (b"application/json;q=0.5, text/html", True),
        (b"text/html;q=0", False),
        (b"text/html;q=nonsense", False),
        (b"text/html;level=1;q=0.3", True),
        (b"\xff,;;=,", False),
    ],
)
def test_a_page_is_for_whoever_prefers_html(accept: bytes, html: bool) -> None:
    assert pages.prefers_html(accept) is html


def test_a_page_without_cloudflares_number_is_titled_with_the_status() -> None:
    kind, page = pages.render(404, "worker.not_found", "No & nothing.", accept=b"text/html")
    assert kind.startswith(b"text/html")
    assert b"<h1>404 Not Found</h1>" in page and b"No &amp; nothing." in page and b"worker.not_found" in page
    assert b"may succeed" not in page


def test_json_has_four_fields() -> None:
    kind, body = pages.render(404, "worker.not_found", "Nothing.")
    assert kind == b"application/json"
    assert json.loads(body) == {"code": "worker.not_found", "message": "Nothing.", "request_id": "", "retryable": False}
