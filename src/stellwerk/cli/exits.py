"""Exit codes: the part of the command line that scripts rely on. They never change their meaning."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5


MEANINGS: dict[Exit, str] = {
    Exit.OK: "It worked.",
    Exit.FAILED: "It failed: an error of a Worker, its configuration, the node, or a `doctor` check.",
    Exit.USAGE: "The command line is wrong: an unknown command or option, a missing or malformed argument.",
    Exit.UNREACHABLE: "No node was found, or it does not answer.",
    Exit.REFUSED: "The node refused: the token is missing or wrong, or the state of the thing does not allow the call.",
    Exit.NOT_FOUND: "The Worker, version, workflow or instance does not exist.",
}


class CommandError(Exception):
    """A command that ends without success: what happened, what to do about it, and with which code to exit.

    ``code`` is the stable code of the error, as the control plane or ``core/errors.py`` names it.
    """

    def __init__(
        self, message: str, *, cure: str = "", exit_code: Exit = Exit.FAILED, code: str = "cli.failed"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.exit_code = exit_code
        self.code = code


class UsageError(CommandError):
    """An argument cannot be used."""

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message, cure=cure, exit_code=Exit.USAGE, code="cli.usage")
