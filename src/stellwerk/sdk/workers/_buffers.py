"""JavaScript's binary types, as far as programs use them: ``ArrayBuffer``, the typed arrays, ``DataView``.

A buffer is a bytearray; an array is a memoryview into it. They exist so that ``Uint8Array.new(...)`` can be handed to
a Response or to another Worker; for work on bytes Python's own types are the better ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from workers._js import JsProxy


class ArrayBuffer(JsProxy):
    """``ArrayBuffer.new(size)``, or a copy of anything bytes-like."""

    def __init__(self, source: Any = 0) -> None:
        self._data = bytearray(source)

    @property
    def byteLength(self) -> int:
        return len(self._data)

    def slice(self, start: int = 0, end: int | None = None) -> ArrayBuffer:
        return ArrayBuffer(self._data[start:end])

    def to_bytes(self) -> bytes:
        return bytes(self._data)

    def to_py(self, **_options: Any) -> memoryview:
        return memoryview(self._data)

    to_memoryview = to_py

    def __len__(self) -> int:
        return len(self._data)

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", bytes(self._data)


class TypedArray(JsProxy):
    """Base of the typed arrays. ``new`` takes a length, an iterable of numbers, bytes, or a buffer with an offset in
    bytes and a length in elements."""

    _format: ClassVar[Any] = "B"
    BYTES_PER_ELEMENT: ClassVar[int] = 1

    def __init__(self, source: Any = 0, byte_offset: int = 0, length: int | None = None) -> None:
        size = self.BYTES_PER_ELEMENT
        if isinstance(source, ArrayBuffer):
            self.buffer = source
            end = len(source) if length is None else byte_offset + length * size
            self.byteOffset = byte_offset
        else:
            self.buffer = ArrayBuffer(self._content(source))
            self.byteOffset, end = 0, len(self.buffer)
        if end > len(self.buffer) or (end - self.byteOffset) % size:
            raise ValueError(f"byte length of {type(self).__name__} should be a multiple of {size}")
        self._view: memoryview[Any] = memoryview(self.buffer._data)[self.byteOffset : end].cast(self._format)

    def _content(self, source: Any) -> Any:
        if isinstance(source, int):
            return source * self.BYTES_PER_ELEMENT
        if isinstance(source, (bytes, bytearray, memoryview)) and self.BYTES_PER_ELEMENT == 1:
            return source
        values = list(source)
        made: memoryview[Any] = memoryview(bytearray(len(values) * self.BYTES_PER_ELEMENT)).cast(self._format)
        for index, value in enumerate(values):
            made[index] = value
        return made.cast("B")

    @classmethod
    def of(cls, *values: Any) -> Any:
        return cls(values)

    @property
    def byteLength(self) -> int:
        return self._view.nbytes

    @property
    def length(self) -> int:
        return len(self._view)

    def subarray(self, start: int = 0, end: int | None = None) -> Any:
        """A view of the same memory."""
        first, last, _ = slice(start, end).indices(len(self._view))
        count = max(0, last - first)
        return type(self)(self.buffer, self.byteOffset + first * self.BYTES_PER_ELEMENT, count)

    def slice(self, start: int = 0, end: int | None = None) -> Any:
        """A copy."""
        return type(self)(ArrayBuffer(self._view[start:end].tobytes()))

    def set(self, values: Iterable[Any], offset: int = 0) -> None:
        for index, value in enumerate(values):
            self._view[offset + index] = value

    def to_bytes(self) -> bytes:
        return self._view.tobytes()

    def to_py(self, **_options: Any) -> memoryview[Any]:
        return self._view

    to_memoryview = to_py

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._view)

    def __getitem__(self, index: int) -> Any:
        return self._view[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self._view[index] = value

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", self._view.tobytes()


def _typed(name: str, code: str, size: int) -> type[TypedArray]:
    return type(name, (TypedArray,), {"_format": code, "BYTES_PER_ELEMENT": size, "__module__": __name__})


Int8Array = _typed("Int8Array", "b", 1)
Uint8Array = _typed("Uint8Array", "B", 1)
Uint8ClampedArray = _typed("Uint8ClampedArray", "B", 1)
Int16Array = _typed("Int16Array", "h", 2)
Uint16Array = _typed("Uint16Array", "H", 2)
Int32Array = _typed("Int32Array", "i", 4)
Uint32Array = _typed("Uint32Array", "I", 4)
Float32Array = _typed("Float32Array", "f", 4)
Float64Array = _typed("Float64Array", "d", 8)
BigInt64Array = _typed("BigInt64Array", "q", 8)
BigUint64Array = _typed("BigUint64Array", "Q", 8)


class DataView(JsProxy):
    """A window on a buffer: only its bytes are of use here."""

    def __init__(self, buffer: ArrayBuffer, byte_offset: int = 0, byte_length: int | None = None) -> None:
        self.buffer, self.byteOffset = buffer, byte_offset
        self.byteLength = len(buffer) - byte_offset if byte_length is None else byte_length

    def to_bytes(self) -> bytes:
        return bytes(self.buffer._data[self.byteOffset : self.byteOffset + self.byteLength])

    def __rpc_value__(self) -> tuple[str, Any]:
        return "", self.to_bytes()


BufferSource = (ArrayBuffer, TypedArray, DataView)
BytesLike = (bytes, bytearray, memoryview)


def as_bytes(chunk: Any) -> bytes:
    """The bytes of a chunk of a byte stream. Raises ``TypeError`` for text and everything else, as Cloudflare does."""
    if type(chunk) is bytes:
        return chunk
    if isinstance(chunk, BytesLike):
        return bytes(chunk)
    if isinstance(chunk, BufferSource):
        return chunk.to_bytes()
    raise TypeError(
        f"A body is a stream of bytes, but received a chunk of type {type(chunk).__name__}. Encode text first: "
        'chunk.encode("utf-8").'
    )
