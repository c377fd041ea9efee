"""``Response``: what a Worker answers, and what others answered it.

Making one is on the path of every request, so it keeps what it was given and no more: the default content type and
the bytes of a text come into being in ``raw_parts``, which is how the isolate takes a response out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from workers._body import BODY_USED, TEXT_TYPE, Body, JsBody, extracted, received_body
from workers._headers import Headers, RawHeaders, first, raw_headers
from workers._host import RawResponse
from workers._js import JsException, JsProxy, options_of, revivers
from workers._url import normalised
from workers.formdata import FormData

_new = object.__new__
_NULL_BODY = frozenset((101, 204, 205, 304))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_TEXT_HEADER = (b"content-type", TEXT_TYPE)
JSON_TYPE = b"application/json"


class HttpStatusError(OSError):
    """What ``raise_for_status`` raises."""

    def __init__(self, status: int, status_text: str, url: str) -> None:
        whose = "Client" if status < 500 else "Server"
        super().__init__(f"{status} {whose} Error: {status_text} for url: {url}")
        self.status, self.status_text, self.url = status, status_text, url


class PyodideFetchResponse(Body):
    """What Pyodide gives every response (``pyodide.http.FetchResponse``)."""

    _status = 200
    _reason = ""
    _url = ""
    _redirected = False
    _web_socket: Any = None

    @property
    def status(self) -> int:
        return self._status

    @property
    def status_text(self) -> str:
        return self._reason or _REASONS.get(self._status, "")

    @property
    def ok(self) -> bool:
        return 200 <= self._status <= 299

    @property
    def redirected(self) -> bool:
        return self._redirected

    @property
    def type(self) -> str:
        return "default"

    @property
    def url(self) -> str:
        return self._url

    def raise_for_status(self) -> None:
        """Raises ``HttpStatusError`` (an ``OSError``) for 400 and above."""
        if self._status >= 400:
            raise HttpStatusError(self._status, self.status_text, self._url)

    async def string(self) -> str:
        return await self.text()

    async def memoryview(self) -> memoryview:
        return memoryview(await self.bytes())


class FetchResponse(PyodideFetchResponse):
    """What Cloudflare's SDK adds."""

    @property
    def js_object(self) -> JsResponse:
        return JsResponse._over(self)

    @property
    def js_response(self) -> JsResponse:
        return JsResponse._over(self)

    def clone(self) -> Response:
        """Raises ``OSError`` when the body has been read."""
        return self._with_body(self._copied_body())

    def replace_body(self, body: Any) -> Response:
        """A response with this one's status, status text and headers."""
        made = Response(body)
        copy = self._with_body(made._source)
        copy._content_type = made._content_type
        return copy

    def _with_body(self, source: Any) -> Response:
        copy = _new(Response)
        copy.__dict__.update(self.__dict__)
        copy._headers, copy._source, copy._used = list(self._header_list()), source, False
        return copy

    async def formData(self) -> FormData:
        return await self.form_data()

    def __repr__(self) -> str:
        parts = [f"status={self.status}", f"status_text={self.status_text!r}"]
        content_type = first(self._header_list(), b"content-type")
        if content_type:
            parts.append(f"content_type={content_type!r}")
        if self._url:
            parts.append(f"url={self._url!r}")
        return f"Response({', '.join(parts)})"

    def _described(self, body: Any) -> tuple[str, Any]:
        headers = [list(pair) for pair in self._header_list()]
        return "Response", [self._status, self._reason, headers, body]

    def __rpc_value__(self) -> tuple[str, Any]:
        return self._described(self._whole("Response"))


class _Json:
    """``response.json()`` reads the body, ``Response.json(data)`` makes a response: both are Cloudflare's API."""

    def __get__(self, response: Response | None, owner: type) -> Callable[..., Any]:
        return Response.from_json if response is None else response._read_json


class Response(FetchResponse):
    """``Response(body, status, status_text, headers, web_socket)``. A falsy status means 200."""

    def __init__(
        self,
        body: Any = None,
        status: int | None = None,
        status_text: str = "",
        headers: Any = None,
        web_socket: Any = None,
    ) -> None:
        kind = type(body)
        if kind is str or kind is bytes:
            self._source = body
        elif body is not None:
            if isinstance(body, (JsResponse, FetchResponse)):
                self._become(body, status or status_text or headers is not None)
                return
            self._adopt(body)
        if headers is not None:
            self._headers = raw_headers(headers)
        if status_text:
            self._reason = str(status_text)
        if status and status != 200:
            self._set_status(int(status), web_socket)

    def _adopt(self, body: Any) -> None:
        found = extracted(body)
        if found is None:
            name = body.constructor.name if isinstance(body, JsProxy) else type(body).__name__
            raise TypeError(f"Unsupported type in Response: {name}")
        self._source, self._content_type = found

    def _become(self, other: Any, has_options: Any) -> None:
        if has_options:
            raise ValueError("Expected no options when constructing Response from a js.Response")
        self.__dict__ = (other._response if isinstance(other, JsResponse) else other).__dict__

    def _set_status(self, status: int, web_socket: Any) -> None:
        if not 200 <= status <= 599 and not (status == 101 and web_socket is not None):
            raise JsException(
                "Responses may only be constructed with status codes in the range 200 to 599, inclusive.",
                name="RangeError",
            )
        if status in _NULL_BODY and self._source is not None:
            if self._source not in ("", b""):
                raise JsException(
                    "Response with null body status (101, 204, 205, or 304) cannot have a body.", name="TypeError"
                )
            self._source = None
        self._status, self._web_socket = status, web_socket

    @classmethod
    def _from_raw(cls, raw: RawResponse) -> Response:
        """A response from the wire. Takes ``raw`` over."""
        self = _new(cls)
        self._status, self._headers = raw.status, raw.headers
        if raw.body is not None and raw.status not in _NULL_BODY:
            self._source = raw.body
        self._reason, self._url = raw.reason, raw.url
        if raw.redirected:
            self._redirected = True
        return self

    @staticmethod
    def redirect(url: Any, status: int = 302) -> JsResponse:
        """JavaScript's own response. Raises ``ValueError`` for no URL, and for another status than 301, 302, 303, 307
        and 308."""
        if status not in _REDIRECTS:
            raise ValueError(f"{status} is not a redirect status code.")
        try:
            location = normalised(url)
        except TypeError as error:
            raise ValueError(f"Unable to parse URL: {error}") from None
        response = Response(None, status=status)
        response._headers = [(b"location", location.encode())]
        return JsResponse._over(response)

    @staticmethod
    def from_json(data: Any, status: int = 200, status_text: str = "", headers: Any = None) -> Response:
        """``json.dumps(data)`` with content type application/json unless ``headers`` say another."""
        try:
            response = Response(json.dumps(data), status, status_text, headers)
        except JsException as error:
            raise ValueError(str(error)) from None
        response._content_type = JSON_TYPE  # a header of that name wins
        return response

    async def _read_json(self, **kwargs: Any) -> Any:
        return await FetchResponse.json(self, **kwargs)

    json = _Json()


def raw_parts(response: Any) -> tuple[int, RawHeaders, bytes | AsyncIterator[bytes] | None, str]:
    """Status, headers, body and reason, for the isolate; the body is used up. Raises ``TypeError`` for a return value
    that is no response."""
    if type(response) is not Response:
        response = _response_of(response)
    source = response._source
    kind = type(source)
    if kind is str or kind is bytes:
        if response._used:
            raise OSError(BODY_USED)
        response._used = True
        body = source.encode("utf-8", "replace") if kind is str else source
    else:
        body = response._take()
    headers = response._headers
    if headers is None:
        headers = []
    if kind is str and response._content_type is None:
        content_type: Any = _TEXT_HEADER
    elif response._content_type is not None:
        content_type = (b"content-type", response._content_type)
    else:
        return response._status, headers, body, response._reason
    for name, _ in headers:
        if name == b"content-type" or name.lower() == b"content-type":
            return response._status, headers, body, response._reason
    return response._status, [*headers, content_type], body, response._reason


def _response_of(returned: Any) -> Any:
    if isinstance(returned, JsResponse):
        return returned._response
    if isinstance(returned, PyodideFetchResponse):
        return returned
    shown = f"an object of type {type(returned).__name__}"
    if returned is None or isinstance(returned, (str, int, float)):  # of others the repr is the program's own code
        shown = f"{returned!r:.100}"
    raise TypeError(f"The fetch handler must return a Response, but it returned {shown}.")


class _JsJson:
    """As ``_Json``, with JavaScript's own text of JSON (no spaces)."""

    def __get__(self, response: JsResponse | None, owner: type) -> Callable[..., Any]:
        return _js_json if response is None else response._read_json


class JsResponse(JsBody):
    """JavaScript's view of a ``Response``: ``js.Response.new(body, init)``."""

    def __init__(self, body: Any = None, *init: Any, **options: Any) -> None:
        given = options_of(init, options)
        headers = given.get("headers")
        if headers is not None and not isinstance(headers, (dict, list)):
            headers = Headers(headers)
        if isinstance(body, (bytearray, memoryview)):
            body = bytes(body)
        self._response: Any = Response(
            body, given.get("status"), given.get("statusText", ""), headers, given.get("webSocket")
        )

    @classmethod
    def _over(cls, response: FetchResponse) -> JsResponse:
        view = _new(cls)
        view._response = response
        return view

    @staticmethod
    def redirect(url: Any, status: int = 302) -> JsResponse:
        return Response.redirect(url, status)

    @property
    def status(self) -> int:
        return int(self._response._status)

    @property
    def statusText(self) -> str:
        return str(self._response.status_text)

    @property
    def ok(self) -> bool:
        return bool(self._response.ok)

    @property
    def headers(self) -> Headers:
        return Headers._over(self._response._header_list())

    @property
    def url(self) -> str:
        return str(self._response._url)

    @property
    def redirected(self) -> bool:
        return bool(self._response._redirected)

    @property
    def type(self) -> str:
        return "default"

    @property
    def webSocket(self) -> Any:
        return self._response._web_socket

    def clone(self) -> JsResponse:
        return JsResponse._over(self._response.clone())

    async def _read_json(self) -> Any:
        return await self._response.json()

    json = _JsJson()

    def _owner(self) -> Any:
        return self._response


def _js_json(data: Any, *init: Any, **options: Any) -> JsResponse:
    made = JsResponse(json.dumps(data, separators=(",", ":"), ensure_ascii=False), *init, **options)
    made._response._content_type = JSON_TYPE
    return made


def _revived(content: Any) -> Response:
    status, reason, headers, body = content
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    return Response._from_raw(RawResponse(status, pairs, received_body(body), reason))


revivers["Response"] = _revived
