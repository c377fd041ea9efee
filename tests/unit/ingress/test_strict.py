"""The strict rules, fed with values; the requests that must be refused as a whole are in the integration corpus."""

from __future__ import annotations

import pytest

from stellwerk.node.ingress import strict
from stellwerk.node.ingress.strict import Framing, IngressLimits, Refusal

LIMITS = IngressLimits()


def framed(version: str = "1.1", **headers: bytes) -> Framing:
    watched = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return strict.framing(version, watched, LIMITS)


def test_a_request_without_watched_headers_has_no_body_and_keeps_the_connection() -> None:
    assert framed() == strict.PLAIN == Framing(length=0, chunked=False, close=False)


def test_a_length_and_chunks_frame_a_body() -> None:
    assert framed(content_length=b"5").length == 5
    assert framed(transfer_encoding=b"Chunked").chunked


def test_close_and_an_old_version_end_the_connection() -> None:
    assert framed(connection=b"Keep-Alive , CLOSE").close
    assert framed("1.0").close and framed("1.0").old
    assert framed("1.0", connection=b"keep-alive").close
    assert not framed(connection=b"keep-alive").close


def test_headers_named_by_connection_are_dropped_and_those_of_this_hop_need_no_naming() -> None:
    assert framed(connection=b"keep-alive, X-A,x-b, close").dropped == (b"x-a", b"x-b")


def test_an_expectation_counts_only_where_a_body_follows() -> None:
    assert framed(expect=b"100-Continue", content_length=b"5").expects
    assert framed(expect=b"100-continue", transfer_encoding=b"chunked").expects
    assert not framed(expect=b"100-continue").expects
    assert not framed("1.0", expect=b"100-continue", content_length=b"5").expects


def test_an_upgrade_counts_only_where_connection_names_it() -> None:
    assert framed(upgrade=b"websocket").upgrade == b""
    assert framed(upgrade=b"h2c", connection=b"upgrade").upgrade == b"h2c"


@pytest.mark.parametrize(
    ("status", "version", "headers"),
    [
        (400, "1.1", {"content_length": b"5", "transfer_encoding": b"chunked"}),
        (400, "1.1", {"transfer_encoding": b"gzip, chunked"}),
        (400, "1.1", {"transfer_encoding": b""}),
        (400, "1.0", {"transfer_encoding": b"chunked"}),
        (400, "1.1", {"content_length": b"05"}),
        (400, "1.1", {"content_length": b"+5"}),
        (400, "1.1", {"content_length": b"99999999999999999999"}),
        (413, "1.1", {"content_length": b"104857601"}),
        (417, "1.1", {"expect": b"something"}),
        (400, "1.1", {"connection": b"Content-Length"}),
        (400, "1.1", {"connection": b"cookie"}),
        (501, "1.1", {"connection": b"upgrade", "upgrade": b"WebSocket"}),
        (501, "1.1", {"connection": b"upgrade", "upgrade": b"h2c, websocket"}),
        (400, "1.1", {"connection": b"upgrade", "upgrade": b"h2c", "content_length": b"1"}),
        (400, "1.0", {"connection": b"upgrade", "upgrade": b"h2c"}),
    ],
)
def test_what_is_not_beyond_doubt_is_refused(status: int, version: str, headers: dict[str, bytes]) -> None:
    with pytest.raises(Refusal) as raised:
        framed(version, **headers)
    assert raised.value.status == status


@pytest.mark.parametrize("length", [b"104857600", b"0"])
def test_lengths_at_the_limits_are_taken(length: bytes) -> None:
    assert framed(content_length=length).length == int(length)


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.b:1", b"A-b.example.:65535", b"127.0.0.1:8787", b"[::1]", b"[2001:db8::1.2.3.4]:80", b"a_b", b"%41"],
)
def test_hosts_are_taken_in_lower_case(host: bytes) -> None:
    assert strict.check_host(host) == host.lower().decode()


@pytest.mark.parametrize(
    "host",
    [None, b"", b":80", b"a:", b"a:0", b"a:65536", b"a:080000", b"a b", b"a,b", b"a/b", b"a@b", b"[a", b"a]", b"::1"],
)
def test_other_hosts_are_refused(host: bytes | None) -> None:
    with pytest.raises(Refusal):
        strict.check_host(host)


def test_every_visible_character_of_a_target_is_decided() -> None:
    refused = []
    for code in range(256):
        try:
            assert strict.check_target(b"/" + bytes([code])) == "/" + chr(code)
        except Refusal:
            refused.append(code)
    allowed = bytes(code for code in range(256) if code not in refused)
    assert set(range(33, 127)) - set(allowed) == set(b'"#<>\\')
    assert not set(refused) & set(b"abcXYZ019/?&=%+-._~!$'()*,;:@[]{}|^`")


def test_names_that_read_like_framing_headers_in_cgi_are_known() -> None:
    assert strict.looks_like_watched(b"transfer_encoding")
    assert strict.looks_like_watched(b"content_length")
    assert not strict.looks_like_watched(b"x_trace")
