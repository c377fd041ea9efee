"""``fetch`` to the world outside: a real server of this test, on a port of its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.integration.node.kit import ANode, a_node, a_worker

WORKER = """
import asyncio

from js import ReadableStream
from workers import Response, WorkerEntrypoint, fetch


async def pieces():
    for n in range(20):
        yield bytes([n]) * 50_000


async def outcome(awaitable):
    try:
        answer = await awaitable
    except Exception as error:
        return {"raised": type(error).__name__, "os_error": isinstance(error, OSError), "message": str(error)}
    return {
        "status": answer.status, "url": answer.url, "redirected": answer.redirected,
        "headers": dict(answer.headers.items()), "text": await answer.text(),
    }


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 3)[3].partition("?")[0]
        return Response.json(await getattr(self, name)(**await request.json()))

    async def ask(self, url, **options):
        return await outcome(fetch(url, **options))

    async def upload(self, url):
        return await outcome(fetch(url, method="POST", body=ReadableStream.from_(pieces())))

    async def within(self, url, seconds):
        try:
            async with asyncio.timeout(seconds):
                return await outcome(fetch(url))
        except TimeoutError:
            return {"raised": "TimeoutError"}

    async def many(self, url, times):
        answers = await asyncio.gather(*(fetch(f"{url}?{n}") for n in range(times)))
        return sorted([(await answer.json())["path"] for answer in answers])

    async def one_by_one(self, url, times):
        return [(await (await fetch(url)).json())["path"] for _ in range(times)]

    async def heads_only(self, url, times):
        return [(await fetch(url)).status for _ in range(times)]

    async def first_piece(self, url, go_on):
        answer = await fetch(url)
        found = []
        async for chunk in answer.body:
            found.append(bytes(chunk).decode())
            if len(found) == 1:
                await fetch(go_on)
        return found
"""


@dataclass
class Outside:
    """What the server has seen."""

    connections: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(50, timeout=15))
    url: str = ""


def handler_for(outside: Outside) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            outside.connections += 1

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            self.body = self._body()
            path = self.path.partition("?")[0]
            outside.requests.append({"method": self.command, "path": self.path, "headers": dict(self.headers.items())})
            getattr(self, "on_" + path.strip("/").replace("/", "_"), self.on_see)()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = handle_any

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def on_see(self) -> None:
            seen = {
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "size": len(self.body),
                "sha256": hashlib.sha256(self.body).hexdigest(),
            }
            self.answer(200, json.dumps(seen).encode(), content_type="application/json")

        def on_redirect(self) -> None:
            self.answer(302, location="/landed", x_first="1")

        def on_redirect307(self) -> None:
            self.answer(307, location="/landed")

        def on_round(self) -> None:
            self.answer(302, location="/round")

        def on_gzip(self) -> None:
            self.answer(200, gzip.compress(b"unpacked " * 1000), content_encoding="gzip")

        def on_large(self) -> None:
            self.answer(200, bytes(400_000))

        def on_pieces(self) -> None:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            outside.go_on.wait(15)
            self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

        def on_go(self) -> None:
            outside.go_on.set()
            self.answer(200)

        def on_never(self) -> None:
            outside.go_on.wait(15)
            self.close_connection = True

        def on_together(self) -> None:
            outside.together.wait()
            self.on_see()

        def on_cut(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are what some of these tests are about."""


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    seen = Outside()
    with Server(("127.0.0.1", 0), handler_for(seen)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        seen.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield seen
        seen.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("outgoing")
    a_worker(workspace, "client", WORKER)
    yield from a_node(workspace)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def do(node: ANode, verb: str, *, traceparent: str = f"00-{TRACE}-00f067aa0ba902b7-01", **arguments: Any) -> Any:
    answer = node.ask("client", f"/{verb}", method="POST", json=arguments, headers={"traceparent": traceparent})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_arrives_with_its_body(node: ANode, outside: Outside, method: str) -> None:
    options = {} if method == "GET" else {"body": "some text"}
    seen = json.loads(do(node, "ask", url=f"{outside.url}/see?a=1", method=method, **options)["text"])
    assert (seen["method"], seen["path"]) == (method, "/see?a=1")
    assert seen["size"] == len(options.get("body", ""))


def test_head_brings_headers_and_no_body(node: ANode, outside: Outside) -> None:
    answer = do(node, "ask", url=f"{outside.url}/large", method="HEAD")
    assert (answer["status"], answer["headers"]["content-length"], answer["text"]) == (200, "400000", "")


def test_headers_go_out_as_given_and_with_the_trace(node: ANode, outside: Outside) -> None:
    seen = json.loads(do(node, "ask", url=f"{outside.url}/see", headers={"X-One": "1"})["text"])["headers"]
    assert seen["x-one"] == "1"
    version, trace_id, span_id, _ = seen["traceparent"].split("-")
    assert (version, trace_id) == ("00", TRACE)
    assert span_id != "00f067aa0ba902b7"
    begun = json.loads(do(node, "ask", url=f"{outside.url}/see", traceparent="rubbish")["text"])["headers"]
    assert begun["traceparent"].split("-")[1] not in ("0" * 32, TRACE)


def test_redirects_are_followed_handed_over_or_refused(node: ANode, outside: Outside) -> None:
    followed = do(node, "ask", url=f"{outside.url}/redirect")
    assert (followed["status"], followed["redirected"]) == (200, True)
    assert followed["url"] == f"{outside.url}/landed"
    by_hand = do(node, "ask", url=f"{outside.url}/redirect", redirect="manual")
    assert (by_hand["status"], by_hand["headers"]["location"]) == (302, "/landed")
    refused = do(node, "ask", url=f"{outside.url}/redirect", redirect="error")
    assert refused["os_error"]
    assert do(node, "ask", url=f"{outside.url}/round")["os_error"]


def test_a_302_turns_a_post_into_a_get_and_a_307_does_not(node: ANode, outside: Outside) -> None:
    seen = json.loads(do(node, "ask", url=f"{outside.url}/redirect", method="POST", body="x")["text"])
    assert (seen["method"], seen["size"]) == ("GET", 0)
    seen = json.loads(do(node, "ask", url=f"{outside.url}/redirect307", method="POST", body="x")["text"])
    assert (seen["method"], seen["size"]) == ("POST", 1)


def test_a_stream_goes_out_in_pieces(node: ANode, outside: Outside) -> None:
    body = b"".join(bytes([n]) * 50_000 for n in range(20))
    seen = json.loads(do(node, "upload", url=f"{outside.url}/see")["text"])
    assert (seen["size"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert seen["headers"]["transfer-encoding"] == "chunked"


def test_a_stream_comes_in_as_it_is_sent(node: ANode, outside: Outside) -> None:
    outside.go_on.clear()
    assert do(node, "first_piece", url=f"{outside.url}/pieces", go_on=f"{outside.url}/go") == ["first", "last"]


def test_a_packed_answer_is_unpacked(node: ANode, outside: Outside) -> None:
    assert do(node, "ask", url=f"{outside.url}/gzip")["text"] == "unpacked " * 1000


def test_a_time_out_of_the_program_ends_a_fetch(node: ANode, outside: Outside) -> None:
    outside.go_on.clear()
    assert do(node, "within", url=f"{outside.url}/never", seconds=0.05) == {"raised": "TimeoutError"}
    outside.go_on.set()


def test_where_nobody_listens_the_error_is_an_os_error_that_names_the_address(node: ANode) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        outcome = do(node, "ask", url=f"http://127.0.0.1:{port}/")
    assert outcome["os_error"]
    assert f"127.0.0.1:{port}" in outcome["message"]


def test_an_answer_that_is_cut_off_is_an_os_error(node: ANode, outside: Outside) -> None:
    answer = node.ask("client", "/ask", method="POST", json={"url": f"{outside.url}/cut"})
    assert answer.status_code == 500  # raised while the text was read, which this Worker does not expect
    assert "in the middle of its answer" in node.record(
        level="error", invocation=answer.json()["request_id"]
    )["text"]  # fmt: skip


def test_requests_one_after_another_share_a_connection(node: ANode, outside: Outside) -> None:
    do(node, "one_by_one", url=f"{outside.url}/see", times=1)
    before = outside.connections
    assert do(node, "one_by_one", url=f"{outside.url}/see", times=20) == ["/see"] * 20
    assert outside.connections == before


def test_fifty_requests_are_under_way_at_once(node: ANode, outside: Outside) -> None:
    paths = do(node, "many", url=f"{outside.url}/together", times=50)
    assert paths == sorted(f"/together?{n}" for n in range(50))


def test_answers_that_are_not_read_do_not_use_up_the_connections(node: ANode, outside: Outside) -> None:
    assert do(node, "heads_only", url=f"{outside.url}/large", times=150) == [200] * 150
