"""Rendering of answers: status line and headers to bytes, with no I/O.

A Worker's headers come from a stranger's program. A name that is no token, or a value with a line break, would let it
write a second answer into the connection, so such an answer is refused as a whole (``BadAnswer``).
"""

from __future__ import annotations

import re

from stellwerk.node.ingress.pages import phrase
from stellwerk.node.ingress.strict import TOKEN, HeaderList

NAMES_KNOWN_MAX = 4_096  # header names remembered as checked; Workers use few, a hostile one may invent many

# Ours to say, or meant for one hop only; what a Worker says about them is left out.
_DROPPED = frozenset(b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade date server".split())
_LENGTH = b"content-length"
_REASON = re.compile(r"[\t -~\x80-\xff]*")
_DIGITS = re.compile(rb"[0-9]{1,18}")

STATUS_LINES = {status: b"HTTP/1.1 %d %b" % (status, phrase(status).encode()) for status in range(200, 600)}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_known: dict[bytes, bytes] = dict.fromkeys((*_DROPPED, _LENGTH), b"")


class BadAnswer(ValueError):
    """The handler's status, reason or headers cannot be put on the wire."""


def render_head(status: int, reason: str, headers: HeaderList, bytes_max: int) -> tuple[bytes, int | None]:
    """Status line and headers, without the last line break, and the handler's own content-length if it gave one."""
    lines = [_status_line(status, reason)]
    length: int | None = None
    try:
        for name, value in headers:
            prefix = _known.get(name)
            if prefix is None:
                prefix = _learn(name)
            if prefix:
                lines.append(prefix + value)
            elif name.lower() == _LENGTH:
                length = _parse_length(value, length)
        block = b"".join(lines)
    except TypeError as error:
        raise BadAnswer(f"names and values of headers must be bytes: {error}") from None
    breaks = len(lines) - 1  # each line but the first begins with CR LF
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks or b"\0" in block:
        raise BadAnswer("a header's value has a line break or a NUL in it")
    if len(block) > bytes_max:
        raise BadAnswer(f"its headers have {len(block)} bytes; at most {bytes_max} are allowed")
    return block, length


def _status_line(status: int, reason: str) -> bytes:
    line = STATUS_LINES.get(status)
    if line is None:
        raise BadAnswer(f"{status!r} is no status of a final answer (200 to 599)")
    if reason:
        if _REASON.fullmatch(reason) is None:
            raise BadAnswer("the reason phrase has characters that may not be in one")
        return b"HTTP/1.1 %d %b" % (status, reason.encode("latin-1"))
    return line


def _learn(name: bytes) -> bytes:
    """What stands before the value of this header: empty for one that is left out."""
    lowered = name.lower()
    if TOKEN.fullmatch(lowered) is None:
        raise BadAnswer(f"{name!r} is no name of a header")
    prefix = b"" if lowered in _DROPPED or lowered == _LENGTH else b"\r\n" + lowered + b": "
    if len(_known) < NAMES_KNOWN_MAX:
        _known[name] = prefix
    return prefix


def _parse_length(value: bytes, earlier: int | None) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise BadAnswer(f"content-length {value!r} is no number")
    length = int(value)
    if earlier is not None and earlier != length:
        raise BadAnswer(f"content-length was given twice, {earlier} and {length}")
    return length


def chunk_parts(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk of a chunked body, in three pieces so that a large one need not be copied."""
    return b"%x\r\n" % len(chunk), chunk, b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"
