"""How fast the public server alone is: a handler in the same process answers "Hello world!" to everything.

``python bench/hello_bare.py [PORT]`` serves until interrupted. Measure with ``wrk -t1 -c64 -d3 http://127.0.0.1:PORT/``
and compare with a bare uvicorn app on the same machine in the same minute (``--uvicorn`` serves that one).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop

from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.server import IngressServer

BODY = b"Hello world!"
HEADERS = [(b"content-type", b"text/plain")]


def hello(exchange: Exchange) -> None:
    exchange.respond(200, HEADERS, BODY)


async def app(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def serve(port: int) -> None:
    server = IngressServer(hello, host="127.0.0.1", port=port)
    await server.start()
    print(f"http://127.0.0.1:{server.port}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--uvicorn"]
    port = int(arguments[0]) if arguments else 0
    if "--uvicorn" in sys.argv:
        uvicorn.run(app, port=port, log_level="critical", access_log=False, lifespan="off")
    else:
        uvloop.run(serve(port))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
