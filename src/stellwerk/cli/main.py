"""The table of commands, and the one place where a command's end becomes an exit code.

``COMMANDS`` is the only list: the parser, the help, ``docs/cli.md`` and the tests are all made from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError

from stellwerk.cli.commands import deploy, doctor, instances, node, workers, workflows
from stellwerk.cli.exits import CommandError, Exit, UsageError
from stellwerk.cli.render import print_error


@dataclass(slots=True, frozen=True, kw_only=True)
class Command:
    """One command: its words, what runs, and an example that a reader can copy."""

    words: tuple[str, ...]
    run: Callable[..., Any]
    example: str


GROUPS: dict[tuple[str, ...], str] = {
    ("workflows",): "Workflows, and starting runs of them.",
    ("workflows", "instances"): "Runs of a workflow.",
    ("versions",): "Versions of a Worker: immutable uploads.",
    ("deployments",): "Deployments of a Worker: which version serves.",
}

COMMANDS: tuple[Command, ...] = (
    Command(words=("dev",), run=node.dev, example="stellwerk dev ./pipeline --port 8787"),
    Command(words=("serve",), run=node.serve, example="stellwerk serve --state ./state"),
    Command(words=("deploy",), run=deploy.deploy, example="stellwerk deploy ./orders --message 'faster checks'"),
    Command(words=("workflows", "list"), run=workflows.list_workflows, example="stellwerk workflows list"),
    Command(
        words=("workflows", "describe"),
        run=workflows.describe_workflow,
        example="stellwerk workflows describe order-pipeline",
    ),
    Command(
        words=("workflows", "trigger"),
        run=workflows.trigger,
        example="""stellwerk workflows trigger order-pipeline '{"order": 7}' --id order-7""",
    ),
    Command(
        words=("workflows", "instances", "list"),
        run=instances.list_instances,
        example="stellwerk workflows instances list order-pipeline --status errored",
    ),
    Command(
        words=("workflows", "instances", "describe"),
        run=instances.describe_instance,
        example="stellwerk workflows instances describe order-pipeline latest",
    ),
    Command(
        words=("workflows", "instances", "terminate"),
        run=instances.terminate,
        example="stellwerk workflows instances terminate order-pipeline order-7",
    ),
    Command(
        words=("workflows", "instances", "resume"),
        run=instances.resume,
        example="stellwerk workflows instances resume order-pipeline order-7",
    ),
    Command(
        words=("workflows", "instances", "send-event"),
        run=instances.send_event,
        example="""stellwerk workflows instances send-event order-pipeline order-7 --type shipped --payload '{}'""",
    ),
    Command(words=("versions", "list"), run=workers.list_versions, example="stellwerk versions list orders"),
    Command(words=("deployments", "list"), run=workers.list_deployments, example="stellwerk deployments list orders"),
    Command(words=("doctor",), run=doctor.doctor, example="stellwerk doctor --json"),
)


def build_app() -> App:
    """The parser over ``COMMANDS``."""
    app = App(
        name="stellwerk",
        help="Run Cloudflare Python Workers and durable workflows on your own machines.",
        version=version("stellwerk"),
        help_format="markdown",
    )
    groups: dict[tuple[str, ...], App] = {(): app}
    for words, text in GROUPS.items():
        groups[words] = App(name=words[-1], help=text)
        groups[words[:-1]].command(groups[words])
    for command in COMMANDS:
        leaf = App(name=command.words[-1], help_epilogue=f"Example: `{command.example}`")
        leaf.default(command.run)
        groups[command.words[:-1]].command(leaf)
    return app


def run(arguments: Sequence[str]) -> Exit:
    """Runs one command line and says with which code to exit. Prints cause and cure of an error."""
    as_json = "--json" in arguments
    try:
        build_app()(list(arguments), exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        print_error(UsageError(str(error), cure=_usage_cure(arguments)), as_json=as_json)
        return Exit.USAGE
    except CommandError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except KeyboardInterrupt:
        return Exit.FAILED
    return Exit.OK


def _usage_cure(arguments: Sequence[str]) -> str:
    words = [word for word in arguments if not word.startswith("-")]
    known = [command.words for command in COMMANDS] + list(GROUPS)
    matching = [path for path in known if tuple(words[: len(path)]) == path]
    longest = max(matching, key=len, default=())
    return f"See `{' '.join(('stellwerk', *longest, '--help'))}`."


def main() -> None:
    """Entry point of the command ``stellwerk``."""
    sys.exit(run(sys.argv[1:]))
