"""The yardstick for durable steps: the least that a step can cost on this machine with SQLite.

One process asks, the other writes: msgpack frames over a Unix socket, one commit for whatever waits (WAL,
synchronous=FULL), an answer when it is on disk. No workflow, no journal, no isolation, no Python of anybody else.

    python bench/ceiling.py IN_FLIGHT SECONDS
"""

import asyncio
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import time

import apsw
import msgspec
import uvloop

STEPS = 10
GROUP_MAX = 2_000
encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class Peer(asyncio.Protocol):
    """One end of the socket; what is sent in one turn of the loop goes out in one write."""

    def __init__(self, on_message):
        self.on_message, self.kept, self.out = on_message, bytearray(), []

    def connection_made(self, transport):
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def data_received(self, data):
        self.kept += data
        start, size = 0, len(self.kept)
        while size - start >= 4:
            length = int.from_bytes(self.kept[start : start + 4], "little")
            if size - start - 4 < length:
                break
            self.on_message(self, decode(bytes(self.kept[start + 4 : start + 4 + length])))
            start += 4 + length
        del self.kept[:start]

    def send(self, message):
        if not self.out:
            self.loop.call_soon(self.flush)
        payload = encode(message)
        self.out.append(struct.pack("<I", len(payload)) + payload)

    def flush(self):
        self.transport.write(b"".join(self.out))
        self.out.clear()


async def keep(folder: str) -> None:
    """The writing process."""
    loop, waiting = asyncio.get_running_loop(), queue.SimpleQueue()

    def answer(group):
        numbers = {}
        for peer, row in group:
            numbers.setdefault(peer, []).append(row[0])
        for peer, done in numbers.items():
            peer.send(done)

    def write():
        db = apsw.Connection(f"{folder}/db")
        for pragma in ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 1000"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE step (run TEXT, name TEXT, output BLOB, PRIMARY KEY (run, name)) WITHOUT ROWID")
        while True:
            group = [waiting.get()]
            while len(group) < GROUP_MAX and not waiting.empty():
                group.append(waiting.get_nowait())
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO step VALUES (?, ?, ?)", [row[1:] for _, row in group])
            db.execute("COMMIT")
            loop.call_soon_threadsafe(answer, group)

    threading.Thread(target=write, daemon=True).start()
    await loop.create_unix_server(lambda: Peer(lambda peer, row: waiting.put((peer, row))), f"{folder}/socket")
    print("ready", flush=True)
    await asyncio.Event().wait()


async def ask(folder: str, in_flight: int, seconds: float) -> float:
    """The asking process; steps per second."""
    loop, futures = asyncio.get_running_loop(), {}

    def answered(_, numbers):
        for number in numbers:
            futures.pop(number).set_result(None)

    _, peer = await loop.create_unix_connection(lambda: Peer(answered), f"{folder}/socket")
    done = started = number = 0
    begin = time.monotonic()

    async def run():
        nonlocal done, started, number
        while time.monotonic() - begin < seconds:
            started += 1
            name = f"run-{started}"
            for step in range(STEPS):
                number += 1
                future = futures[number] = loop.create_future()
                peer.send((number, name, f"step {step}-1", encode({"i": step})))
                await future
            done += STEPS

    await asyncio.gather(*(run() for _ in range(in_flight)))
    return done / (time.monotonic() - begin)


def measure(in_flight: int, seconds: float) -> float:
    """Steps per second with ``in_flight`` runs of ten steps at once."""
    with tempfile.TemporaryDirectory() as folder:
        host = subprocess.Popen([sys.executable, __file__, "keep", folder], stdout=subprocess.PIPE)
        try:
            assert host.stdout is not None
            host.stdout.readline()
            return uvloop.run(ask(folder, in_flight, seconds))
        finally:
            host.kill()
            host.wait()
            host.stdout.close()


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        uvloop.run(keep(sys.argv[2]))
    else:
        print(f"{measure(int(sys.argv[1]), float(sys.argv[2])):.0f} steps/s with {sys.argv[1]} in flight")
