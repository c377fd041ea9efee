"""``fetch``: the one way out, to the network or through a service binding."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

from workers._abort import guarded
from workers._host import RawRequest, RawResponse, host
from workers._js import JsException
from workers.request import JsRequest, Request
from workers.response import FetchResponse, JsResponse, Response


class FetchKwargs(TypedDict, total=False):
    """The options of ``fetch`` by name."""

    headers: Any
    body: Any
    method: Any
    redirect: str
    cf: Any
    fetcher: Any


Sender = Callable[[RawRequest], Awaitable[RawResponse]]


def outgoing(resource: Any, options: dict[str, Any]) -> RawRequest:
    """What the host is to send. Takes the body of ``resource``."""
    if isinstance(resource, JsRequest):
        resource = resource._request
    request = resource if type(resource) is Request and not options else Request(resource, **options)
    return RawRequest(
        request._method,
        request._url,
        list(request._header_list()),  # a copy: the host may add to it, and the request may be sent again
        request._take(),
        request._redirect,
        request._signal,
        request._cf,
    )


async def fetch(resource: Any, **options: Any) -> Response:
    """Sends a request and returns its response as soon as the head is there.

    ``resource`` is a URL or a Request; options are ``method``, ``headers``, ``body``, ``redirect`` (follow, manual,
    error), ``cf``, ``signal`` and ``fetcher`` (what sends instead of the network). Raises ``OSError`` when no answer
    can be had.
    """
    fetcher = options.pop("fetcher", None) if options else None
    request = outgoing(resource, options)
    send = getattr(fetcher, "_send", None)
    if fetcher is None:
        if not request.url.startswith(("http://", "https://")):
            raise JsException(f"Fetch API cannot load: {request.url}", name="TypeError")
        send = host().fetch
    elif send is None:
        return await _through(fetcher, request)
    pending = send(request)
    raw = await (pending if request.signal is None else guarded(pending, request.signal))
    return Response._from_raw(raw)


async def _through(fetcher: Any, request: RawRequest) -> Response:
    """A transport of the user's own: called with JavaScript's Request, answers with a response of either kind."""
    outgoing_request = Request._from_raw(request.method, request.url, request.headers, request.body, request.cf)
    answer = fetcher(JsRequest(outgoing_request))
    if inspect.isawaitable(answer):
        answer = await answer
    if not isinstance(answer, (JsResponse, FetchResponse)):
        raise TypeError(f"The fetcher must return a Response, but it returned {type(answer).__name__}.")
    return answer if isinstance(answer, Response) else Response(answer)
