"""``Blob`` and ``File``: immutable bytes with a content type, as Cloudflare's ``workers.blob`` has them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar

from workers._buffers import BufferSource, BytesLike
from workers._js import JsProxy, revivers

BlobValue = Any


class BlobEnding(StrEnum):
    """What happens to line ends in text parts: kept, or turned into the platform's (which is ``\\n``)."""

    TRANSPARENT = "transparent"
    NATIVE = "native"


class Blob:
    """Bytes from one part or several: str, bytes-like, JavaScript buffers, other blobs."""

    _kind: ClassVar[str] = "Blob"

    def __init__(
        self,
        blob_parts: BlobValue | Iterable[BlobValue],
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
    ) -> None:
        single = _is_part(blob_parts)
        parts = [blob_parts] if single else list(blob_parts)
        native = endings == BlobEnding.NATIVE
        self._data = b"".join(_part_bytes(part, native) for part in parts)
        if content_type is None and single:
            content_type = getattr(_unwrapped(blob_parts), "content_type", None)
        self._type = (content_type or "").lower()

    @classmethod
    def _of(cls, data: bytes, content_type: str) -> Blob:
        blob = object.__new__(Blob)
        blob._data, blob._type = data, content_type
        return blob

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def content_type(self) -> str:
        return self._type

    @property
    def js_object(self) -> JsBlob:
        return JsBlob(self)

    async def text(self) -> str:
        return self._data.decode("utf-8", "replace")

    async def bytes(self) -> bytes:
        return self._data

    def slice(self, start: int | None = None, end: int | None = None, content_type: str | None = None) -> Blob:
        return Blob._of(self._data[start:end], (content_type or "").lower())

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, content_type={self.content_type!r})"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "Blob", [self._data, self._type]


class File(Blob):
    """A Blob with a name and a time. ``last_modified`` is in milliseconds since the epoch."""

    _kind = "File"

    def __init__(
        self,
        blob_parts: BlobValue | Iterable[BlobValue],
        filename: str,
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
        last_modified: int | None = None,
    ) -> None:
        super().__init__(blob_parts, content_type, endings)
        if last_modified is None:
            inherited = getattr(_unwrapped(blob_parts), "last_modified", None) if _is_part(blob_parts) else None
            last_modified = time.time_ns() // 1_000_000 if inherited is None else inherited
        self._name, self._last_modified = filename, last_modified

    @property
    def name(self) -> str:
        return self._name

    @property
    def last_modified(self) -> int:
        return self._last_modified

    def __repr__(self) -> str:
        return f"File(name={self.name!r}, size={self.size}, content_type={self.content_type!r})"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "File", [self._data, self._name, self._type, self._last_modified]


class JsBlob(JsProxy):
    """JavaScript's view of a Blob or File."""

    def __init__(self, blob: Any, options: Any = None, **named: Any) -> None:
        given = {**(options if isinstance(options, dict) else {}), **named}
        self._blob = blob if isinstance(blob, Blob) else Blob(blob, given.get("type"), given.get("endings"))

    @property
    def size(self) -> int:
        return self._blob.size

    @property
    def type(self) -> str:
        return self._blob.content_type

    @property
    def name(self) -> str:
        if not isinstance(self._blob, File):
            raise AttributeError("name")
        return self._blob.name

    @property
    def lastModified(self) -> int:
        if not isinstance(self._blob, File):
            raise AttributeError("lastModified")
        return self._blob.last_modified

    async def text(self) -> str:
        return await self._blob.text()

    async def bytes(self) -> bytes:
        return await self._blob.bytes()

    async def arrayBuffer(self) -> Any:
        return BufferSource[0](self._blob._data)

    def slice(self, start: int | None = None, end: int | None = None, content_type: str | None = None) -> JsBlob:
        return JsBlob(self._blob.slice(start, end, content_type))

    def __rpc_value__(self) -> tuple[str, Any]:
        return self._blob.__rpc_value__()


class JsFile(JsBlob):
    def __init__(self, parts: Any, name: str, options: Any = None, **named: Any) -> None:
        given = {**(options if isinstance(options, dict) else {}), **named}
        super().__init__(File(parts, name, given.get("type"), given.get("endings"), given.get("lastModified")))


def _unwrapped(part: Any) -> Any:
    return part._blob if isinstance(part, JsBlob) else part


def _is_part(value: Any) -> bool:
    return isinstance(value, (str, Blob, JsBlob, *BytesLike, *BufferSource))


def _part_bytes(part: Any, native_endings: bool) -> bytes:
    if isinstance(part, str):
        text = part.replace("\r\n", "\n").replace("\r", "\n") if native_endings else part
        return text.encode("utf-8", "replace")
    if isinstance(part, BytesLike):
        return bytes(part)
    if isinstance(part, BufferSource):
        return part.to_bytes()
    if isinstance(part, (Blob, JsBlob)):
        return _unwrapped(part)._data  # type: ignore[no-any-return]
    raise TypeError(f"Don't know how to handle {type(part)} for Blob()")


def _file(content: list[Any]) -> File:
    data, name, content_type, last_modified = content
    return File(bytes(data), name, content_type, last_modified=last_modified)


revivers["Blob"] = lambda content: Blob._of(bytes(content[0]), content[1])
revivers["File"] = _file
