"""Calls under way between the node and isolates, and the relay that makes one Worker's call another's.

Calls that the node starts have even numbers, those of an isolate odd ones. A service binding is a relay: a call of
isolate A becomes a call of the node to isolate B, answers and bodies are passed on as they come, credit and all, so a
stream between two Workers is never held here.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from stellwerk.core.errors import IsolateLostError, StellwerkError, WorkerLoopError
from stellwerk.core.workflow.entries import ErrorValue
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.stubs import Given, Stubs
from stellwerk.wire import isolate as messages


class NodeCall(Protocol):
    """The caller's side of a call that the node has made to an isolate."""

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None: ...

    def failed(self, message: messages.CallFailed) -> None: ...

    def body(self, chunk: bytes) -> None: ...

    def body_ended(self, error: str) -> None: ...

    def credit(self, size: int) -> None: ...

    def lost(self, cause: str) -> None:
        """The isolate has ended."""


class Calls:
    """Calls under way between the node and one isolate."""

    __slots__ = ("next_number", "outgoing", "relays")

    def __init__(self) -> None:
        self.next_number = 2
        self.outgoing: dict[int, NodeCall] = {}  # the node's, by even number
        self.relays: dict[int, Relay] = {}  # the isolate's, by odd number


class Relay:
    """A call of one isolate that another one answers."""

    __slots__ = ("_callee_call", "_caller", "_caller_call", "_early", "_relays", "_stubs", "callee", "gone", "taken")

    def __init__(self, caller: Isolate, caller_call: int, relays: dict[int, Relay], stubs: Stubs) -> None:
        self._caller, self._caller_call, self._relays, self._stubs = caller, caller_call, relays, stubs
        self.taken: list[Given] | None = None  # functions on their way to the callee
        self.callee: Isolate | None = None
        self.gone = False  # the caller does not wait any more
        self._callee_call = 0
        self._early: list[bytes | messages.BodyEnd] = []  # pieces that came before the callee was up (bounded: credit)

    def refuse(self, error: StellwerkError) -> None:
        """The call ends before it reaches a callee, or its answer does not reach the caller."""
        name = type(error).__name__ if isinstance(error, WorkerLoopError | IsolateLostError) else "Error"
        self._caller.channel.send(messages.CallFailed(self._caller_call, ErrorValue(name, str(error)), error.code))
        self.let_go()
        self.end()

    def let_go(self) -> None:
        """What was on its way to the callee will not arrive."""
        if self.taken:
            taken, self.taken = self.taken, None
            self._stubs.released(taken)

    def connect(self, callee: Isolate, call: int) -> None:
        self.callee, self._callee_call = callee, call
        for piece in self._early:
            if isinstance(piece, bytes):
                callee.channel.send_body(call, piece)
            else:
                callee.channel.send(messages.BodyEnd(call, piece.error))
        self._early.clear()

    def end(self) -> None:
        self._relays.pop(self._caller_call, None)

    # -- from the callee (NodeCall) -----------------------------------------------------------------------------------

    def answered(self, message: messages.HttpResponse | messages.RpcResult) -> None:
        if isinstance(message, messages.RpcResult) and message.stubs:
            self._answered_with_stubs(message)
            return
        self._caller.channel.send(msgspec.structs.replace(message, call=self._caller_call, pending=False))
        if not (isinstance(message, messages.HttpResponse) and message.streaming):
            self.end()

    def _answered_with_stubs(self, message: messages.RpcResult) -> None:
        assert self.callee is not None
        try:
            taken = self._stubs.taken(self.callee, message.stubs)
            if self.gone:
                self._stubs.released(taken)
                return
            numbers = self._stubs.granted(self._caller, taken)
        except StellwerkError as error:
            if not self.gone:
                self.refuse(error)
            return
        call = self._caller_call
        self._caller.channel.send(msgspec.structs.replace(message, call=call, pending=False, stubs=numbers))
        self.end()

    def failed(self, message: messages.CallFailed) -> None:
        self._caller.channel.send(msgspec.structs.replace(message, call=self._caller_call, pending=False))
        self.end()

    def body(self, chunk: bytes) -> None:
        self._caller.channel.send_body(self._caller_call, chunk)

    def body_ended(self, error: str) -> None:
        self._caller.channel.send(messages.BodyEnd(self._caller_call, error))
        self.end()

    def credit(self, size: int) -> None:
        self._caller.channel.send(messages.Credit(self._caller_call, size))

    def lost(self, cause: str) -> None:
        error = ErrorValue(IsolateLostError.__name__, f"The Worker that was called ended: {cause}")
        self._caller.channel.send(messages.CallFailed(self._caller_call, error, IsolateLostError.code))
        self._caller.channel.send(messages.BodyEnd(self._caller_call, cause))
        self.end()

    # -- from the caller ----------------------------------------------------------------------------------------------

    def caller_body(self, piece: bytes | messages.BodyEnd) -> None:
        if self.callee is None:
            self._early.append(piece)
        elif isinstance(piece, bytes):
            self.callee.channel.send_body(self._callee_call, piece)
        else:
            self.callee.channel.send(messages.BodyEnd(self._callee_call, piece.error))

    def caller_credit(self, size: int) -> None:
        if self.callee is not None:
            self.callee.channel.send(messages.Credit(self._callee_call, size))

    def caller_gone(self) -> None:
        self.gone = True
        self.end()
        if self.callee is not None:
            self.callee.channel.send(messages.CallCancelled(self._callee_call))
