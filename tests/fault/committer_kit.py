"""What the writing process consists of, in this one, on a real file."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.store.kit import ACCOUNT, NOW, WORKFLOW

from stellwerk.store.base import InstanceRow, JournalRow
from stellwerk.store.sqlite import messages
from stellwerk.store.sqlite.committer import Committer
from stellwerk.store.sqlite.connection import open_database
from stellwerk.store.sqlite.workflow import load_run


class CommitterKit:
    """A committer on a file of its own, as the writing process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        opened = open_database(path, owner="node-1", now_ms=NOW)
        opened.writer.close()
        self.reader = opened.reader
        self.epoch = opened.epoch
        self.committer = Committer(path, epoch=opened.epoch)

    def told(self, *writes: messages.Write) -> list[str]:
        """What each owner would be told: "", or the code of the error."""
        outcome = self.committer.commit(list(writes))
        failed = outcome.failed
        alone = outcome.failures
        return ["" if (error := failed or alone.get(place)) is None else error.code for place in range(outcome.count)]

    def journal(self, instance_id: str = "order-1") -> list[bytes]:
        run = load_run(self.reader, ACCOUNT, WORKFLOW, instance_id)
        return [] if run is None else run.journal

    def close(self) -> None:
        self.reader.close()
        self.committer.close()


def a_record(*entries: JournalRow, create: InstanceRow | None = None) -> messages.Record:
    return messages.Record(list(entries), create, None, [])
