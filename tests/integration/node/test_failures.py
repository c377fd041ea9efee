"""What goes wrong in a Worker, what its client sees of it, and what its owner finds in the log."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator

import httpx
import pytest
from tests.integration.node.kit import DEADLINE_S, ANode, a_node, a_worker, until

WORKER = """
import asyncio
import logging
import os
import signal

from js import ReadableStream, console
from workers import Response, WorkerEntrypoint, fetch

opened = asyncio.Event()


class Declined(Exception):
    pass


async def without_end():
    try:
        yield b"first"
        await asyncio.Event().wait()
    finally:
        print("the generator was ended")


async def dying():
    yield b"first"
    await opened.wait()
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.Event().wait()


async def breaking():
    yield b"first"
    await opened.wait()
    raise Declined("in the middle")


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await getattr(self, request.url.split("/", 3)[3].partition("?")[0] or "hello")(request)

    async def hello(self, request):
        return Response("hello")

    async def open(self, request):
        opened.set()
        return Response("opened")

    async def shut(self, request):
        opened.clear()
        return Response("shut")

    async def throw(self, request):
        raise Declined("no money")

    async def nothing(self, request):
        return None

    async def text(self, request):
        return "not a Response"

    async def header(self, request):
        return Response("x", headers={"X-Split": "a\\r\\nInjected: b"})

    async def later(self, request):
        async def work():
            await opened.wait()
            print("worked later")
        self.ctx.waitUntil(work())
        return Response("at once")

    async def later_badly(self, request):
        async def work():
            raise Declined("too late")
        self.ctx.waitUntil(work())
        return Response("at once")

    async def hang(self, request):
        print("hanging")
        await opened.wait()
        print("was not interrupted")
        return Response("late")

    async def endless(self, request):
        return Response(ReadableStream.from_(without_end()))

    async def dying(self, request):
        return Response(ReadableStream.from_(dying()))

    async def breaking(self, request):
        return Response(ReadableStream.from_(breaking()))

    async def die(self, request):
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()

    async def leave(self, request):
        os._exit(3)

    async def say(self, request):
        print("printed", 1, 2)
        print("to stderr", file=__import__("sys").stderr)
        logging.getLogger("shop").warning("logged %s", "w")
        console.log("consoled", {"a": 1})
        console.error("console error")
        os.write(1, b"raw\\n")
        return Response("said")

    async def pid(self, request):
        return Response(str(os.getpid()))
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("failures")
    a_worker(workspace, "shop", WORKER)
    yield from a_node(workspace)


def since(node: ANode) -> int:
    """What the log says from here on."""
    return len(node.output.lines)


# -- exceptions -------------------------------------------------------------------------------------------------------


def test_an_exception_is_a_500_that_says_nothing_and_a_traceback_in_the_log(node: ANode) -> None:
    start = since(node)
    answer = node.ask("shop", "/throw")
    assert answer.status_code == 500
    said = answer.json()
    assert (said["code"], said["retryable"]) == ("worker.exception", False)
    assert "no money" not in answer.text
    record = node.record(since=start, level="error", invocation=said["request_id"])
    assert (record["worker"], record["text"]) == ("shop", "Uncaught Declined: no money")
    assert 'raise Declined("no money")' in record["stack"]
    assert "/isolate/" not in record["stack"]  # the platform's own frames are left out


def test_browsers_get_a_page_with_the_number_that_people_search_for(node: ANode) -> None:
    answer = node.ask("shop", "/throw", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Error 1101</title>" in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/text"])
def test_what_is_no_response_is_an_error_that_says_so(node: ANode, path: str) -> None:
    answer = node.ask("shop", path)
    assert (answer.status_code, answer.json()["code"]) == (500, "worker.exception")
    assert "Response" in node.record(level="error", invocation=answer.json()["request_id"])["text"]


def test_a_header_with_a_line_break_does_not_reach_the_wire(node: ANode) -> None:
    answer = node.ask("shop", "/header")
    assert answer.status_code == 500
    assert "injected" not in answer.headers


def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(node: ANode) -> None:
    node.ask("shop", "/shut")
    start = since(node)
    with node.http.stream("GET", f"{node.ingress}/breaking", headers={"host": "shop.localhost"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        node.ask("shop", "/open")
        with pytest.raises(httpx.TransportError):
            list(pieces)
    node.record(since=start, level="error", text=lambda text: "in the middle" in text)


# -- after the answer -------------------------------------------------------------------------------------------------


def test_work_handed_to_wait_until_goes_on_after_the_answer_and_does_not_delay_it(node: ANode) -> None:
    node.ask("shop", "/shut")
    start = since(node)
    assert node.ask("shop", "/later").text == "at once"
    assert not any("worked later" in line for line in node.output.lines[start:])
    node.ask("shop", "/open")
    record = node.record(since=start, text="worked later")
    assert record["invocation"]


def test_a_failure_after_the_answer_stands_in_the_log(node: ANode) -> None:
    start = since(node)
    assert node.ask("shop", "/later_badly").text == "at once"
    node.record(since=start, level="error", text=lambda text: "too late" in text)


# -- clients that leave -----------------------------------------------------------------------------------------------


def test_a_client_that_leaves_does_not_interrupt_the_handler(node: ANode) -> None:
    node.ask("shop", "/shut")
    start = since(node)
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(b"GET /hang HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
        node.record(since=start, text="hanging")
    node.ask("shop", "/open")
    node.record(since=start, text="was not interrupted")
    assert node.ask("shop").text == "hello"


def test_a_client_that_leaves_ends_the_stream_that_was_for_it(node: ANode) -> None:
    start = since(node)
    with node.http.stream("GET", f"{node.ingress}/endless", headers={"host": "shop.localhost"}) as answer:
        assert next(answer.iter_raw()) == b"first"
    node.record(since=start, text="the generator was ended")
    until(lambda: all(isolate["load"] == 0 for isolate in isolates(node)), "the isolate has nothing to do")


def isolates(node: ANode) -> list[dict[str, int]]:
    answer = node.http.get(
        f"http://127.0.0.1:{node.control_port}/v1/system", headers={"authorization": f"Bearer {node.token}"}
    )
    found: list[dict[str, int]] = answer.json()["result"]["isolates"]
    return found


# -- isolates that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/die", "/leave"])
def test_a_request_whose_isolate_dies_may_be_repeated_and_the_next_one_works(node: ANode, path: str) -> None:
    before = node.ask("shop", "/pid").text
    start = since(node)
    answer = node.ask("shop", path)
    assert answer.status_code == 503
    assert (answer.json()["code"], answer.json()["retryable"]) == ("isolate.lost", True)
    assert node.ask("shop", "/pid").text != before
    record = node.record(since=start, event="isolate crashed")
    assert (record["worker"], record["level"]) == ("shop", "error")


def test_a_neighbour_of_the_culprit_gets_a_retryable_answer_too(node: ANode) -> None:
    node.ask("shop", "/shut")
    start = since(node)
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE_S)
    connection.request("GET", "/hang", headers={"Host": "shop.localhost"})
    node.record(since=start, text="hanging")
    os.kill(int(node.ask("shop", "/pid").text), signal.SIGKILL)
    answer = connection.getresponse()
    assert answer.status == 503
    assert b"isolate.lost" in answer.read()
    connection.close()


def test_an_answer_whose_isolate_dies_in_the_middle_is_not_taken_for_a_whole_one(node: ANode) -> None:
    node.ask("shop", "/shut")
    with node.http.stream("GET", f"{node.ingress}/dying", headers={"host": "shop.localhost"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        node.ask("shop", "/open")
        with pytest.raises(httpx.TransportError):
            list(pieces)
    assert node.ask("shop").text == "hello"


# -- the log ----------------------------------------------------------------------------------------------------------


def test_whatever_a_worker_says_stands_in_the_log_with_its_names(node: ANode) -> None:
    start = since(node)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    node.ask("shop", "/say", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    printed = node.record(since=start, text="printed 1 2")
    assert (printed["level"], printed["worker"], printed["trace_id"]) == ("info", "shop", trace)
    assert printed["version"]
    assert printed["invocation"]
    logged = node.record(since=start, text="logged w")
    assert (logged["level"], logged["logger"]) == ("warn", "shop")
    consoled = node.record(since=start, text=lambda text: text.startswith("consoled"))
    assert consoled["level"] == "info"
    names = [node.record(since=start, text=text) for text in ("to stderr", "console error")]
    assert {record["level"] for record in names} == {"error"}
    same = [printed, logged, consoled, *names]
    assert len({(record["version"], record["invocation"]) for record in same}) == 1
    raw = node.record(since=start, text="raw")
    assert raw["worker"] == "shop"
