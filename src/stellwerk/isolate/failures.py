"""Exceptions as values: into ``ErrorValue`` where they leave a step, a run or a handler, and back.

A step's error is raised into ``run()`` from its recorded value on the first pass as on every replay, so a program that
catches ``PaymentDeclined`` takes the same path both times. The class is found again by where it was defined, if that
module is loaded; otherwise by Cloudflare's names; otherwise it is a ``StepError`` that carries name and message.
"""

from __future__ import annotations

import builtins
import sys
import traceback
from typing import Any

from workers.workflows import NonRetryableError

from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.wire import values

STACK_CHARS_MAX = 8_000
MESSAGE_CHARS_MAX = 4_000
ARGS_BYTES_MAX = 64_000  # what makes the exception again where it is caught; a larger one keeps its text only


class WorkflowFatalError(Exception):
    """The workflow broke a rule of the platform; texts are Cloudflare's."""


class WorkflowTimeoutError(Exception):
    """A step's attempt, or a wait for an event, took longer than its time-out."""


class WorkflowInternalError(Exception):
    """An attempt ended for a reason outside of the program."""


class StepError(Exception):
    """An error whose class is not known here; ``name`` is what it was called."""

    def __init__(self, message: str, name: str = "Error") -> None:
        super().__init__(message)
        self.name = name


_PLATFORM: dict[str, type[Exception]] = {
    cls.__name__: cls for cls in (WorkflowFatalError, WorkflowTimeoutError, WorkflowInternalError, NonRetryableError)
}


def to_error_value(error: BaseException, *, hide_frames_of: str = "stellwerk") -> ErrorValue:
    """What is kept of an exception: name, message, the user's part of the traceback, and how to raise it again."""
    cls = type(error)
    try:
        text = str(error)
    except Exception as broken:  # a user's __str__ may do anything
        text = f"<no text: {type(broken).__name__} in {cls.__name__}.__str__>"
    try:
        args = values.encode(list(error.args), size_max=ARGS_BYTES_MAX)
    except Exception:
        args = b""
    name, module = cls.__name__, "" if cls.__module__ == "builtins" else f"{cls.__module__}:{cls.__qualname__}"
    if isinstance(error, StepError):  # passed on: it still stands for a class that is not known here
        name, module = error.name, ""
    return ErrorValue(
        name=name,
        message=sendable(text[:MESSAGE_CHARS_MAX]),
        stack=sendable(user_traceback(error)),
        module=module,
        args=args,
    )


def sendable(text: str) -> str:
    """Text without halves of characters (lone surrogates), which no message can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of the platform at its top, at most ``STACK_CHARS_MAX`` characters."""
    frames = traceback.TracebackException.from_exception(error)
    platform = f"{__file__.rsplit('/', 2)[0]}/"
    first = next((n for n, frame in enumerate(frames.stack) if not frame.filename.startswith(platform)), None)
    if first is None:  # the platform's own refusal, or a syntax error, which has no frame of the user's
        first = len(frames.stack)
    frames.stack = traceback.StackSummary.from_list(list(frames.stack)[first:])
    text = "".join(frames.format())
    return text if len(text) <= STACK_CHARS_MAX else text[:200] + "\n...\n" + text[-(STACK_CHARS_MAX - 205) :]


def from_error_value(value: ErrorValue) -> Exception:
    """The exception that a value stands for, of its own class where that is loaded."""
    cls = _find_class(value)
    if cls is None:
        return StepError(value.message, value.name)
    args = tuple(values.decode(value.args)) if value.args else (value.message,)
    for build in (_built_bare, _built_anew):
        try:
            error = build(cls, args)
            if str(error)[:MESSAGE_CHARS_MAX] == value.message:
                return error
        except Exception:
            continue
    try:
        error = _built_bare(cls, args)
        str(error)  # of another text, as one that tells the time has; the class is what programs look at
    except Exception:
        return StepError(value.message, value.name)
    return error


def _built_bare(cls: type[Exception], args: tuple[Any, ...]) -> Exception:
    """Without the class's ``__init__``, which often takes something else than what ends up in ``args``."""
    error: Exception = cls.__new__(cls, *args)
    error.args = args
    return error


def _built_anew(cls: type[Exception], args: tuple[Any, ...]) -> Exception:
    """As pickle does it: for classes that make their text of what ``__init__`` has kept."""
    return cls(*args)


def _find_class(value: ErrorValue) -> type[Exception] | None:
    if value.name in _PLATFORM and (not value.module or value.module.endswith(f":{value.name}")):
        return _PLATFORM[value.name]
    if not value.module:
        found = getattr(builtins, value.name, None)
    else:
        module, _, qualname = value.module.partition(":")
        found = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def is_non_retryable(error: BaseException) -> bool:
    """As Cloudflare tells it: by the name, which a subclass inherits, or by a message that begins with it."""
    if isinstance(error, NonRetryableError) or type(error).__name__ == "NonRetryableError":
        return True
    try:
        return str(error).startswith("NonRetryableError")
    except Exception:
        return False
