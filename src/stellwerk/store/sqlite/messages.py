"""What passes between a node and the process that writes for it: groups of writes one way, outcomes the other way.

A frame is four bytes of length (little endian) and msgpack. Both ends are of one release and one machine, since the
node starts the process itself; so nothing here is versioned. Rows travel as they are bound to statements: what they
hold is looked at by SQLite alone, which refuses a row of wrong types without harming its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from stellwerk.core.errors import InstanceExistsError, StellwerkError, StorageError
from stellwerk.store.base import DeploymentRow, InstanceRow, VersionRow

HEAD_BYTES: Final = 4


class Record(msgspec.Struct, array_like=True, tag=1):
    """The writes of one decision, as ``store/base.py: Decision`` has them."""

    journal: list[Any]
    create: InstanceRow | None
    update: Sequence[Any] | None
    blobs: list[Any]


class AddVersion(msgspec.Struct, array_like=True, tag=2):
    """Answered with the stored version."""

    row: VersionRow


class AddDeployment(msgspec.Struct, array_like=True, tag=3):
    row: DeploymentRow


class RemoveWorker(msgspec.Struct, array_like=True, tag=4):
    """Answered with whether anything was deployed."""

    account_id: str
    worker: str


class Unsendable(msgspec.Struct, array_like=True, tag=5):
    """In the place of a decision that msgpack cannot hold: it fails alone, and what follows it in its journal too."""

    reason: str


Command = AddVersion | AddDeployment | RemoveWorker
Write = Record | Command | Unsendable


class Failure(msgspec.Struct, array_like=True):
    """An error that crosses the channel. ``code`` finds its class again."""

    code: str
    message: str
    cure: str = ""
    retryable: bool = False


class Outcome(msgspec.Struct, array_like=True):
    """What became of the next ``count`` writes, in the order in which they were sent."""

    count: int
    failed: Failure | None = None  # why nothing of it is acknowledged
    failures: dict[int, Failure] = {}  # place -> why that one alone is not on disk
    results: dict[int, VersionRow | bool | None] = {}  # place -> what a command answers
    commit_ms: float = 0.0


class FencedError(StorageError):
    """Another node holds the file now. Nothing that this one writes will be kept."""

    code = "store.fenced"
    retryable = False


def failure(error: StellwerkError) -> Failure:
    text = error.instance_id if isinstance(error, InstanceExistsError) else error.message
    return Failure(error.code, text, error.cure, error.retryable)


def exception(failure: Failure) -> StellwerkError:
    """A fresh exception each time: every owner that is told raises its own."""
    if failure.code == InstanceExistsError.code:
        return InstanceExistsError(failure.message)
    error = (FencedError if failure.code == FencedError.code else StorageError)(failure.message, cure=failure.cure)
    error.retryable = failure.retryable
    return error


encode = msgspec.msgpack.Encoder().encode
decode_writes = msgspec.msgpack.Decoder(list[Write]).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(HEAD_BYTES, "little") + payload


def encode_writes(writes: Sequence[Write]) -> bytes:
    """A frame. A write that cannot be encoded (half a character, a number beyond 64 bits) does not take the others with
    it."""
    try:
        return frame(encode(writes))
    except (TypeError, ValueError, OverflowError):
        return frame(encode([_encodable(write) for write in writes]))


def _encodable(write: Write) -> Write:
    try:
        encode(write)
    except (TypeError, ValueError, OverflowError) as error:
        return Unsendable(f"{type(error).__name__}: {error}")
    return write


class FrameReader:
    """Splits a stream into frames; what is torn is kept until the rest has come."""

    __slots__ = ("_kept", "_wanted")

    def __init__(self) -> None:
        self._kept = bytearray()
        self._wanted = HEAD_BYTES

    def feed(self, data: bytes) -> Iterator[bytes]:
        kept = self._kept
        kept += data
        if len(kept) < self._wanted:
            return
        start, end = 0, len(kept)
        self._wanted = HEAD_BYTES
        while end - start >= HEAD_BYTES:
            size = HEAD_BYTES + int.from_bytes(kept[start : start + HEAD_BYTES], "little")
            if end - start < size:
                self._wanted = size
                break
            yield bytes(kept[start + HEAD_BYTES : start + size])
            start += size
        del kept[:start]
