"""Requests through the whole path: client, ingress, channel, isolate, user code, and back."""

from __future__ import annotations

import hashlib
import http.client
import json
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.integration.node.kit import DEADLINE_S, ANode, a_node, a_worker, until

MIB = 1024 * 1024
QUIET_S = 0.3  # a socket that takes nothing for so long, while the reader holds still, is held back
BUFFERS_MAX = 24 * MIB  # what kernel buffers of three hops may hold; a body that is not held back has 64 MiB

LAB = """
import asyncio
import hashlib
from http import HTTPMethod

from js import ReadableStream
from workers import Response, WorkerEntrypoint

opened = asyncio.Event()
alive = {"now": 0, "most": 0}
flow = {"taken": 0, "made": 0}


async def numbers():
    yield b"first "
    await opened.wait()
    yield b"last"


async def flood():
    for _ in range(1024):
        flow["made"] += 65536
        yield bytes(65536)


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 3)[3].partition("?")[0]
        return await getattr(self, name or "hello")(request)

    async def hello(self, request):
        return Response("hello")

    async def json(self, request):
        return Response.json({"got": await request.json()})

    async def about(self, request):
        return Response.json({
            "url": request.url, "method": request.method.value, "enum": isinstance(request.method, HTTPMethod),
            "headers": request.headers.items(), "cookies": request.headers.get_all("Set-Cookie"),
            "ip": request.headers.get("CF-Connecting-IP"), "body": await request.text(),
        })

    async def headers(self, request):
        return Response("x", status=201, status_text="Made Up", headers=[
            ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2, c"), ("X-Twice", "1"), ("X-Twice", "2"),
            ("X-Number", 7), ("Connection", "close"),
        ])

    async def hash(self, request):
        data = await request.bytes()
        return Response.json({"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    async def pieces(self, request):
        digest, count = hashlib.sha256(), 0
        async for chunk in request.body:
            digest.update(bytes(chunk))
            count += 1
        return Response.json({"pieces": count, "sha256": digest.hexdigest()})

    async def echo(self, request):
        return Response(request.body)

    async def stream(self, request):
        return Response(ReadableStream.from_(numbers()), headers={"content-type": "text/plain"})

    async def flood(self, request):
        return Response(ReadableStream.from_(flood()))

    async def drink(self, request):
        await opened.wait()
        async for chunk in request.body:
            flow["taken"] += len(bytes(chunk))
        return Response.json(flow)

    async def flow(self, request):
        return Response.json(flow)

    async def open(self, request):
        opened.set()
        return Response("opened")

    async def shut(self, request):
        opened.clear()
        flow.update(taken=0, made=0)
        return Response("shut")

    async def nothing(self, request):
        return Response(None, status=204)

    async def away(self, request):
        return Response.redirect("https://example.com/there", 303)

    async def binary(self, request):
        return Response(bytes(range(256)), headers={"content-type": "application/octet-stream"})

    async def together(self, request):
        alive["now"] += 1
        alive["most"] = max(alive["most"], alive["now"])
        while alive["most"] < 200:
            await asyncio.sleep(0.005)  # bounded by the time-out of its client
        alive["now"] -= 1
        return Response.json(alive)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("requests")
    a_worker(workspace, "lab", LAB, toml="default = true\n[limits]\nisolates_max = 1\n")
    a_worker(
        workspace,
        "routed",
        """
        from workers import Response, WorkerEntrypoint
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response("routed " + request.url)
        """,
        routes=[{"pattern": "shop.example.com/api/*", "zone_name": "example.com"}],
    )
    yield from a_node(workspace)


def raw(node: ANode, *, buffer: int = 0) -> socket.socket:
    """A connection of our own, so that a test decides when it reads and when it writes."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", node.port))
    connection.settimeout(DEADLINE_S)
    return connection


def test_a_worker_says_hello(node: ANode) -> None:
    answer = node.ask("lab")
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["content-type"] == "text/plain;charset=UTF-8"


def test_json_goes_in_and_comes_out(node: ANode) -> None:
    sent = {"ünïcode": ["☃", 1.5, None, True], "deep": {"a": [{"b": 2**53}]}}
    answer = node.ask("lab", "/json", method="POST", json=sent)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"got": sent}


def test_the_request_is_what_the_client_sent(node: ANode) -> None:
    answer = node.ask(
        "lab",
        "/about?q=%20x&q=2",
        method="PATCH",
        headers=[
            ("host", "lab.localhost:8787"),
            ("X-Twice", "one, 1"),
            ("x-twice", "two"),
            ("Set-Cookie", "a=b, c=d"),
            ("Set-Cookie", "e=f"),
            ("CF-Connecting-IP", "6.6.6.6"),
        ],
        content=b"body \xe2\x98\x83",
    ).json()
    assert answer["url"] == "http://lab.localhost:8787/about?q=%20x&q=2"
    assert (answer["method"], answer["enum"]) == ("PATCH", True)
    assert answer["body"] == "body ☃"
    headers = [tuple(pair) for pair in answer["headers"]]
    assert ("x-twice", "one, 1, two") in headers
    assert answer["cookies"] == ["a=b, c=d", "e=f"]
    assert headers == sorted(headers, key=lambda pair: pair[0])
    assert answer["ip"] == "127.0.0.1"  # said by the node: a client cannot choose its address


def test_each_cookie_is_a_header_of_its_own_and_hop_by_hop_headers_are_the_platforms(node: ANode) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE_S)
    connection.request("GET", "/headers", headers={"Host": "lab.localhost"})
    answer = connection.getresponse()
    assert (answer.status, answer.reason) == (201, "Made Up")
    assert answer.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2, c"]
    assert ", ".join(answer.headers.get_all("x-twice", [])) == "1, 2"
    assert answer.headers["x-number"] == "7"
    assert answer.read() == b"x"
    connection.request("GET", "/", headers={"Host": "lab.localhost"})  # the Worker's "close" did not close it
    assert connection.getresponse().read() == b"hello"
    connection.close()


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3 * MIB])
def test_a_body_of_any_size_arrives_whole(node: ANode, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    answer = node.ask("lab", "/hash", method="POST", content=body)
    assert answer.json() == {"size": size, "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_mebibytes_come_back_as_they_were_sent(node: ANode, chunked: bool) -> None:
    """Sent and read at once: with back-pressure both ways, a client that reads only afterwards would wait for ever."""
    body = hashlib.shake_128(b"stellwerk").digest(10 * MIB)
    pieces = [body[n : n + 99_991] for n in range(0, len(body), 99_991)]
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    with raw(node) as connection, ThreadPoolExecutor(1) as thread:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: lab.localhost\r\n" + framing + b"\r\n\r\n")

        def send() -> None:
            for piece in pieces:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                connection.sendall(b"0\r\n\r\n")

        sending = thread.submit(send)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(body).digest()
        sending.result()


def test_a_chunked_request_is_read_in_pieces(node: ANode) -> None:
    parts = [bytes([n]) * 50_000 for n in range(20)]
    answer = node.ask("lab", "/pieces", method="POST", content=iter(parts)).json()
    assert answer["sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()
    assert answer["pieces"] >= 10


def test_the_first_piece_of_an_answer_arrives_before_the_last_is_made(node: ANode) -> None:
    node.ask("lab", "/shut")
    with node.http.stream("GET", f"{node.ingress}/stream", headers={"host": "lab.localhost"}) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = answer.iter_raw()
        assert next(pieces) == b"first "
        node.ask("lab", "/open")
        assert b"".join(pieces) == b"last"


def test_a_client_is_held_back_while_the_worker_does_not_read(node: ANode) -> None:
    node.ask("lab", "/shut")
    piece, sent = bytes(65_536), 0
    with raw(node) as connection:
        connection.sendall(b"POST /drink HTTP/1.1\r\nHost: lab.localhost\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        connection.setblocking(False)
        while sent < 64 * MIB and select.select([], [connection], [], QUIET_S)[1]:
            sent += connection.send(piece)
        assert sent < BUFFERS_MAX
        node.ask("lab", "/open")
        connection.settimeout(DEADLINE_S)
        connection.sendall(bytes(64 * MIB - sent))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert json.loads(answer.read())["taken"] == 64 * MIB


def test_a_worker_is_held_back_while_the_client_does_not_read(node: ANode) -> None:
    node.ask("lab", "/shut")
    with raw(node, buffer=65_536) as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: lab.localhost\r\nConnection: close\r\n\r\n")
        seen = [-1]

        def still() -> bool:
            seen.append(node.ask("lab", "/flow").json()["made"])
            return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] > 0

        until(still, "the Worker stopped making")
        assert seen[-1] < BUFFERS_MAX
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        size = 0
        while piece := answer.read(MIB):
            size += len(piece)
        assert size == 64 * MIB


def test_head_has_the_headers_and_no_body(node: ANode) -> None:
    answer = node.ask("lab", "/binary", method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "256"
    node.ask("lab", "/shut")
    streamed = node.ask("lab", "/stream", method="HEAD")  # nobody waits for a body that is not sent
    assert (streamed.headers["content-type"], streamed.content) == ("text/plain", b"")
    assert node.ask("lab").text == "hello"


def test_redirects_empty_and_binary_answers(node: ANode) -> None:
    away = node.ask("lab", "/away")
    assert (away.status_code, away.headers["location"], away.content) == (303, "https://example.com/there", b"")
    nothing = node.ask("lab", "/nothing")
    assert (nothing.status_code, nothing.content) == (204, b"")
    assert "content-length" not in nothing.headers
    binary = node.ask("lab", "/binary")
    assert binary.content == bytes(range(256))
    assert binary.headers["content-type"] == "application/octet-stream"


def test_a_route_a_host_name_and_the_default_worker_lead_to_workers(node: ANode) -> None:
    assert node.ask("routed", "/a").text == "routed http://routed.localhost/a"
    routed = node.ask("", "/api/1", headers={"host": "Shop.Example.com"})
    assert routed.text == "routed http://shop.example.com/api/1"
    rest = node.ask("", "/hello", headers={"host": "shop.example.com"})
    assert rest.text == "hello"  # of the lab, which says that it is the default


def test_two_hundred_requests_share_one_isolate(node: ANode) -> None:
    node.ask("lab")
    before = {process.pid for process in node.descendants()}
    with ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(lambda _: node.ask("lab", "/together"), range(200)))
    assert [answer.status_code for answer in answers] == [200] * 200
    assert max(answer.json()["most"] for answer in answers) == 200
    assert {process.pid for process in node.descendants()} == before


def test_a_websocket_upgrade_is_refused_with_a_reason(node: ANode) -> None:
    answer = node.ask(
        "lab",
        headers={
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version": "13",
        },
    )
    assert answer.status_code == 501
    assert "WebSocket" in answer.json()["message"]
