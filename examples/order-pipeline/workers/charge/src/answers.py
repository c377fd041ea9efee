"""How a Worker of this pipeline answers: one shape for results, one for errors, and one place that makes errors.

    {"ok": true, "result": ...}
    {"ok": false, "error": {"code": "card_declined", "message": "...", "retryable": false}}

``code`` is for programs and never changes its meaning, ``message`` is for people, and ``retryable`` tells the caller
whether the same call may succeed later: it is what the workflow's retries go by.

Each Worker has its own copy of this file, because each is deployed on its own and must not break when another moves;
a test keeps the copies equal.
"""

import functools
import traceback


class Refusal(Exception):
    """Raise this wherever something cannot be done; ``answers`` turns it into the shape above."""

    def __init__(self, code, message, *, status=400, retryable=False):
        super().__init__(message)
        self.code, self.message, self.status, self.retryable = code, message, status, retryable

    def as_error(self):
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


def as_refusal(error):
    """Any exception as a refusal. What nobody foresaw is logged, reported as ``internal`` and may be tried again."""
    if isinstance(error, Refusal):
        return error
    traceback.print_exception(error)
    return Refusal("internal", f"{type(error).__name__}: {error}", status=500, retryable=True)


def answers(method):
    """Central error handler: put it on every method that other Workers call."""

    @functools.wraps(method)
    async def answering(*args):
        try:
            return {"ok": True, "result": await method(*args)}
        except Exception as error:
            return {"ok": False, "error": as_refusal(error).as_error()}

    return answering
