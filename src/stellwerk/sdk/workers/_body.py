"""Bodies: what Request and Response share. A body is read once, whole or in pieces, and costs nothing until then.

``_source`` holds it as it came: None, bytes, str (encoded when it leaves), an async iterator of bytes (from the wire),
or a ``ReadableStream`` (from the program, or made when ``body`` was asked for).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http.client import HTTPMessage
from typing import Any

from workers import _multipart
from workers._buffers import ArrayBuffer, BufferSource, BytesLike
from workers._headers import RawHeaders, first, http_message
from workers._js import JsProxy
from workers._streams import ReadableStream
from workers._url import URLSearchParams
from workers.blob import Blob, JsBlob
from workers.formdata import FormData, JsFormData

BODY_USED = "Body already used"
TEXT_TYPE = b"text/plain;charset=UTF-8"
FORM_TYPE = b"application/x-www-form-urlencoded;charset=UTF-8"


def extracted(body: Any) -> tuple[Any, bytes | None] | None:
    """A body as ``_source`` holds it and its content type, or None for a type that is no body. What can change is
    copied: the program may do with its buffer as it likes."""
    if isinstance(body, str):
        return body, TEXT_TYPE
    if isinstance(body, bytes):
        return body, None
    if isinstance(body, ReadableStream):
        if body.locked or body._disturbed:
            raise TypeError(
                "This ReadableStream is disturbed (has already been read from), and cannot be used as a body."
            )
        return body, None
    if isinstance(body, BufferSource):
        return body.to_bytes(), None
    if isinstance(body, (FormData, JsFormData)):
        form = body if isinstance(body, FormData) else body._form
        data, content_type = _multipart.encode(form._entries)
        return data, content_type.encode()
    if isinstance(body, (Blob, JsBlob)):
        blob = body if isinstance(body, Blob) else body._blob
        return blob._data, blob.content_type.encode() or None
    if isinstance(body, URLSearchParams):
        return str(body), FORM_TYPE
    return None


class Body:
    """Reading. Raises ``OSError("Body already used")`` on the second time."""

    _source: Any = None
    _used = False
    _headers: RawHeaders | None = None
    _content_type: bytes | None = None  # what the body brought along; a header of that name wins

    @property
    def headers(self) -> HTTPMessage:
        """A copy, names in lower case and sorted."""
        return http_message(self._header_list())

    def _header_list(self) -> RawHeaders:
        """The list itself, with the content type in it: for whoever changes it."""
        headers = self._headers
        if headers is None:
            headers = self._headers = []
        content_type = TEXT_TYPE if type(self._source) is str and self._content_type is None else self._content_type
        if content_type is not None:
            self._content_type = None
            if not any(name.lower() == b"content-type" for name, _ in headers):
                headers.append((b"content-type", content_type))
        return headers

    @property
    def body_used(self) -> bool:
        source = self._source
        return self._used or (isinstance(source, ReadableStream) and source._disturbed)

    @property
    def body(self) -> ReadableStream | None:
        """The body as a stream; None where there is none."""
        source = self._source
        if source is None or isinstance(source, ReadableStream):
            return source
        stream = ReadableStream(_once(source.encode("utf-8", "replace") if type(source) is str else source))
        if self._used:
            stream.locked = stream._disturbed = True
        elif type(source) is str:
            self._header_list()  # the default type goes with the text, which is about to be one no more
        self._source = stream
        return stream

    def _take(self) -> bytes | AsyncIterator[bytes] | None:
        """The body, for good."""
        source = self._source
        if source is None:
            return None
        if self._used:
            raise OSError(BODY_USED)
        kind = type(source)
        if kind is bytes:
            self._used = True
            return source  # type: ignore[no-any-return]
        if kind is str:
            self._used = True
            return source.encode("utf-8", "replace")  # type: ignore[no-any-return]
        if isinstance(source, ReadableStream):
            if source.locked or source._disturbed:
                raise OSError(BODY_USED)
            self._used = True
            return source._bytes()
        self._used = True
        return source  # type: ignore[no-any-return]

    async def bytes(self) -> bytes:
        taken = self._take()
        if taken is None:
            return b""
        if isinstance(taken, bytes):
            return taken
        return b"".join([chunk async for chunk in taken])

    async def text(self) -> str:
        data = await self.bytes()
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")

    async def json(self, **kwargs: Any) -> Any:
        """``kwargs`` go to ``json.loads``."""
        return json.loads(await self.text(), **kwargs)

    async def buffer(self) -> ArrayBuffer:
        return ArrayBuffer(await self.bytes())

    async def blob(self) -> Blob:
        content_type = first(self._header_list(), b"content-type")
        return Blob._of(await self.bytes(), content_type)

    async def form_data(self) -> FormData:
        """Raises ``TypeError`` for a body that is no form."""
        content_type = first(self._header_list(), b"content-type")
        return FormData._of(_multipart.parse(await self.bytes(), content_type))

    def _copied_body(self) -> Any:
        """A second body with the same content; this one stays readable."""
        source = self._source
        if source is None or type(source) in (bytes, str):
            if self._used and source is not None:
                raise OSError(BODY_USED)
            return source
        stream = self.body
        assert stream is not None
        if self.body_used or stream.locked:
            raise OSError(BODY_USED)
        self._source, copy = stream.tee()
        return copy

    def _as_stream(self) -> ReadableStream | None:
        """The body, for good, where it cannot be sent whole. Who takes it has to read it."""
        if self._source is None or isinstance(self._source, (str, *BytesLike)):
            return None
        if self.body_used:
            raise OSError(BODY_USED)
        stream = self.body
        if stream is not None and stream.locked:
            raise OSError(BODY_USED)
        self._used = True
        return stream

    def _described(self, body: Any) -> tuple[str, Any]:
        """What RPC sends, with ``body`` as a value or a stream."""
        raise NotImplementedError

    def _whole(self, kind: str) -> Any:
        """The body as a value, to be sent over RPC."""
        if self._source is not None and not isinstance(self._source, (str, *BytesLike)):
            raise TypeError(
                f"A {kind} whose body is a stream cannot be sent over RPC yet. Read it first, or use fetch() of the "
                "binding."
            )
        return self._take()


def _once(source: Any) -> AsyncIterator[Any]:
    return _single(source) if isinstance(source, bytes) else source


async def _single(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


def received_body(body: Any) -> Any:
    """A body as RPC has brought it."""
    return body if body is None or isinstance(body, ReadableStream) else bytes(body)


class JsBody(JsProxy):
    """What JavaScript's views of Request and Response share."""

    def _owner(self) -> Any:
        raise NotImplementedError

    @property
    def body(self) -> Any:
        return self._owner().body

    @property
    def bodyUsed(self) -> bool:
        return bool(self._owner().body_used)

    async def text(self) -> str:
        return str(await self._owner().text())

    async def bytes(self) -> bytes:
        return await self._owner().bytes()  # type: ignore[no-any-return]

    async def arrayBuffer(self) -> Any:
        return await self._owner().buffer()

    async def blob(self) -> Any:
        return (await self._owner().blob()).js_object

    async def formData(self) -> Any:
        return (await self._owner().form_data()).js_object

    def __rpc_value__(self) -> tuple[str, Any]:
        return self._owner().__rpc_value__()  # type: ignore[no-any-return]
