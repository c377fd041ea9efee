"""Options that several commands share, declared once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stellwerk.cli.client import Client
from stellwerk.cli.place import find_place
from stellwerk.cli.render import Output

StateOption = Annotated[
    Path | None,
    Parameter(help="State folder of the node; without it the nearest `.stellwerk/state` upwards."),
]
JsonOption = Annotated[bool, Parameter(help="Print JSON, for programs.", negative=())]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """How to find the node, and how to print."""

    state: StateOption = None
    json: JsonOption = False

    def connect(self) -> Client:
        """A client of the node. Raises ``CommandError`` when none is known."""
        return Client(find_place(self.state, environment=os.environ, cwd=Path.cwd()))

    def output(self) -> Output:
        return Output(as_json=self.json)


DEFAULT = Common()
