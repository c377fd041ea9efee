"""Entry of the process that writes: ``python -I -S writer_process.py <socket's fd> <database> <epoch> <paths>``.

Why a process. A thread of the node has to win the interpreter's lock back for every statement, from an event loop that
seldom idles: under load a commit took 5 ms, and a core stood idle. Here nothing competes with the loop, nor it with us.

It takes all that waits, writes it as one group, answers, and so on. While a commit is on its way to the disk the next
group gathers by itself: the busier the node, the larger the groups, and no timer is involved. It ends when the other
end of its socket closes: after its node has closed the store, or has died. Whatever it had read by then it still
commits; nobody is told, and a new node waits on ``alive`` until this process is gone.

Started with ``-I -S``: no site-packages, no PYTHON* variables, and no import of ours before ``sys.path`` is set.
"""

import json
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stellwerk.store.sqlite.committer import Committer
    from stellwerk.store.sqlite.messages import Write

READ_BYTES: Final = 1024 * 1024  # of one read; the kernel's buffer between the two holds less


def serve(channel: socket.socket, committer: "Committer") -> None:
    """Until the node closes its end."""
    from stellwerk.core import limits
    from stellwerk.store.sqlite import messages
    from stellwerk.store.sqlite.committer import next_group

    frames, backlog = messages.FrameReader(), deque["Write"]()
    more = True
    while more or backlog:
        while more and len(backlog) < limits.GROUP_ROWS_MAX:
            try:
                data = channel.recv(READ_BYTES, socket.MSG_DONTWAIT if backlog else 0)
            except BlockingIOError:
                break
            more = bool(data)
            for content in frames.feed(data):
                backlog.extend(messages.decode_writes(content))
        if backlog:
            outcome = committer.commit(next_group(backlog))
            try:
                channel.sendall(messages.frame(messages.encode(outcome)))
            except BrokenPipeError:  # the node has gone: nobody is told, and nothing more may be written for it
                return


def main(arguments: list[str]) -> int:
    if len(arguments) != 4:
        print("This is started by the node: <fd> <database> <epoch> <paths>.", file=sys.stderr)
        return 64
    descriptor, database, epoch, paths = arguments
    sys.path[:0] = json.loads(paths)
    from stellwerk.store.sqlite.committer import Committer

    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the node, which then closes the store
        signal.signal(number, signal.SIG_IGN)
    committer = Committer(Path(database), epoch=int(epoch))
    committer.open()
    with socket.socket(fileno=int(descriptor)) as channel:
        serve(channel, committer)
        committer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
