"""``python -m stellwerk.node``: dev, serve, doctor."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import uvloop

from stellwerk.core.errors import StellwerkError
from stellwerk.node import config
from stellwerk.node.node import Node
from stellwerk.node.telemetry import doctor


def main() -> int:
    given = config.parse(sys.argv[1:])
    if given is None:
        print(doctor.render(as_json="--json" in sys.argv))
        return 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(given))


async def run(given: config.Config) -> int:
    """Runs a node until a signal asks it to end. 0: ended as asked; 1: could not start."""
    node = Node(given)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    try:
        await node.start()
    except StellwerkError as error:
        with contextlib.suppress(Exception):
            await node.stop()
        print(f"stellwerk: {error}", file=sys.stderr)
        return 1
    if given.workspace and not given.as_json:
        print(node.development.table(), flush=True)
    print(f"Ready on http://{given.ip}:{node.ingress.port}", flush=True)
    await asked.wait()
    await node.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
