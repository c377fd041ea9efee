"""``node.json`` in the state folder: how the command line finds this node. Written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from stellwerk.wire.api import NODE_FILE, NodeFile, decode_node_file, encode_node_file


def announce(state: Path, node: NodeFile) -> None:
    """Says where the node listens. To be called when it does, so that a reader who finds the file can connect."""
    aside = state / f".{NODE_FILE}.{os.getpid()}"
    aside.write_bytes(encode_node_file(node) + b"\n")
    aside.replace(state / NODE_FILE)


def withdraw(state: Path, pid: int) -> None:
    """Takes the file away again, if it is still this node's own: a successor may have written its own already."""
    path = state / NODE_FILE
    with contextlib.suppress(OSError, msgspec.DecodeError):
        if decode_node_file(path.read_bytes()).pid == pid:
            path.unlink()
