"""``Request``: what a Worker is asked, and what it asks others. Nothing is parsed before somebody looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPMethod
from http.client import HTTPMessage
from typing import Any

from workers._body import Body, JsBody, extracted, received_body
from workers._headers import Headers, RawHeaders, http_message, raw_headers
from workers._js import JsException, JsProxy, js_object, js_text, options_of, revivers
from workers._url import normalised

_new = object.__new__
# The Fetch standard writes these in capitals however they were given; others stay as they are.
_NORMALISED = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"))
_REDIRECTS = ("follow", "manual", "error")


class Request(Body):
    """``Request(url_or_request, method=..., headers=..., body=..., redirect=..., cf=..., signal=...)``."""

    _method = "GET"
    _url = ""
    _cf: Any = None
    _redirect = "follow"
    _signal: Any = None
    _message: HTTPMessage | None = None

    def __init__(self, input: Any, **options: Any) -> None:
        if isinstance(input, JsRequest):
            if options:
                raise ValueError("Expected no options when constructing Request from a js.Request")
            self.__dict__ = input._request.__dict__  # another name for the same request, as a proxy is
            return
        if isinstance(input, Request):
            self._inherit(input, options)
        else:
            self._url = _url(input)
        self._apply(options)

    def _inherit(self, other: Request, options: dict[str, Any]) -> None:
        self._method, self._url, self._cf = other._method, other._url, other._cf
        self._redirect, self._signal = other._redirect, other._signal
        self._headers = list(other._header_list())
        if options.get("body") is None and other._source is not None:
            if other.body_used:
                raise OSError("Body already used")
            self._source = other._source
            other._used = True

    def _apply(self, options: dict[str, Any]) -> None:
        method, headers, body = options.get("method"), options.get("headers"), options.get("body")
        if method is not None:
            text = js_text(method)
            self._method = text.upper() if text.upper() in _NORMALISED else text
        if headers is not None:
            self._headers = raw_headers(headers)
        if body is not None:
            if self._method in ("GET", "HEAD"):
                raise JsException("Request with a GET or HEAD method cannot have a body.", name="TypeError")
            self._source, self._content_type = _request_body(body)
        redirect = options.get("redirect")
        if redirect is not None:
            if redirect not in _REDIRECTS:
                raise JsException(f"Invalid redirect value, must be one of {', '.join(_REDIRECTS)}.", name="TypeError")
            self._redirect = redirect
        if options.get("cf") is not None:
            self._cf = options["cf"]
        if options.get("signal") is not None:
            self._signal = options["signal"]

    @classmethod
    def _from_raw(
        cls,
        method: str,
        url: str,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes] | None,
        cf: Any = None,
    ) -> Request:
        """A request from the wire. Takes ``headers`` over."""
        self = _new(cls)
        self._method = method
        self._url = url
        self._headers = headers
        if body is not None:
            self._source = body
        if cf is not None:
            self._cf = cf
        return self

    @property
    def url(self) -> str:
        return self._url

    @property
    def method(self) -> HTTPMethod:
        """Raises ``KeyError`` for a verb that ``HTTPMethod`` does not know, as on Cloudflare."""
        return HTTPMethod[self._method]

    @property
    def headers(self) -> HTTPMessage:
        """Names in lower case and sorted; several values of one name are joined, except those of Set-Cookie."""
        message = self._message
        if message is None:
            message = self._message = http_message(self._header_list())
        return message

    @property
    def cf(self) -> Any:
        """What the ingress knows of the client, read by attribute; or None."""
        if self._cf is None or isinstance(self._cf, JsProxy):
            return self._cf
        return js_object(self._cf)

    @property
    def redirect(self) -> str:
        return self._redirect

    @property
    def signal(self) -> Any:
        return self._signal

    # The rest of the standard's properties exist for programs that look; nothing here depends on them.
    cache = "default"
    credentials = "same-origin"
    destination = ""
    integrity = ""
    is_history_navigation = False
    keepalive = False
    mode = "cors"
    referrer = "about:client"
    referrer_policy = ""

    @property
    def js_object(self) -> JsRequest:
        return JsRequest(self)

    @property
    def _js_request(self) -> JsRequest:
        return JsRequest(self)

    def clone(self) -> Request:
        """Raises ``OSError`` when the body has been read."""
        source = self._copied_body()
        copy = _new(type(self))
        copy.__dict__.update(self.__dict__)
        copy._headers, copy._source, copy._message = list(self._header_list()), source, None
        return copy

    def __repr__(self) -> str:
        return f"Request(method={self._method!r}, url={self._url!r})"

    def _described(self, body: Any) -> tuple[str, Any]:
        headers = [list(pair) for pair in self._header_list()]
        return "Request", [self._method, self._url, headers, body]

    def __rpc_value__(self) -> tuple[str, Any]:
        return self._described(self._whole("Request"))


def _url(url: Any) -> str:
    try:
        return normalised(url)
    except TypeError as error:
        raise JsException(str(error), name="TypeError") from None


def _request_body(body: Any) -> tuple[Any, bytes | None]:
    found = extracted(bytes(body) if isinstance(body, (bytearray, memoryview)) else body)
    if found is None:
        raise TypeError(f"Unsupported type in Request: {type(body).__name__}")
    return found


class JsRequest(JsBody):
    """JavaScript's view of a ``Request``."""

    def __init__(self, input: Any, *init: Any, **options: Any) -> None:
        if isinstance(input, Request) and not init and not options:
            self._request = input
            return
        given = options_of(init, options)
        if "headers" in given and not isinstance(given["headers"], (dict, list)):
            given["headers"] = Headers(given["headers"])
        self._request = Request(input._request if isinstance(input, JsRequest) else input, **given)

    @property
    def method(self) -> str:
        return self._request._method

    @property
    def url(self) -> str:
        return self._request._url

    @property
    def headers(self) -> Headers:
        return Headers._over(self._request._header_list())

    @property
    def cf(self) -> Any:
        return self._request.cf

    @property
    def redirect(self) -> str:
        return self._request._redirect

    @property
    def signal(self) -> Any:
        return self._request._signal

    def clone(self) -> JsRequest:
        return JsRequest(self._request.clone())

    async def json(self) -> Any:
        return await self._request.json()

    def _owner(self) -> Any:
        return self._request


def _revived(content: Any) -> Request:
    method, url, headers, body = content
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    return Request._from_raw(method, url, pairs, received_body(body))


revivers["Request"] = _revived
