"""The life of an isolate, as the node sees it: one table. What is not in it must not happen.

```
starting ──booted──▶ ready ──drain──▶ draining ──exited──▶ stopped
    └────kill, refused──▶ killing ──exited, died──────────────▶ ┘
                 (no order of ours) ──severed, exited, died──▶ crashed
```

The two ends differ in what follows. *Stopped*: we wanted it. *Crashed*: something in it broke, and whatever it was
doing must be looked at with suspicion. ``severed`` stands between: its channel broke, its process is not yet gone.
"""

from __future__ import annotations

from enum import StrEnum

from stellwerk.core.errors import IllegalTransitionError


class Status(StrEnum):
    STARTING = "starting"  # forked, or about to be; has not said Ready
    READY = "ready"  # takes work
    DRAINING = "draining"  # was told to finish what it has; takes no more
    KILLING = "killing"  # SIGKILL is on its way
    SEVERED = "severed"  # its channel ended unasked: as good as crashed
    STOPPED = "stopped"
    CRASHED = "crashed"


class Input(StrEnum):
    BOOTED = "booted"  # it said Ready
    REFUSED = "refused"  # it said BootFailed, or a Ready that we do not understand
    DRAIN = "drain"  # we let it finish
    KILL = "kill"  # we end it now
    SEVERED = "severed"  # its channel ended
    EXITED = "exited"  # the process is reaped, exit code 0
    DIED = "died"  # the process is reaped: another exit code, or a signal


ENDED = frozenset({Status.STOPPED, Status.CRASHED})

MOVES: dict[Status, dict[Input, Status]] = {
    Status.STARTING: {
        Input.BOOTED: Status.READY,
        Input.REFUSED: Status.KILLING,
        Input.DRAIN: Status.KILLING,  # it has nothing to finish
        Input.KILL: Status.KILLING,
        Input.SEVERED: Status.SEVERED,
        Input.EXITED: Status.CRASHED,
        Input.DIED: Status.CRASHED,
    },
    Status.READY: {
        Input.DRAIN: Status.DRAINING,
        Input.KILL: Status.KILLING,
        Input.SEVERED: Status.SEVERED,
        Input.EXITED: Status.CRASHED,  # nobody asked it to: user code called exit
        Input.DIED: Status.CRASHED,
    },
    Status.DRAINING: {
        Input.DRAIN: Status.DRAINING,
        Input.KILL: Status.KILLING,
        Input.SEVERED: Status.DRAINING,  # closing the channel is how it says that it has finished
        Input.EXITED: Status.STOPPED,
        Input.DIED: Status.CRASHED,
    },
    Status.KILLING: {
        Input.BOOTED: Status.KILLING,  # crossed our order on the way
        Input.REFUSED: Status.KILLING,
        Input.DRAIN: Status.KILLING,
        Input.KILL: Status.KILLING,
        Input.SEVERED: Status.KILLING,
        Input.EXITED: Status.STOPPED,
        Input.DIED: Status.STOPPED,
    },
    Status.SEVERED: {
        Input.DRAIN: Status.SEVERED,
        Input.KILL: Status.SEVERED,
        Input.EXITED: Status.CRASHED,
        Input.DIED: Status.CRASHED,
    },
    Status.STOPPED: {},
    Status.CRASHED: {},
}


class IsolateTransitionError(IllegalTransitionError):
    """An input that the table does not allow. The status is left as it was."""

    code = "isolate.illegal_transition"
    http_status = 500


def move(status: Status, incoming: Input) -> Status:
    """The next status. Raises ``IsolateTransitionError`` for what the table does not have."""
    try:
        return MOVES[status][incoming]
    except KeyError:
        raise IsolateTransitionError(
            f"an isolate that is {status} cannot take the input {incoming!s}.",
            cure="This is a fault of the platform; please report it with the node's log.",
        ) from None
