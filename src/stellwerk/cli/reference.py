"""``docs/cli.md``, rendered from the table of commands: ``python -m stellwerk.cli.reference > docs/cli.md``.

A house test renders it again and compares.
"""

from __future__ import annotations

import inspect
import sys

from cyclopts import App

from stellwerk.cli.exits import MEANINGS
from stellwerk.cli.main import COMMANDS, Command, build_app
from stellwerk.cli.place import TOKEN_VARIABLE, URL_VARIABLE

_HEAD = f"""\
# The command line

Rendered from the table of commands by `python -m stellwerk.cli.reference`; do not edit it by hand.

Results go to standard output, warnings and errors to standard error. In a terminal a result is a table; elsewhere it is
plain lines, separated by tabs, the first one naming the columns. `--json` prints one JSON document instead, and errors
as `{{"error": {{"code", "message", "cure", "exit"}}}}`.

## Which node

A command takes the address and the token of the node from {URL_VARIABLE} and {TOKEN_VARIABLE}, else from the state
folder named by `--state`, else from the nearest `.stellwerk/state` in the working directory or above it. The node
writes `node.json` (where it listens) and `token` (mode 0600) there.
"""


def render_reference() -> str:
    """The whole page."""
    app = build_app()
    commands = [_render(command, _leaf(app, command)) for command in COMMANDS]
    return "\n".join([_HEAD, _exit_codes(), "## Commands\n", *commands])


def _exit_codes() -> str:
    rows = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    node = "`dev` and `serve` become the node; it exits with 0 after a signal to stop, else with 1."
    return f"## Exit codes\n\n| code | meaning |\n|---|---|\n{rows}\n{node}\n"


def _leaf(app: App, command: Command) -> App:
    for word in command.words:
        app = app[word]
    return app


def _render(command: Command, app: App) -> str:
    text = inspect.getdoc(command.run) or ""
    arguments = app.assemble_argument_collection()
    positional: list[str] = []
    options: list[str] = []
    for argument in arguments:
        if not argument.parse or not argument.show:
            continue
        names = [name for name in argument.names if name.startswith("-")]
        target = options if names else positional
        shown = f"`{', '.join(names)}`" if names else f"`{argument.name}`"
        default = _default(argument.field_info.default, required=argument.required)
        target.append(f"| {shown} | {default} | {argument.parameter.help or ''} |\n")
    table = "".join(positional + options)
    head = f"### stellwerk {' '.join(command.words)}\n\n{text}\n\n```\n{command.example}\n```\n"
    return f"{head}\n| argument | default | |\n|---|---|---|\n{table}" if table else head


def _default(value: object, *, required: bool) -> str:
    if required:
        return "required"
    if value is None or value is inspect.Parameter.empty or value == ():
        return ""
    return f"`{'no' if value is False else value}`"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
