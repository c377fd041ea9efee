"""Messages between the node and its zygote: one datagram each, over a SOCK_SEQPACKET pair that carries descriptors.

The node asks (``Fork``, with the isolate's end of the channel and the write end of its output pipe), the zygote answers
(``Forked``, with a pidfd, or ``ForkRefused``) and tells later how the process ended (``Exited``). ``Up`` comes first.
"""

from __future__ import annotations

import msgspec

MESSAGE_BYTES_MAX = 4096  # one datagram; names and paths, never anything of a user's size
ENTRY = "stellwerk.isolate.isolate:run"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What the zygote is told at its birth, as JSON in its arguments. Nothing secret: anybody may list processes."""

    sdk: str  # first on sys.path, of the zygote as of every isolate
    paths: list[str]  # the platform's own code: on the zygote's sys.path, and not on that of users' code
    preload: list[str]  # modules that every isolate finds imported
    alive: str  # file that each isolate holds a shared lock on for as long as it lives


class Up(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The zygote has imported everything and takes orders."""

    pid: int


class Fork(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Make an isolate. ``number`` is the node's name for it; ``entry`` names what runs in it, ``module:function``,
    called with the channel's socket, giving a coroutine."""

    number: int
    worker: str
    entry: str = ENTRY
    address_space_bytes: int = 0  # RLIMIT_AS; 0: none


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=3):
    number: int
    pid: int


class ForkRefused(msgspec.Struct, frozen=True, array_like=True, tag=4):
    number: int
    reason: str


class Exited(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The isolate is gone and reaped. Exactly one of the two is set."""

    number: int
    code: int | None
    signal: int | None


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Up | Fork | Forked | ForkRefused | Exited).decode
encode_launch = msgspec.json.Encoder().encode
decode_launch = msgspec.json.Decoder(Launch).decode
