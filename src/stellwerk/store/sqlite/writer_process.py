"""Entry of the process that writes: ``python -I -S writer_process.py <socket's fd> <database> <epoch> <paths>``.

Why a process. A thread of the node has to win the interpreter's lock back for every statement, from an event loop that
seldom idles: under load a commit took 5 ms, and a core stood idle. Here nothing competes with the loop, nor it with us.

It takes all that waits, writes it as one group, answers, and so on. While a commit is on its way to the disk the next
group gathers by itself: the busier the node, the larger the groups, and no timer is involved. It ends when the other
end of its socket closes: after its node has closed the store, or has died. Whatever it had read by then it still
commits; nobody is told, and a new node waits on ``alive`` until this process is gone.

Started with ``-I -S``: no site-packages, no PYTHON* variables, and no import of ours before ``sys.path`` is set.
"""

import importlib
import os
import signal
import socket
import sys


def main(arguments: list[str]) -> int:
    if len(arguments) != 4:
        print("This is started by the node: <fd> <database> <epoch> <paths>.", file=sys.stderr)
        return 64
    descriptor, database, epoch, paths = arguments
    sys.path[:0] = paths.split(os.pathsep)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the node, which then closes the store
        signal.signal(number, signal.SIG_IGN)
    committer = importlib.import_module("stellwerk.store.sqlite.committer")
    with socket.socket(fileno=int(descriptor)) as channel:
        committer.serve(channel, database, epoch=int(epoch))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
