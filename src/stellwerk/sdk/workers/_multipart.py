"""``multipart/form-data`` and ``application/x-www-form-urlencoded``, both ways, for bodies that are in memory.

Written by hand: the packages that do this are ones that users bring along in a version of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl

from workers.blob import Blob, File

_PARTS_MAX = 10_000  # a form with more is an attack on memory, not a form
_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)="([^"]*)"|;\s*([\w!#$%&\'*+.^`|~-]+)=([^;\s]+)')
_ESCAPES = {"%0A": "\n", "%0D": "\r", "%22": '"'}
_ESCAPED = re.compile("%0A|%0D|%22", re.IGNORECASE)


def encode(entries: Iterable[tuple[str, Any]]) -> tuple[bytes, str]:
    """The body and its content type."""
    boundary = f"----stellwerk{token_hex(16)}"  # 128 bits of chance: no content contains it by accident
    out: list[bytes] = []
    for name, value in entries:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, Blob):
            filename = value.name if isinstance(value, File) else "blob"
            kind = value.content_type or "application/octet-stream"
            head += f'; filename="{_quoted(filename)}"\r\nContent-Type: {kind}'
            data = value._data
        else:
            data = str(value).encode("utf-8", "replace")
        out += [head.encode("utf-8", "replace"), b"\r\n\r\n", data, b"\r\n"]
    out.append(f"--{boundary}--\r\n".encode())
    return b"".join(out), f"multipart/form-data; boundary={boundary}"


def _quoted(text: str) -> str:
    return text.replace("\n", "%0A").replace("\r", "%0D").replace('"', "%22")


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found.group().upper()], text)


def parameters(header: str) -> tuple[str, dict[str, str]]:
    """A header like ``form-data; name="a"`` as its word and its parameters. A backslash is a character like any other,
    as the web platform has it; what could not stand between the quotes is percent-encoded."""
    word = header.partition(";")[0].strip().lower()
    found: dict[str, str] = {}
    for quoted_name, quoted, bare_name, bare in _PARAMETER.findall(header):
        if quoted_name:
            found.setdefault(quoted_name.lower(), quoted)
        else:
            found.setdefault(bare_name.lower(), bare)
    return word, found


def parse(body: bytes, content_type: str) -> list[tuple[str, Any]]:
    """The entries of a form. Raises ``TypeError`` for a body or a content type that is no form."""
    word, found = parameters(content_type)
    if word == "application/x-www-form-urlencoded":
        return list(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace"))
    if word != "multipart/form-data":
        raise TypeError(
            "Unrecognized Content-Type header value. FormData can only parse the following MIME types: "
            "multipart/form-data, application/x-www-form-urlencoded"
        )
    boundary = found.get("boundary", "")
    if not boundary:
        raise TypeError("No boundary string in Content-Type header. The multipart/form-data MIME type requires one.")
    return _parse_multipart(body, b"--" + boundary.encode("utf-8", "replace"))


def _parse_multipart(body: bytes, delimiter: bytes) -> list[tuple[str, Any]]:
    if not body.startswith(delimiter):
        raise TypeError("No initial boundary string (or you have a truncated message).")
    entries: list[tuple[str, Any]] = []
    between = b"\r\n" + delimiter
    at = len(delimiter)
    while body[at : at + 2] != b"--":
        start = body.find(b"\n", at) + 1
        if start == 0 or body[at : start - 1].strip():
            raise TypeError("No new line after boundary.")
        end = body.find(between, start - 2)
        if end < 0:
            raise TypeError("No subsequent boundary string after multipart message.")
        entries.append(_parse_part(body[start:end]))
        if len(entries) > _PARTS_MAX:
            raise TypeError(f"A form may have at most {_PARTS_MAX} parts.")
        at = end + len(between)
    return entries


def _parse_part(part: bytes) -> tuple[str, Any]:
    head, separator, data = part.partition(b"\r\n\r\n")
    if not separator:
        raise TypeError("No \\r\\n\\r\\n after multipart header.")
    name = filename = None
    content_type = "text/plain"
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            word, found = parameters(value)
            if word == "form-data":
                name, filename = found.get("name"), found.get("filename")
        elif key.strip().lower() == "content-type":
            content_type = value.strip()
    if name is None:
        raise TypeError("Missing Content-Disposition header with a name in a part of the multipart message.")
    if filename is None:
        return _unquoted(name), data.decode("utf-8", "replace")
    return _unquoted(name), File(data, _unquoted(filename), content_type)
