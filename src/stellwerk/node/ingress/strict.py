"""What a request must be to be let in: pure rules over a head, beyond what the parser checks itself.

llhttp refuses most smuggling, but not a wrong version, target, Host, a list of transfer codings, repeated framing
headers or oversized parts, and it reports a head as complete *before* it refuses a bad Transfer-Encoding. So every
head passes here first, and whatever two programs could read in two ways is refused: the caller answers with the
status of the ``Refusal`` and closes the connection, because nothing after an ambiguous message can be trusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stellwerk.core import limits

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressLimits:
    """The numbers that bound one public server; a test may shorten them. Sizes in bytes, times in milliseconds."""

    url_bytes_max: int = limits.URL_BYTES_MAX
    head_bytes_max: int = limits.REQUEST_HEAD_BYTES_MAX
    headers_max: int = limits.REQUEST_HEADERS_MAX
    body_bytes_max: int = limits.REQUEST_BODY_BYTES_MAX
    inline_body_bytes_max: int = limits.INLINE_BODY_BYTES_MAX
    response_head_bytes_max: int = limits.RESPONSE_HEAD_BYTES_MAX
    body_window_bytes: int = limits.STREAM_CREDIT_BYTES
    write_buffer_bytes: int = limits.INGRESS_WRITE_BUFFER_BYTES
    chunk_overhead_bytes_max: int = limits.CHUNK_OVERHEAD_BYTES_MAX
    connections_max: int = limits.CONNECTIONS_MAX
    pipeline_max: int = limits.PIPELINE_MAX
    head_timeout_ms: int = limits.HEAD_TIMEOUT_MS
    keepalive_timeout_ms: int = limits.KEEPALIVE_TIMEOUT_MS
    body_stall_timeout_ms: int = limits.BODY_STALL_TIMEOUT_MS
    linger_ms: int = limits.INGRESS_LINGER_MS
    sweep_ms: int = limits.INGRESS_SWEEP_MS


class Refusal(Exception):
    """This request is not let in: answer with ``status`` and close. ``code`` is stable, ``message`` is for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def ambiguous(message: str) -> Refusal:
    """A request that is malformed, or that two programs could read differently."""
    return Refusal(400, "request.malformed", message)


@dataclass(frozen=True, slots=True)
class Framing:
    """How a request's body is delimited and what becomes of the connection after it."""

    length: int = 0
    chunked: bool = False
    close: bool = False
    old: bool = False  # HTTP/1.0: no chunks in the answer, and the connection ends with it
    expects: bool = False  # waits for 100 Continue before it sends the body
    upgrade: bytes = b""
    dropped: tuple[bytes, ...] = ()  # headers that Connection names as meant for this hop only


PLAIN = Framing()
"""Of a request with nothing but ordinary headers, on HTTP/1.1: most of them."""

# What a Worker may be asked with. Not CONNECT and TRACE, which `fetch` forbids, nor the methods of RTSP and of HTTP/2's
# preface, which the parser knows too.
METHODS = {
    name.encode(): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PURGE", "LINK", "UNLINK"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "MKCALENDAR"),
        *("MKACTIVITY", "CHECKOUT", "MERGE", "ACL", "BIND", "REBIND", "UNBIND"),
        *("SUBSCRIBE", "UNSUBSCRIBE", "NOTIFY"),
    )
}

# Concern this hop only, so the Worker never sees them.
HOP_BY_HOP = frozenset(
    b"connection transfer-encoding expect upgrade keep-alive te trailer http2-settings "
    b"proxy-connection proxy-authenticate proxy-authorization".split()
)
# Decide nothing here, but two of them mean that somebody on the way may have believed the other one.
ONCE = frozenset((b"authorization", b"content-type"))
# Looked at one by one; all other headers are passed on as they are.
WATCHED = HOP_BY_HOP | ONCE | {b"content-length"}
_REPEATABLE = frozenset((b"connection", b"te", b"trailer", b"keep-alive"))
# A Connection header that names one of these asks us to forget how the message is framed or whom it is for.
_NEVER_DROPPED = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"expect"))

_TARGET = re.compile(rb"/[!$-;=?-\[\]-~]*")  # visible ASCII without `"`, `#`, `<`, `>` and `\`
_HOST = re.compile(rb"(?:[a-z0-9_~!$&'()*+;=%.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_target(target: bytes) -> str:
    """The target of a request line, which must be a path with an optional query (origin form)."""
    if _TARGET.fullmatch(target) is None:
        raise ambiguous(
            "The request target must be a path that begins with / and consists of visible ASCII characters."
        )
    return target.decode("ascii")


def check_host(value: bytes | None) -> str:
    """The Host header in lower case: a name or address with an optional port, and nothing else."""
    if value is None:
        raise ambiguous("The request has no Host header.")
    lowered = value.lower()
    found = _HOST.fullmatch(lowered)
    if found is None or (found[1] is not None and not 0 < int(found[1]) < 65_536):
        raise ambiguous("The Host header is not a host name or address with an optional port.")
    return lowered.decode("ascii")


def looks_like_watched(name: bytes) -> bool:
    """Whether a name with underscores would become a framing header where ``_`` and ``-`` count as the same (CGI)."""
    dashed = name.replace(b"_", b"-")
    return dashed in WATCHED or dashed == b"host"


def join_watched(name: bytes, first: bytes, second: bytes) -> bytes:
    """The value of a watched header that came twice, where that is allowed."""
    if name not in _REPEATABLE:
        raise ambiguous(f"The header {name.decode('latin-1')} came twice.")
    return first + b"," + second


def framing(version: str, watched: dict[bytes, bytes], limit: IngressLimits) -> Framing:
    """Decides from the watched headers how the body is framed; raises ``Refusal`` for all that is not beyond doubt."""
    old = version == "1.0"
    length, chunked = _body(watched, old, limit)
    tokens = tuple(token.strip(b" \t").lower() for token in watched.get(b"connection", b"").split(b","))
    for token in tokens:
        if token in _NEVER_DROPPED:
            raise ambiguous(f"The Connection header names {token.decode('latin-1')}.")
    upgrade = watched.get(b"upgrade", b"") if b"upgrade" in tokens else b""
    if upgrade:
        _check_upgrade(upgrade, old, has_body=bool(length or chunked))
    expect = watched.get(b"expect")
    if expect is not None and expect.strip(b" \t").lower() != b"100-continue":
        raise Refusal(417, "request.expectation", "The only expectation that can be met is 100-continue.")
    return Framing(
        length=length,
        chunked=chunked,
        close=old or b"close" in tokens,
        old=old,
        expects=expect is not None and not old and bool(length or chunked),
        upgrade=upgrade,
        dropped=tuple(token for token in tokens if token and token not in HOP_BY_HOP and token != b"close"),
    )


def _body(watched: dict[bytes, bytes], old: bool, limit: IngressLimits) -> tuple[int, bool]:
    coding, length = watched.get(b"transfer-encoding"), watched.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise ambiguous("The request has both Transfer-Encoding and Content-Length.")
        if old:
            raise ambiguous("HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != b"chunked":
            raise ambiguous("The only Transfer-Encoding that is understood is chunked, alone.")
        return 0, True
    if length is None:
        return 0, False
    if _LENGTH.fullmatch(length) is None:
        raise ambiguous("The Content-Length is not a plain decimal number.")
    if int(length) > limit.body_bytes_max:
        raise body_too_large(limit)
    return int(length), False


def _check_upgrade(upgrade: bytes, old: bool, *, has_body: bool) -> None:
    """llhttp stops at an upgrade and leaves the body in the stream, where it would be read as the next request."""
    if old:
        raise ambiguous("HTTP/1.0 has no Upgrade.")
    if has_body:
        raise ambiguous("A request that asks for an Upgrade may not have a body.")
    if any(token.strip(b" \t").lower() == b"websocket" for token in upgrade.split(b",")):
        raise Refusal(501, "request.websocket_not_built", "WebSocket connections to Workers are not built yet.")


def body_too_large(limit: IngressLimits) -> Refusal:
    return Refusal(413, "request.body_too_large", f"A request body may have at most {limit.body_bytes_max} bytes.")


def url_too_long(limit: IngressLimits) -> Refusal:
    return Refusal(414, "request.url_too_long", f"A URL may have at most {limit.url_bytes_max} bytes.")


def head_too_large(limit: IngressLimits) -> Refusal:
    return Refusal(
        431,
        "request.head_too_large",
        f"A request head may have at most {limit.head_bytes_max} bytes and {limit.headers_max} headers.",
    )
