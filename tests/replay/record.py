"""Records the journals of programs that have none yet. From the project's folder:

    PYTHONPATH=.:src/stellwerk/sdk python -m tests.replay.record

A journal that exists is never written again. It stands for those that lie in people's state folders, and a release
that cannot read or replay it breaks their runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from tests.replay.programs import EVENTS, PROGRAMS
from tests.unit.isolate_workflow.little_node import live

from stellwerk.core.workflow import entries as e

JOURNALS = Path(__file__).with_name("journals")


def record(name: str) -> dict[str, Any]:
    """The journal of a run of this program during which the node ended once, in the middle."""
    program, sent = PROGRAMS[name], EVENTS if name == "events" else []
    first = live(program, events=sent)
    middle = first.marks[len(first.marks) // 2]
    journal = first.journal[: middle.entries]
    end = live(program, journal=journal, events=sent, events_sent=middle.events, lost="node")
    return {"program": name, "journal": [_row(entry) for entry in end.entries]}


def _row(entry: Any) -> dict[str, str]:
    error = getattr(entry, "error", None)
    if error is not None:  # a traceback names folders of the machine that records
        entry = msgspec.structs.replace(entry, error=msgspec.structs.replace(error, stack=""))
    return {"entry": type(entry).__name__, "bytes": e.encode(entry).hex()}


def main() -> None:
    for name in PROGRAMS:
        path = JOURNALS / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(record(name), indent=1) + "\n")
            sys.stdout.write(f"{path.name} recorded\n")


if __name__ == "__main__":
    main()
