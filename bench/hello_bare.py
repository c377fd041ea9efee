"""How fast the public server alone is: a handler in the same process answers "Hello world!" to everything.

``python bench/hello_bare.py`` runs three alternating rounds of ``wrk -t1 -c64`` against it and against a bare uvicorn
ASGI app, each in a process of its own, and prints requests/s and the ratio of the medians. ``serve`` or ``uvicorn`` as
argument runs one of the two until interrupted and prints its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop

from stellwerk.node.ingress.exchange import Exchange
from stellwerk.node.ingress.server import IngressServer

BODY = b"Hello world!"
HEADERS = [(b"content-type", b"text/plain")]
ROUNDS, SECONDS, CONNECTIONS = 3, 2, 64


def hello(exchange: Exchange) -> None:
    exchange.respond(200, HEADERS, BODY)


async def app(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, (b"content-length", b"12")]})
    await send({"type": "http.response.body", "body": BODY})


async def serve_stellwerk() -> None:
    server = IngressServer(hello, host="127.0.0.1", port=0)
    await server.start()
    print(f"http://127.0.0.1:{server.port}/", flush=True)
    await asyncio.Event().wait()


async def serve_uvicorn() -> None:
    config = uvicorn.Config(app, port=0, log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", flush=True)
    await serving


def measure(kind: str) -> float:
    """Requests per second of one fresh server; raises when an answer was not as it should be."""
    server = subprocess.Popen([sys.executable, __file__, kind], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", url]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        server.kill()
        server.communicate()
    if "Non-2xx" in report or "Socket errors" in report:
        raise SystemExit(report)
    found = re.search(r"Requests/sec:\s*([0-9.]+)", report)
    assert found is not None, report
    return float(found[1])


def compare() -> None:
    results: dict[str, list[float]] = {"serve": [], "uvicorn": []}
    for _ in range(ROUNDS):
        for kind, rates in results.items():
            rates.append(measure(kind))
    for kind, rates in results.items():
        print(f"{kind:8}", *(f"{rate:10,.0f}" for rate in rates), "requests/s")
    ratio = statistics.median(results["serve"]) / statistics.median(results["uvicorn"])
    print(f"ratio of the medians: {ratio:.2f}")


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            uvloop.run(serve_stellwerk())
        case ["uvicorn"]:
            uvloop.run(serve_uvicorn())
        case _:
            compare()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
