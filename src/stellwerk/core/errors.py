"""The one tree of errors: who is at fault, whether a repeat may help, and a code that stays the same for good.

Every error names three things: the culprit (``fault``), the cause (the message), and the cure (``cure``, a sentence
that tells what to do next). ``code`` is for programs, the rest is for people.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Who has to change something for this error to go away."""

    USER = "user"  # the program of a Worker, or its configuration
    CALLER = "caller"  # whoever sent this request
    PLATFORM = "platform"  # Stellwerk, or the machine below it


class StellwerkError(Exception):
    """Base of all errors raised on purpose.

    ``code`` is stable (``room.what``); ``cloudflare_code`` is the number that Cloudflare's API or error page shows for
    the same thing, where there is one; ``retryable`` says whether the same call may succeed later, unchanged.
    """

    code = "platform.internal"
    fault = Fault.PLATFORM
    retryable = False
    http_status = 500
    cloudflare_code: int | None = None

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message} {self.cure}" if self.cure else self.message


class ConfigError(StellwerkError):
    """A configuration file cannot be honoured. ``file``, ``line`` and ``key`` point at the place."""

    code = "config.invalid"
    fault = Fault.USER
    http_status = 400

    def __init__(self, message: str, *, file: str = "", line: int = 0, key: str = "", cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.file, self.line, self.key = file, line, key

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        parts = [part for part in (place, self.key, super().__str__()) if part]
        return ": ".join(parts)


class BundleError(StellwerkError):
    """A Worker's files cannot be taken as a version: no main module, too large, an unsafe path."""

    code = "bundle.invalid"
    fault = Fault.USER
    http_status = 400
    cloudflare_code = 10021


class DependencyError(StellwerkError):
    """A Worker's dependencies cannot be installed for its interpreter."""

    code = "bundle.dependencies"
    fault = Fault.USER
    http_status = 400
    cloudflare_code = 10021


class NotFoundError(StellwerkError):
    """Nothing of that name exists. Subclasses say what was looked for."""

    code = "not_found"
    fault = Fault.CALLER
    http_status = 404


class WorkerNotFoundError(NotFoundError):
    code = "worker.not_found"
    cloudflare_code = 10007


class WorkflowNotFoundError(NotFoundError):
    code = "workflow.not_found"
    cloudflare_code = 10200


class InstanceNotFoundError(NotFoundError):
    """``get`` on an unknown id. Cloudflare's text begins with ``(instance.not_found)``."""

    code = "instance.not_found"
    cloudflare_code = 10400

    def __init__(self, message: str = "(instance.not_found) Instance does not exist", *, cure: str = "") -> None:
        super().__init__(message, cure=cure)


class InstanceExistsError(StellwerkError):
    """``create`` with an id that this workflow has had before."""

    code = "instance.already_exists"
    fault = Fault.CALLER
    http_status = 409
    cloudflare_code = 10405

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f'(instance.already_exists) Instance with id "{instance_id}" already exists.',
            cure="Use another id, or get() the existing instance.",
        )
        self.instance_id = instance_id


class InvalidRequestError(StellwerkError):
    """A call whose arguments are refused: a bad id, a payload over its limit, an unknown field."""

    code = "request.invalid"
    fault = Fault.CALLER
    http_status = 400


class ConflictError(StellwerkError):
    """The call is well formed but the thing is in a state that does not allow it."""

    code = "state.conflict"
    fault = Fault.CALLER
    http_status = 409


class CapacityError(StellwerkError):
    """A named limit is reached; the same call may succeed later."""

    code = "capacity.exceeded"
    fault = Fault.PLATFORM
    retryable = True
    http_status = 429


class AuthError(StellwerkError):
    """The control plane was called without a valid token."""

    code = "auth.required"
    fault = Fault.CALLER
    http_status = 401
    cloudflare_code = 10000


class WorkerError(StellwerkError):
    """A Worker's program failed. Shown as error 1101 of Cloudflare's error pages."""

    code = "worker.exception"
    fault = Fault.USER
    http_status = 500
    cloudflare_code = 1101


class WorkerLimitError(StellwerkError):
    """A Worker used up one of its limits. Shown as error 1102."""

    code = "worker.exceeded_limit"
    fault = Fault.USER
    http_status = 503
    cloudflare_code = 1102


class WorkerLoopError(StellwerkError):
    """A request passed through more chained Workers than one request may. Shown as error 1019."""

    code = "worker.loop"
    fault = Fault.USER
    http_status = 500
    cloudflare_code = 1019


class IsolateLostError(StellwerkError):
    """The isolate ended while it worked on this call, for a reason that need not lie in this call."""

    code = "isolate.lost"
    fault = Fault.PLATFORM
    retryable = True
    http_status = 503
    cloudflare_code = 1101


class IsolateStartError(StellwerkError):
    """The isolate did not come up: the module failed to import, or took too long."""

    code = "isolate.start_failed"
    fault = Fault.USER
    http_status = 500
    cloudflare_code = 1101


class StorageError(StellwerkError):
    """The store refused or failed; nothing of the decision was kept. Never acknowledged."""

    code = "store.failed"
    fault = Fault.PLATFORM
    retryable = True
    http_status = 503


class StateFolderError(StellwerkError):
    """The state folder cannot be opened: held by another node, of a newer release, or not ours."""

    code = "state.unusable"
    fault = Fault.CALLER
    http_status = 500


class IllegalTransitionError(StellwerkError):
    """An input that the table does not allow in this status. The state is left as it was."""

    code = "workflow.illegal_transition"
    fault = Fault.PLATFORM
    http_status = 409
