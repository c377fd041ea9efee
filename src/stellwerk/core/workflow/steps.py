"""Steps: their names and keys, their configuration, and when a failed attempt is tried again.

Rules and texts are those of Cloudflare's engine (workers-sdk, ``workflows-shared``, read August 2026).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from stellwerk.core import limits
from stellwerk.core.times import parse_duration_ms

Backoff = Literal["constant", "linear", "exponential"]
DYNAMIC_DELAY = "[dynamic]"  # how a delay function stands in the stored configuration
UNLIMITED = -1  # ``retries.limit`` of Infinity
_UNLIMITED_FROM = 1 << 53  # a limit that large is none, and has no place in an entry
CONFIG_HELP = "https://developers.cloudflare.com/workflows/build/sleeping-and-retrying/"


class StepConfig(msgspec.Struct, frozen=True, array_like=True):
    """A resolved configuration. Stored at a step's first entry, and then it wins over later changes in the code."""

    retries: int = limits.STEP_RETRIES
    delay: int | str = limits.STEP_RETRY_DELAY_MS  # as the user wrote it: milliseconds, a duration, or "[dynamic]"
    backoff: Backoff = "exponential"
    timeout: int | str = "10 minutes"
    sensitive: bool = False

    @property
    def timeout_ms(self) -> int:
        return parse_duration_ms(self.timeout)

    @property
    def delay_ms(self) -> int:
        """The base delay; for a dynamic one the default, which is what counts when the function could not answer."""
        return limits.STEP_RETRY_DELAY_MS if self.delay == DYNAMIC_DELAY else parse_duration_ms(self.delay)

    def public(self) -> dict[str, Any]:
        """As ``ctx["config"]`` shows it to the program: no ``delay`` when that is a function."""
        retries: dict[str, Any] = {"limit": math.inf if self.retries == UNLIMITED else self.retries}
        if self.delay != DYNAMIC_DELAY:
            retries["delay"] = self.delay
        retries["backoff"] = self.backoff
        shown: dict[str, Any] = {"retries": retries, "timeout": self.timeout}
        if self.sensitive:
            shown["sensitive"] = "output"
        return shown


DEFAULT_CONFIG = StepConfig()


class InvalidStepConfigError(ValueError):
    """The configuration given to ``step.do`` is not one; the text is Cloudflare's."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Step config for "{name}" is in a invalid format. See {CONFIG_HELP}')


def step_key(kind: str, name: str, count: int) -> str:
    """The identity of a step within a run. ``count`` is 1-based, in the order of calls."""
    return f"{kind}:{name}-{count}"


def parse_config(name: str, given: object) -> StepConfig:
    """The defaults with what the user gave laid over them. Raises ``InvalidStepConfigError``.

    ``retries`` needs both ``limit`` and ``delay`` when it is given; unknown keys are refused; a callable delay is kept
    as ``"[dynamic]"`` here, the function itself stays with the caller.
    """
    if given is None:
        return DEFAULT_CONFIG
    if not isinstance(given, dict) or set(given) - {"retries", "timeout", "sensitive"}:
        raise InvalidStepConfigError(name)
    try:
        retries, delay, backoff = _parse_retries(given.get("retries"))
        timeout = given.get("timeout", DEFAULT_CONFIG.timeout)
        if parse_duration_ms(timeout) <= 0:
            raise ValueError("a time-out of 0")
        sensitive = given.get("sensitive")
        if sensitive not in (None, "output"):
            raise ValueError("sensitive")
    except (ValueError, TypeError) as error:
        raise InvalidStepConfigError(name) from error
    return StepConfig(
        retries=retries,
        delay=delay,
        backoff=backoff,
        timeout=timeout if isinstance(timeout, str) else parse_duration_ms(timeout),
        sensitive=sensitive == "output",
    )


def _parse_retries(given: object) -> tuple[int, int | str, Backoff]:
    if given is None:
        return DEFAULT_CONFIG.retries, DEFAULT_CONFIG.delay, DEFAULT_CONFIG.backoff
    if (
        not isinstance(given, dict)
        or set(given) - {"limit", "delay", "backoff"}
        or not {"limit", "delay"} <= set(given)
    ):
        raise ValueError("retries")
    limit, delay, backoff = given["limit"], given["delay"], given.get("backoff", DEFAULT_CONFIG.backoff)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
        raise ValueError("retries.limit")
    if backoff not in ("constant", "linear", "exponential"):
        raise ValueError("retries.backoff")
    if callable(delay):
        delay = DYNAMIC_DELAY
    else:
        delay = delay if isinstance(delay, str) and parse_duration_ms(delay) >= 0 else parse_duration_ms(delay)
    return UNLIMITED if limit >= _UNLIMITED_FROM else int(limit), delay, backoff


def retry_delay_ms(config: StepConfig, failed_attempts: int, base_ms: int | None = None) -> int:
    """How long to wait after the ``failed_attempts``-th failure. ``base_ms`` is what a delay function answered.

    constant: d; linear: d * n; exponential: d * 2^(n-1). A function's answer is taken as it is. At most 365 days.
    """
    if base_ms is not None:
        return min(base_ms, limits.SLEEP_MS_MAX)
    base = config.delay_ms
    if config.backoff == "linear":
        base *= failed_attempts
    elif config.backoff == "exponential":
        base *= 1 << min(failed_attempts - 1, 62)
    return min(base, limits.SLEEP_MS_MAX)


def may_retry(config: StepConfig, failed_attempts: int) -> bool:
    """Whether another attempt follows the ``failed_attempts``-th failure: attempts = retries + 1."""
    return config.retries == UNLIMITED or failed_attempts <= config.retries


def step_limit_text(steps_max: int) -> str:
    return f"The limit of {steps_max} steps has been reached. This limit can be changed in your worker configuration."
