"""Where the node is, and with which token: from the environment, or from the state folder that the node writes.

The environment wins (``STELLWERK_API_URL``, ``STELLWERK_API_TOKEN``), then ``--state``, then the nearest
``.stellwerk/state`` from the working directory upwards. What the environment leaves open is taken from the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stellwerk.cli.exits import CommandError, Exit
from stellwerk.wire.api import NODE_FILE, STATE_FOLDER, TOKEN_FILE, NodeFile, decode_node_file

URL_VARIABLE = "STELLWERK_API_URL"
TOKEN_VARIABLE = "STELLWERK_API_TOKEN"
_PREFIX = "/client/v4"


@dataclass(slots=True, frozen=True, kw_only=True)
class Place:
    """A control plane: its base address without a slash at the end, and the token it wants."""

    url: str
    token: str


def find_place(state: Path | None, *, environment: Mapping[str, str], cwd: Path) -> Place:
    """Address and token. Raises ``CommandError`` (3: no node known, 4: no token) with what to do."""
    url = environment.get(URL_VARIABLE, "").rstrip("/").removesuffix(_PREFIX)
    token = environment.get(TOKEN_VARIABLE, "")
    if url and token:
        return Place(url=url, token=token)
    folder = find_state(state, cwd=cwd)
    if folder is None:
        if url:
            raise _no_token(f"{URL_VARIABLE} names a node, but no token is known.")
        raise CommandError(
            f"No node is known here: there is no {'/'.join(STATE_FOLDER)} in {cwd} or above it.",
            cure="Start one with `stellwerk dev`, go into its workspace, or name its state folder with --state.",
            exit_code=Exit.UNREACHABLE,
            code="cli.no_node",
        )
    return Place(url=url or read_node_file(folder).control_url, token=token or _read_token(folder))


def find_state(state: Path | None, *, cwd: Path) -> Path | None:
    """The state folder: the given one, else the nearest upwards."""
    if state is not None:
        return state
    for folder in (cwd, *cwd.parents):
        candidate = folder.joinpath(*STATE_FOLDER)
        if candidate.is_dir():
            return candidate
    return None


def read_node_file(folder: Path) -> NodeFile:
    """Where the node of this state folder listens. Raises ``CommandError`` (3) when none has said so."""
    path = folder / NODE_FILE
    try:
        return decode_node_file(path.read_bytes())
    except FileNotFoundError:
        raise CommandError(
            f"No node runs on the state folder {folder}.",
            cure="Start it: `stellwerk dev`, or `stellwerk serve --state DIR`.",
            exit_code=Exit.UNREACHABLE,
            code="cli.no_node",
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise CommandError(
            f"{path} cannot be read: {error}.",
            cure="Restart the node; it writes the file anew.",
            exit_code=Exit.UNREACHABLE,
            code="cli.no_node",
        ) from error


def _read_token(folder: Path) -> str:
    path = folder / TOKEN_FILE
    try:
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise _no_token(f"The token in {path} cannot be read: {error}.") from error
    if not token:
        raise _no_token(f"The token in {path} is empty.")
    return token


def _no_token(message: str) -> CommandError:
    return CommandError(
        message,
        cure=f"Run the command as the user who runs the node, or set {TOKEN_VARIABLE}.",
        exit_code=Exit.REFUSED,
        code="cli.no_token",
    )
