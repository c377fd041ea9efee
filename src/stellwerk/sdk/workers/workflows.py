"""What workflow programs import besides the base class."""

from __future__ import annotations

__all__ = ["NonRetryableError"]


class NonRetryableError(Exception):
    """Raised in a step: the step fails at once, whatever its retries."""
