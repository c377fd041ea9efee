"""Functions over RPC: what another Worker may call, and what it holds of that."""

from __future__ import annotations

from workers._host import HeldStub
from workers._js import JsProxy


class RpcTarget:
    """Base of objects that stay where they are: another Worker gets a stub, and calls their public methods with it."""


class RpcStub(JsProxy):
    """A function or an ``RpcTarget`` of another Worker, as JavaScript has it."""

    def __init__(self, held: HeldStub) -> None:
        self._held = held

    def destroy(self) -> None:
        """Lets go of it before the invocation ends."""
        self._held.release()
