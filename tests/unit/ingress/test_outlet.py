"""What an outlet says it waits for; the deadline of a slow reader hangs on it. The rest is tested over real sockets."""

from __future__ import annotations

from typing import Any, cast

from stellwerk.node.ingress.outlet import Outlet


class Pipe:
    """A transport that takes nothing away."""

    def __init__(self) -> None:
        self.buffered = 0
        self.closing = False
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.buffered += len(data)
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.writes.append(b"<eof>")


def an_outlet(pipe: Pipe) -> Outlet:
    return Outlet(cast(Any, pipe), lambda callback: None)


def test_a_fast_reader_is_not_waited_for() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.send(b"hello")
    assert outlet.unsent_bytes is None


def test_what_a_slow_reader_takes_shows_as_progress() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.send(b"hello")
    outlet.write_paused = True
    assert outlet.unsent_bytes == 5
    pipe.buffered = 3
    assert outlet.unsent_bytes == 3


def test_a_closed_connection_waits_until_all_is_written() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.send(b"hello")
    outlet.close()
    assert outlet.unsent_bytes == 5


def test_a_lingering_connection_waits_for_the_reader_first_and_then_for_the_client_to_close() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.send(b"hello")
    outlet.linger()
    outlet.linger()
    assert pipe.writes == [b"hello", b"<eof>"]
    assert outlet.unsent_bytes == 5
    pipe.buffered = 0
    assert outlet.unsent_bytes is None and outlet.lingering


def test_what_is_held_leaves_in_one_write_and_in_order() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.hold(b"head ")
    outlet.send(b"a")
    outlet.send(b"b")
    assert pipe.writes == []
    outlet.flush()
    outlet.send(b"c")
    assert pipe.writes == [b"head ab", b"c"]


def test_after_the_loss_of_the_connection_everything_is_dropped() -> None:
    pipe = Pipe()
    outlet = an_outlet(pipe)
    outlet.hold(b"head")
    outlet.lost()
    outlet.send(b"a")
    outlet.hold(b"b")
    outlet.flush()
    outlet.close()
    assert pipe.writes == [] and outlet.unsent_bytes is None
