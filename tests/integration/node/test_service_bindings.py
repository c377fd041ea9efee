"""Workers that reach one another: bodies both ways, methods, entrypoints, loops, and bindings that lead nowhere."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.integration.node.kit import DEADLINE_S, ANode, a_node, a_worker, until

MIB = 1024 * 1024

FRONT = '''
import asyncio

from js import ReadableStream
from workers import Request, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 3)[3].partition("?")[0]
        handler = getattr(self, name, None)
        return await (handler(request) if handler else self.env.MIDDLE.fetch(request))

    async def rpc(self, request):
        """Calls a method as the body says, and answers with what came of it."""
        call = await request.json()
        target = getattr(self.env, call.get("binding", "BACK"))
        try:
            result = await getattr(target, call["method"])(*call.get("args", []), **call.get("kwargs", {}))
        except Exception as error:
            return Response.json({"raised": type(error).__name__, "message": str(error)})
        return Response.json({"result": result})

    async def fetching(self, request):
        call = await request.json()
        target = getattr(self.env, call["binding"])
        try:
            answer = await target.fetch("http://anything/" + call.get("path", ""))
        except Exception as error:
            return Response.json({"raised": type(error).__name__, "message": str(error)})
        return Response.json({"status": answer.status, "text": await answer.text()})

    async def made(self, request):
        asked = Request("http://back/see?x=1", method="PUT", headers={"X-One": "1"}, body="given")
        return await self.env.BACK.fetch(asked)

    async def many(self, request):
        answers = await asyncio.gather(*(self.env.BACK.add(n, n) for n in range(100)))
        return Response.json(answers)

    async def heavy(self, request):
        answers = await asyncio.gather(*(self.env.BACK.double(bytes(5_000_000)) for n in range(12)))
        return Response.json([len(answer) for answer in answers])

    async def dying(self, request):
        answer = await self.env.BACK.fetch("http://back/dying")
        return Response(answer.body)

    async def unread(self, request):
        await self.env.BACK.fetch("http://back/endless")
        return Response("did not read it")

    async def traced(self, request):
        print("traced")
        await self.env.BACK.traced()
        return Response("traced")
'''

MIDDLE = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        answer = await self.env.BACK.fetch(request)
        return Response(answer.body, status=answer.status, headers={"x-through": "middle", "x-from": "back"})
"""

BACK = """
import asyncio
import os

from js import ReadableStream
from workers import Response, WorkerEntrypoint

opened = asyncio.Event()


async def numbers():
    yield b"first "
    await opened.wait()
    yield b"last"


async def endless():
    print("endless began")
    try:
        while True:
            yield bytes(65536)
    finally:
        print("endless was ended")


async def dying():
    yield b"first"
    await opened.wait()
    os._exit(1)


class Mixed:
    def inherited(self):
        return "from a mixin"


class Default(Mixed, WorkerEntrypoint):
    calls = 0

    async def fetch(self, request):
        name = request.url.split("/", 3)[3].partition("?")[0]
        if name == "stream":
            return Response(ReadableStream.from_(numbers()))
        if name == "open":
            opened.set()
            return Response("opened")
        if name == "shut":
            opened.clear()
            return Response("shut")
        if name == "endless":
            return Response(ReadableStream.from_(endless()))
        if name == "dying":
            return Response(ReadableStream.from_(dying()))
        if name == "throw":
            raise ValueError("the far end failed")
        if name == "see":
            return Response.json({
                "url": request.url, "method": request.method.value, "headers": dict(request.headers.items()),
                "body": await request.text(),
            })
        if name == "refuse":
            return Response("no", status=403)
        return Response(request.body, status=202)

    async def add(self, a, b, *, plus=0):
        return a + b + plus

    def count(self):
        self.calls += 1
        return self.calls

    async def traced(self):
        print("traced")

    async def double(self, data):
        return bytes(data) * 2

    async def too_much(self):
        return bytes(40_000_000)

    async def die(self):
        os._exit(1)

    async def fail(self, text):
        raise ValueError(text)

    async def _private(self):
        return "secret"

    @staticmethod
    def static():
        return "no method"

    value = 7


class Admin(WorkerEntrypoint):
    async def who(self):
        return {"entrypoint": "Admin", "role": self.ctx.props.role, "props": self.ctx.props}

    async def fetch(self, request):
        return Response("admin " + str(self.ctx.props["role"]))
"""

LOOP = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await self.env.OTHER.fetch(request)

    async def round(self, depth):
        return await self.env.OTHER.round(depth + 1)
"""


def service(binding: str, name: str, **more: Any) -> dict[str, Any]:
    return {"binding": binding, "service": name, **more}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("bindings")
    services = [
        service("MIDDLE", "middle"),
        service("BACK", "back"),
        service("ADMIN", "back", entrypoint="Admin", props={"role": "owner", "deep": {"list": [1, 2]}}),
        service("NOBODY", "does-not-exist"),
        service("NO_CLASS", "back", entrypoint="Missing"),
    ]
    # The folders' names put callers before and after those that they call: the order must not matter.
    a_worker(workspace, "a-front", FRONT, services=services)
    a_worker(workspace, "middle", MIDDLE, services=[service("BACK", "back")])
    a_worker(workspace, "back", BACK, toml="[limits]\nisolates_max = 1\n")  # it keeps state in its module
    a_worker(workspace, "loop-one", LOOP, services=[service("OTHER", "loop-two")])
    a_worker(workspace, "loop-two", LOOP, services=[service("OTHER", "loop-one")])
    yield from a_node(workspace)


def rpc(node: ANode, method: str, *args: Any, binding: str = "BACK", **kwargs: Any) -> Any:
    """The answer of a method, or ``(name, message)`` of what it raised."""
    call = {"binding": binding, "method": method, "args": args, "kwargs": kwargs}
    said = node.ask("a-front", "/rpc", method="POST", json=call).json()
    return said["result"] if "result" in said else (said["raised"], said["message"])


# -- fetch ------------------------------------------------------------------------------------------------------------


def test_ten_mebibytes_go_through_three_workers_and_back(node: ANode) -> None:
    body = hashlib.shake_128(b"through").digest(10 * MIB)
    with socket.create_connection(("127.0.0.1", node.port), DEADLINE_S) as connection, ThreadPoolExecutor(1) as thread:
        head = f"POST /echo HTTP/1.1\r\nHost: a-front.localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        sending = thread.submit(connection.sendall, body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["x-through"]) == (202, "middle")
        assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(body).digest()
        sending.result()


def test_a_stream_through_three_workers_is_held_nowhere(node: ANode) -> None:
    assert node.ask("back", "/shut").text == "shut"
    with node.http.stream("GET", f"{node.ingress}/stream", headers={"host": "a-front.localhost"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first "
        assert node.ask("back", "/open").text == "opened"
        assert b"".join(pieces) == b"last"


def test_a_client_that_leaves_ends_the_stream_at_the_far_end(node: ANode) -> None:
    start = len(node.output.lines)
    with node.http.stream("GET", f"{node.ingress}/endless", headers={"host": "a-front.localhost"}) as answer:
        assert next(answer.iter_raw())
    assert node.record(since=start, text="endless was ended")["worker"] == "back"


def test_an_answer_that_is_never_read_ends_with_its_caller(node: ANode) -> None:
    assert node.ask("a-front", "/unread").text == "did not read it"

    # Whether the far end's generator had begun by then is chance; that nothing goes on working for nobody is not.
    until(lambda: not any(isolate["load"] for isolate in node.system()["isolates"]), "every isolate at rest")


def test_an_upload_that_the_far_end_does_not_read_does_not_hang(node: ANode) -> None:
    answer = node.ask("a-front", "/refuse", method="POST", content=bytes(300_000))
    assert (answer.status_code, answer.text) == (403, "no")


def test_a_request_made_by_hand_arrives_as_it_was_made(node: ANode) -> None:
    seen = node.ask("a-front", "/made").json()
    assert (seen["url"], seen["method"], seen["body"]) == ("http://back/see?x=1", "PUT", "given")
    assert seen["headers"]["x-one"] == "1"


def test_an_exception_of_the_far_end_is_raised_at_the_call(node: ANode) -> None:
    said = node.ask("a-front", "/fetching", method="POST", json={"binding": "BACK", "path": "throw"}).json()
    assert "the far end failed" in said["message"]


# -- methods ----------------------------------------------------------------------------------------------------------


def test_methods_take_arguments_by_place_and_by_name(node: ANode) -> None:
    assert rpc(node, "add", 2, 3) == 5
    assert rpc(node, "add", "a", b="b", plus="c") == "abc"
    assert rpc(node, "inherited") == "from a mixin"


def test_each_call_has_an_entrypoint_of_its_own(node: ANode) -> None:
    assert [rpc(node, "count"), rpc(node, "count")] == [1, 1]


def test_an_exception_of_a_method_is_raised_with_its_message(node: ANode) -> None:
    assert rpc(node, "fail", "because") == ("ValueError", "because")


@pytest.mark.parametrize("method", ["unknown", "static", "value", "calls"])
def test_a_method_that_does_not_exist_is_named(node: ANode, method: str) -> None:
    assert rpc(node, method) == ("TypeError", f"Method {method} does not exist")


def test_a_private_method_is_out_of_reach(node: ANode) -> None:
    name, _ = rpc(node, "_private")
    assert name == "AttributeError"


def test_a_hundred_calls_at_once_come_back_in_order(node: ANode) -> None:
    assert node.ask("a-front", "/many").json() == [2 * n for n in range(100)]


def test_large_answers_that_come_at_once_do_not_break_the_channel(node: ANode) -> None:
    assert node.ask("a-front", "/heavy").json() == [10_000_000] * 12


def test_a_result_over_the_limit_is_an_error_at_the_call_and_hurts_nobody(node: ANode) -> None:
    start = len(node.output.lines)
    assert str(32 * MIB) in rpc(node, "too_much")[1]
    assert not any("isolate crashed" in line for line in node.output.lines[start:])


def test_a_worker_that_dies_under_a_call_is_an_error_at_the_call_and_the_next_call_works(node: ANode) -> None:
    _, message = rpc(node, "die")
    assert message.startswith("The Worker that was called ended")
    assert rpc(node, "add", 1, 2) == 3


def test_a_worker_that_dies_in_the_middle_of_an_answer_breaks_it_off(node: ANode) -> None:
    assert node.ask("back", "/shut").text == "shut"
    with node.http.stream("GET", f"{node.ingress}/dying", headers={"host": "a-front.localhost"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        node.ask("back", "/open")
        with pytest.raises(httpx.TransportError):
            list(pieces)
    assert rpc(node, "add", 1, 2) == 3


def test_a_named_entrypoint_has_the_props_of_its_binding(node: ANode) -> None:
    assert rpc(node, "who", binding="ADMIN") == {
        "entrypoint": "Admin",
        "role": "owner",
        "props": {"role": "owner", "deep": {"list": [1, 2]}},
    }
    said = node.ask("a-front", "/fetching", method="POST", json={"binding": "ADMIN"}).json()
    assert said["text"] == "admin owner"


def test_a_missing_entrypoint_is_named(node: ANode) -> None:
    name, message = rpc(node, "anything", binding="NO_CLASS")
    assert (name, message) == ("TypeError", "There is no 'Missing' class defined in the Python Worker's main module")


# -- loops and dead ends ----------------------------------------------------------------------------------------------


def test_a_circle_of_workers_ends_with_error_1019(node: ANode) -> None:
    answer = node.ask("loop-one")
    assert answer.status_code == 500
    assert answer.json()["code"] == "worker.loop"
    page = node.ask("loop-one", headers={"accept": "text/html"}).text
    assert "<title>Error 1019</title>" in page


def test_a_binding_that_leads_nowhere_says_at_the_call_what_to_do(node: ANode) -> None:
    for said in (
        node.ask("a-front", "/fetching", method="POST", json={"binding": "NOBODY"}).json()["message"],
        rpc(node, "anything", binding="NOBODY")[1],
    ):
        assert 'service binding to "does-not-exist"' in said
        assert 'Deploy "does-not-exist", or correct the name' in said
    assert rpc(node, "add", 1, 1) == 2


# -- traces -----------------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def traces(node: ANode, **headers: str) -> set[str]:
    """The trace ids of what two Workers print during one request, which is one invocation to both."""
    start = len(node.output.lines)
    assert node.ask("a-front", "/traced", headers=headers).text == "traced"
    said = [node.record(since=start, text="traced", worker=worker) for worker in ("a-front", "back")]
    assert said[0]["invocation"] == said[1]["invocation"] != ""
    return {record["trace_id"] for record in said}


def test_a_trace_is_carried_into_the_next_worker(node: ANode) -> None:
    assert traces(node, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01") == {TRACE}


@pytest.mark.parametrize(
    "given",
    ["", "garbage", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-1-01"],
)
def test_a_trace_is_begun_where_there_is_none(node: ANode, given: str) -> None:
    (trace_id,) = traces(node, **({"traceparent": given} if given else {}))
    assert len(trace_id) == 32
    assert trace_id not in (TRACE, "0" * 32)


def test_nothing_of_all_this_is_left_over(node: ANode) -> None:
    def quiet() -> bool:
        answer = node.http.get(
            f"http://127.0.0.1:{node.control_port}/v1/system", headers={"authorization": f"Bearer {node.token}"}
        )
        return all(isolate["load"] == 0 for isolate in json.loads(answer.text)["result"]["isolates"])

    until(quiet, "every isolate is done")
