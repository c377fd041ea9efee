"""The very node, but for one limit: it forgives a step fewer interruptions, so that a test reaches the limit.

python -m tests.fault.kill.few_step_ends dev FOLDER ...
"""

from __future__ import annotations

import sys

from stellwerk.core import limits
from stellwerk.node.__main__ import main

INTERRUPTIONS_MAX = 3

if __name__ == "__main__":
    limits.INTERRUPTIONS_MAX = INTERRUPTIONS_MAX  # type: ignore[misc]  # it is Final
    sys.exit(main())
