"""Requests with the verdict they must get, by group. ``BAD`` ones are refused with a status and the connection closed.

Collected from what RFC 9112 forbids, from published request smuggling tricks, and from what the parser was seen to let
through by itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    group: str
    name: str
    data: bytes
    status: int  # of the first answer

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: example.com") -> bytes:
    """A request head: the start line, the Host line unless empty, further lines, and the empty line."""
    return b"\r\n".join([start, *([host] if host else []), *lines]) + b"\r\n\r\n"


def post(*lines: bytes, body: bytes = b"hello", **parts: bytes) -> bytes:
    return head(*lines, start=parts.pop("start", b"POST / HTTP/1.1"), **parts) + body


CL5 = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"

GOOD = [
    Case("good", name, data, 200)
    for name, data in {
        "plain GET": head(),
        "GET with a query": head(start=b"GET /a/b?c=d&e=%20f|g HTTP/1.1"),
        "GET with brackets and a tilde": head(start=b"GET /~a/[b]/{c}?d=^ HTTP/1.1"),
        "HEAD": head(start=b"HEAD / HTTP/1.1"),
        "POST with a length": post(CL5),
        "POST with length 0": post(b"Content-Length: 0", body=b""),
        "POST without a body": head(start=b"POST / HTTP/1.1"),
        "POST in chunks": post(TE, body=CHUNKED),
        "POST in chunks, upper case": post(b"Transfer-Encoding: CHUNKED", body=CHUNKED),
        "chunk extension": post(TE, body=b"5;a=b\r\nhello\r\n0\r\n\r\n"),
        "trailers are dropped": post(TE, body=b"5\r\nhello\r\n0\r\nHost: evil\r\nX-Sum: 1\r\n\r\n"),
        "HTTP/1.0 with a Host": head(start=b"GET / HTTP/1.0"),
        "Host with a port": head(host=b"Host: localhost:8787"),
        "Host is an IPv6 address": head(host=b"Host: [::1]:8787"),
        "Host with an underscore": head(host=b"Host: my_service"),
        "an empty header": head(b"X-Empty:"),
        "spaces around a value": head(b"X-A:   b  "),
        "an underscore in an ordinary name": head(b"X_Trace: 1"),
        "an empty line before the request": b"\r\n" + head(),
        "Connection: keep-alive": head(b"Connection: keep-alive"),
        "Upgrade without Connection is ignored": head(b"Upgrade: h2c"),
        "an upgrade to h2c is ignored": head(
            b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"
        ),
        "PROPFIND": head(start=b"PROPFIND / HTTP/1.1"),
        "two cookies": head(b"Cookie: a=1", b"Cookie: b=2"),
        "latin-1 in a value": head(b"X-A: \xe9"),
    }.items()
]


def _bad(group: str, cases: dict[str, bytes | tuple[bytes, int]]) -> list[Case]:
    """Bad requests; 400 unless said otherwise."""
    found = []
    for name, value in cases.items():
        data, status = value if isinstance(value, tuple) else (value, 400)
        found.append(Case(group, name, data, status))
    return found


_SMUGGLED = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

BAD = [
    *_bad(
        "length and coding together",
        {
            "length, then coding": post(CL5, TE, body=_SMUGGLED),
            "coding, then length": post(TE, CL5, body=_SMUGGLED),
            "length 0 and coding": post(b"Content-Length: 0", TE, body=CHUNKED),
            "coding identity and a length": post(b"Transfer-Encoding: identity", CL5),
            "empty coding and a length": post(b"Transfer-Encoding:", CL5),
            "coding on a GET with a length": head(CL5, TE) + CHUNKED,
        },
    ),
    *_bad(
        "length",
        {
            "twice, different": post(CL5, b"Content-Length: 6"),
            "twice, the same": post(CL5, CL5),
            "a list": post(b"Content-Length: 5, 5"),
            "a list of different": post(b"Content-Length: 5, 6"),
            "plus sign": post(b"Content-Length: +5"),
            "minus sign": post(b"Content-Length: -5"),
            "minus zero": post(b"Content-Length: -0"),
            "hexadecimal": post(b"Content-Length: 0x5"),
            "leading zero": post(b"Content-Length: 05"),
            "many zeros": post(b"Content-Length: 000"),
            "with a space inside": post(b"Content-Length: 5 5"),
            "with a letter": post(b"Content-Length: 5a"),
            "empty": post(b"Content-Length:"),
            "a fraction": post(b"Content-Length: 5.0"),
            "exponent": post(b"Content-Length: 5e0"),
            "underscore": post(b"Content-Length: 1_0"),
            "above 64 bit": post(b"Content-Length: 18446744073709551621"),
            "arabic digits": post("Content-Length: ٥".encode()),
            "in quotes": post(b'Content-Length: "5"'),
            "name with an underscore": post(b"Content_Length: 5"),
            "vertical tab before": post(b"Content-Length:\x0b5"),
            "semicolon": post(b"Content-Length: 5;"),
        },
    ),
    *_bad(
        "coding",
        {
            "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED),
            "chunked, gzip": post(b"Transfer-Encoding: chunked, gzip", body=CHUNKED),
            "chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=CHUNKED),
            "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNKED),
            "identity": post(b"Transfer-Encoding: identity", body=CHUNKED),
            "identity, then chunked": post(b"Transfer-Encoding: identity", TE, body=CHUNKED),
            "chunked twice": post(TE, TE, body=CHUNKED),
            "xchunked": post(b"Transfer-Encoding: xchunked", body=CHUNKED),
            "chunkedx": post(b"Transfer-Encoding: chunkedx", body=CHUNKED),
            "in quotes": post(b'Transfer-Encoding: "chunked"', body=CHUNKED),
            "with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=CHUNKED),
            "comma before": post(b"Transfer-Encoding: ,chunked", body=CHUNKED),
            "comma behind": post(b"Transfer-Encoding: chunked,", body=CHUNKED),
            "vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=CHUNKED),
            "NUL": post(b"Transfer-Encoding: chunked\x00", body=CHUNKED),
            "underscore in the name": post(b"Transfer_Encoding: chunked", body=CHUNKED),
            "space before the colon": post(b"Transfer-Encoding : chunked", body=CHUNKED),
            "space before the name": post(b" Transfer-Encoding: chunked", body=CHUNKED),
            "folded": post(b"Transfer-Encoding:", b" chunked", body=CHUNKED),
            "on HTTP/1.0": post(TE, body=CHUNKED, start=b"POST / HTTP/1.0"),
            "empty": post(b"Transfer-Encoding:", body=CHUNKED),
        },
    ),
    *_bad(
        "chunks",
        {
            "size is no number": post(TE, body=b"xyz\r\nhello\r\n0\r\n\r\n"),
            "size with 0x": post(TE, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
            "size with a sign": post(TE, body=b"+5\r\nhello\r\n0\r\n\r\n"),
            "negative size": post(TE, body=b"-5\r\nhello\r\n0\r\n\r\n"),
            "size above 64 bit": post(TE, body=b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
            "space before the size": post(TE, body=b" 5\r\nhello\r\n0\r\n\r\n"),
            "space behind the size": post(TE, body=b"5 \r\nhello\r\n0\r\n\r\n"),
            "empty size": post(TE, body=b"\r\nhello\r\n0\r\n\r\n"),
            "line feed behind the size": post(TE, body=b"5\nhello\r\n0\r\n\r\n"),
            "line feed behind the data": post(TE, body=b"5\r\nhello\n0\r\n\r\n"),
            "too much data": post(TE, body=b"5\r\nhello!\r\n0\r\n\r\n"),
            "too little data": post(TE, body=b"6\r\nhello\r\n0\r\n\r\n"),
            "carriage return in the extension": post(TE, body=b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
            "line feed in the extension": post(TE, body=b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            "extensions without end": post(TE, body=b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"),
            "trailers without end": post(TE, body=b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"),
            "bad trailer": post(TE, body=b"5\r\nhello\r\n0\r\na b: c\r\n\r\n"),
        },
    ),
    *_bad(
        "lines",
        {
            "line feeds alone": b"GET / HTTP/1.1\nHost: example.com\n\n",
            "line feed behind the start line": b"GET / HTTP/1.1\nHost: example.com\r\n\r\n",
            "line feed behind a header": b"GET / HTTP/1.1\r\nHost: example.com\nA: b\r\n\r\n",
            "carriage return in a value": head(b"A: b\rc"),
            "carriage return alone": b"GET / HTTP/1.1\rHost: example.com\r\r",
            "NUL in a value": head(b"A: b\x00c"),
            "NUL in a name": head(b"A\x00: b"),
            "folded header": head(b"A: b", b" c"),
            "folded with a tab": head(b"A: b", b"\tc"),
            "space before the colon": head(b"A : b"),
            "space in a name": head(b"A b: c"),
            "no colon": head(b"A"),
            "no name": head(b": b"),
            "non-ASCII name": head(b"\xc3\xa4: b"),
            "brackets in a name": head(b"A(b): c"),
            "first header begins with a space": b"GET / HTTP/1.1\r\n Host: example.com\r\n\r\n",
            "control character in a value": head(b"A: b\x01c"),
        },
    ),
    *_bad(
        "start line",
        {
            "garbage": b"garbage\r\n\r\n",
            "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
            "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP/0.9": (b"GET /\r\n\r\n", 505),
            "HTTP/0.9 by name": (head(start=b"GET / HTTP/0.9"), 505),
            "HTTP/2.0": (head(start=b"GET / HTTP/2.0"), 505),
            "HTTP/1.2": head(start=b"GET / HTTP/1.2"),
            "HTTP/1": head(start=b"GET / HTTP/1"),
            "HTTP/1.10": head(start=b"GET / HTTP/1.10"),
            "lower case": head(start=b"GET / http/1.1"),
            "RTSP": (head(start=b"DESCRIBE / RTSP/1.0"), 501),  # but OPTIONS / RTSP/1.0 reads as HTTP/1.0: harmless
            "ICE": (head(start=b"SOURCE / ICE/1.0"), 501),
            "space behind the version": head(start=b"GET / HTTP/1.1 "),
            "tab instead of a space": head(start=b"GET\t/ HTTP/1.1"),
            "space before the method": head(start=b" GET / HTTP/1.1"),
            "no target": head(start=b"GET HTTP/1.1"),
            "lower case method": head(start=b"get / HTTP/1.1"),
            "unknown method": head(start=b"BREW / HTTP/1.1"),
            "method of 1,000 letters": head(start=b"A" * 1_000 + b" / HTTP/1.1"),
            "CONNECT": (head(start=b"CONNECT example.com:443 HTTP/1.1"), 501),
            "TRACE": (head(start=b"TRACE / HTTP/1.1"), 501),
            "empty lines without end": b"\r\n" * 10_000 + head(),
        },
    ),
    *_bad(
        "target",
        {
            "absolute": head(start=b"GET http://example.com/ HTTP/1.1"),
            "absolute, other host": head(start=b"GET http://evil/ HTTP/1.1"),
            "ftp": head(start=b"GET ftp://example.com/ HTTP/1.1"),
            "user and password": head(start=b"GET http://a:b@example.com/ HTTP/1.1"),
            "asterisk with GET": head(start=b"GET * HTTP/1.1"),
            "asterisk with OPTIONS": head(start=b"OPTIONS * HTTP/1.1"),
            "no slash": head(start=b"GET a HTTP/1.1"),
            "query alone": head(start=b"GET ?a HTTP/1.1"),
            "fragment": head(start=b"GET /a#b HTTP/1.1"),
            "backslash": head(start=b"GET /a\\b HTTP/1.1"),
            "quotes": head(start=b'GET /"a" HTTP/1.1'),
            "angle brackets": head(start=b"GET /<a> HTTP/1.1"),
            "space": head(start=b"GET /a b HTTP/1.1"),
            "tab": head(start=b"GET /a\tb HTTP/1.1"),
            "NUL": head(start=b"GET /a\x00 HTTP/1.1"),
            "UTF-8": head(start="GET /ä HTTP/1.1".encode()),
            "DEL": head(start=b"GET /\x7f HTTP/1.1"),
            "too long": (head(start=b"GET /" + b"a" * 20_000 + b" HTTP/1.1"), 414),
            "1 MB": (head(start=b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1"), 414),
        },
    ),
    *_bad(
        "host",
        {
            "missing": head(host=b""),
            "missing on HTTP/1.0": head(host=b"", start=b"GET / HTTP/1.0"),
            "twice, the same": head(b"Host: example.com"),
            "twice, different": head(b"Host: evil"),
            "empty": head(host=b"Host:"),
            "a list": head(host=b"Host: a,b"),
            "with a path": head(host=b"Host: example.com/a"),
            "with a user": head(host=b"Host: user@example.com"),
            "with a space": head(host=b"Host: a b"),
            "port 99999": head(host=b"Host: example.com:99999"),
            "port 0": head(host=b"Host: example.com:0"),
            "port is a word": head(host=b"Host: example.com:http"),
            "two ports": head(host=b"Host: example.com:80:80"),
            "port without a host": head(host=b"Host: :80"),
            "open bracket": head(host=b"Host: [::1"),
            "bracket with a name": head(host=b"Host: [example.com]"),
            "non-ASCII": head(host="Host: exämple.com".encode()),
            "fragment": head(host=b"Host: example.com#a"),
            "backslash": head(host=b"Host: example.com\\a"),
            "query": head(host=b"Host: example.com?a"),
        },
    ),
    *_bad(
        "connection",
        {
            "names content-length": post(CL5, b"Connection: content-length"),
            "names transfer-encoding": post(TE, b"Connection: close, Transfer-Encoding", body=CHUNKED),
            "names host": head(b"Connection: host"),
            "names authorization": head(b"Connection: authorization", b"Authorization: Bearer a"),
            "authorization twice": head(b"Authorization: Bearer a", b"Authorization: Bearer b"),
            "content-type twice": post(CL5, b"Content-Type: text/plain", b"Content-Type: text/html"),
            "unknown expectation": (post(CL5, b"Expect: 200-ok"), 417),
            "expectation twice": post(CL5, b"Expect: 100-continue", b"Expect: 100-continue"),
            "upgrade with a body": post(CL5, b"Connection: Upgrade", b"Upgrade: h2c"),
            "upgrade with chunks": post(TE, b"Connection: Upgrade", b"Upgrade: h2c", body=CHUNKED),
            "websocket with a body": post(CL5, b"Connection: Upgrade", b"Upgrade: websocket"),
            "upgrade on HTTP/1.0": head(b"Connection: Upgrade", b"Upgrade: h2c", start=b"GET / HTTP/1.0"),
            "upgrade twice": head(b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket"),
            "websocket": (head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"), 501),
            "websocket, upper case": (head(b"Connection: UPGRADE", b"Upgrade: WebSocket"), 501),
        },
    ),
    *_bad(
        "sizes",
        {
            "201 headers": (head(*[b"a: b"] * 200), 431),
            "100,000 headers": (head(*[b"a: b"] * 100_000), 431),
            "name of 1 MB": (head(b"a" * 1_000_000 + b": b"), 431),
            "value of 1 MB": (head(b"a: " + b"b" * 1_000_000), 431),
            "head just over 128 KiB": (head(*[b"a: " + b"b" * 1_330] * 100), 431),
            "body above the limit": (head(b"Content-Length: 104857601", start=b"POST / HTTP/1.1"), 413),
            "length of 19 digits": (head(b"Content-Length: 9999999999999999999", start=b"POST / HTTP/1.1"), 413),
        },
    ),
]
