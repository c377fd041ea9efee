"""The very node, but its start takes so long that the runs which it took up have all ended by then.

    python -m tests.fault.kill.slow_start dev FOLDER ...

On a busy machine a node is in the middle of its start when the first of them have something to say.
"""

from __future__ import annotations

import asyncio
import sys
import time

from stellwerk.node.__main__ import main
from stellwerk.node.workflow.engine import Engine

LATE_S = 5.0
LOOK_EVERY_S = 0.02
honest_start = Engine.start


async def start(engine: Engine) -> None:
    await honest_start(engine)
    deadline = time.monotonic() + LATE_S
    while engine.counters.ended < engine.counters.runs_interrupted or not engine.counters.ended:
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(LOOK_EVERY_S)  # bounded


if __name__ == "__main__":
    Engine.start = start  # type: ignore[method-assign, assignment]
    sys.exit(main())
