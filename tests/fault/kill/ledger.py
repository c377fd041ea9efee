"""The outside world: a process of its own that writes down every effect, is never killed, and knows nothing of us.

    python ledger.py FILE

Prints ``port N`` and serves until its standard input ends, so it dies with the test and by nothing else. It speaks
just enough HTTP/1.1 for a Worker's ``fetch``:

    POST /effects          one JSON object; appended to FILE as a line, with the time of its arrival, before the answer
    GET  /count            how many effects there are
    GET  /wait?count=N     answers when there are N (or after ten seconds): the test's signal, so that it never sleeps
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

WAIT_S_MAX = 10.0


class Ledger:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._count = 0
        self._more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive. A client that is killed in the middle of a request leaves no effect."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                method, target, _ = head.split(" ", 2)
                body = await reader.readexactly(_content_length(head))
                answer = json.dumps(await self._answer(method, target, body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, target: str, body: bytes) -> int:
        if method == "POST":
            self._append(json.loads(body))
        elif target.startswith("/wait"):
            await self._wait(int(parse_qs(urlsplit(target).query)["count"][0]))
        return self._count

    def _append(self, effect: dict[str, object]) -> None:
        self._file.write(json.dumps({**effect, "arrived": time.monotonic()}) + "\n")
        self._file.flush()
        self._count += 1
        self._more.set()

    async def _wait(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S_MAX
        while self._count < count and (left := deadline - time.monotonic()) > 0:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), left)
            except TimeoutError:
                return


def _content_length(head: str) -> int:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    return 0


async def main(path: Path) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)  # nothing is ever written there: readable means closed
    with path.open("a", encoding="utf-8") as file:
        server = await asyncio.start_server(Ledger(file).serve, "127.0.0.1", 0)
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await over.wait()
        server.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
