"""Streams, requests and responses over RPC: passed by transfer, flowing only as they are read.

A stream stays where it is made; its receiver reads it in pieces, with credit, whichever way it came there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.node.kit import ANode, a_node, a_worker, until

MIB = 1024 * 1024

FAR = '''
import asyncio
import hashlib
import os

from js import ReadableStream
from workers import Request, Response, WorkerEntrypoint, wait_until

opened = asyncio.Event()
produced = 0
noted = []
kept = []


async def numbers():
    yield b"first "
    await opened.wait()
    yield b"last"


async def endless():
    global produced
    try:
        while True:
            produced += 65536
            yield bytes(65536)
    finally:
        print("endless was ended")


async def breaking():
    yield b"first"
    raise ValueError("out of paper")


async def dying():
    yield b"first"
    os._exit(1)


async def texts():
    yield "text"


async def digest(stream):
    found, size = hashlib.sha256(), 0
    async for chunk in stream:
        found.update(chunk)
        size += len(chunk)
    return [size, found.hexdigest()]


class Default(WorkerEntrypoint):
    async def gate(self, is_open):
        (opened.set if is_open else opened.clear)()

    async def stream(self, name):
        return ReadableStream.from_(globals()[name]())

    async def cancellable(self):
        return ReadableStream(pull=lambda controller: controller.enqueue(b"x"),
                              cancel=lambda reason: print("cancel was called"))

    async def nested(self):
        return {"streams": [ReadableStream.from_([b"one"]), ReadableStream.from_([b"two"])]}

    async def produced(self):
        return produced

    async def digest(self, stream):
        return await digest(stream)

    async def digest_later(self, stream):
        async def later():
            noted.append(await digest(stream))

        wait_until(later())

    async def notes(self):
        return list(noted)

    async def ignore(self, stream):
        return "ignored"

    async def echo(self, value):
        return value

    async def keep(self, stream):
        kept.append(stream)

    async def upper(self, stream):
        async def changed():
            async for chunk in stream:
                yield bytes(chunk).upper()

        return ReadableStream.from_(changed())

    async def response(self):
        return Response(ReadableStream.from_(numbers()), status=203, headers={"x-a": "1"})

    async def request(self):
        return Request("https://example.com/p", method="PUT", headers={"x-b": "2"},
                       body=ReadableStream.from_([b"asked ", b"in pieces"]))

    async def describe(self, message):
        found = {"kind": type(message).__name__, "x": message.headers["x-c"], "text": await message.text()}
        if hasattr(message, "status"):
            return {**found, "status": message.status}
        return {**found, "url": message.url, "method": message.method.value}

    async def counted(self, stream):
        """Reads one piece and returns."""
        reader = stream.getReader()
        return len((await reader.read()).value)
'''

MIDDLE = """
from js import ReadableStream
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def through(self, name):
        return await self.env.FAR.stream(name)

    async def response(self):
        answer = await self.env.FAR.response()
        return Response(answer.body, status=answer.status, headers={"x-through": "middle"})

    async def changed(self, name):
        source = await self.env.FAR.stream(name)

        async def doubled():
            async for chunk in source:
                yield bytes(chunk) * 2

        return ReadableStream.from_(doubled())

    async def digest(self, stream):
        return await self.env.FAR.digest(stream)
"""

NEAR = '''
import sys

from js import ReadableStream
from workers import Request, Response, WorkerEntrypoint

kept = []


async def outcome(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return [type(error).__name__, getattr(error, "name", ""), str(error)]


async def whole(stream):
    return b"".join([bytes(chunk) async for chunk in stream]).decode()


async def chunks(count, size):
    for number in range(count):
        yield bytes([number % 256]) * size


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 3)[3]
        answer = await getattr(self, name)(request)
        return answer if isinstance(answer, Response) else Response.json(answer)

    async def flow(self, request):
        return Response(await self.env.FAR.stream("numbers"))

    async def flow_through(self, request):
        return Response(await self.env.MIDDLE.through("numbers"))

    async def response(self, request):
        return await self.env.FAR.response()

    async def response_through(self, request):
        return await self.env.MIDDLE.response()

    async def gate(self, request):
        return await self.env.FAR.gate((await request.json())["open"])

    async def nested(self, request):
        return [await whole(stream) for stream in (await self.env.FAR.nested()).streams]

    async def changed(self, request):
        return await whole(await self.env.MIDDLE.changed("numbers"))

    async def upload(self, request):
        return await self.env.FAR.digest(request.body)

    async def upload_through(self, request):
        return await self.env.MIDDLE.digest(request.body)

    async def lent(self, request):
        await self.env.FAR.digest_later(ReadableStream.from_(chunks(30, 100_000)))
        return "answered"

    async def notes(self, request):
        return await self.env.FAR.notes()

    async def made(self, request):
        return await self.env.FAR.digest(ReadableStream.from_(chunks(40, 100_000)))

    async def there_and_back(self, request):
        return await whole(await self.env.FAR.upper(request.body))

    async def request(self, request):
        got = await self.env.FAR.request()
        return {"url": got.url, "method": got.method.value, "x": got.headers["x-b"], "text": await got.text()}

    async def described(self, request):
        asked = Request("https://example.com/q", method="PUT", headers={"x-c": "3"},
                        body=ReadableStream.from_([b"a", b"b"]))
        answered = Response(ReadableStream.from_([b"c", b"d"]), status=202, headers={"x-c": "4"})
        return [await self.env.FAR.describe(asked), await self.env.FAR.describe(answered),
                await self.env.FAR.describe(Request(request, headers={"x-c": "5"}))]

    async def twice(self, request):
        locked, used = ReadableStream.from_([b"a"]), Response(ReadableStream.from_([b"b"]))
        locked.getReader()
        given = ReadableStream.from_([b"c"])
        first = await self.env.FAR.digest(given)
        await used.text()
        return [first[0], await outcome(self.env.FAR.digest(locked)), await outcome(self.env.FAR.digest(given)),
                await outcome(self.env.FAR.echo(used))]

    async def one_piece(self, request):
        stream = await self.env.FAR.stream("endless")
        reader = stream.getReader()
        size = len((await reader.read()).value)
        return [size, await self.env.FAR.produced()]

    async def left_early(self, request):
        async for chunk in await self.env.FAR.stream("endless"):
            return len(chunk)

    async def never_read(self, request):
        stream = await self.env.FAR.cancellable()
        return isinstance(stream, ReadableStream)

    async def ignored(self, request):
        return await self.env.FAR.ignore(ReadableStream(pull=lambda c: c.enqueue(b"x"),
                                                       cancel=lambda reason: print("mine was cancelled")))

    async def half_read(self, request):
        return await self.env.FAR.counted(ReadableStream.from_(chunks(1_000_000, 1000)))

    async def broken(self, request):
        return [await outcome(whole(await self.env.FAR.stream(name))) for name in ("breaking", "texts", "dying")]

    async def keep(self, request):
        kept.append(await self.env.FAR.stream("numbers"))
        return "kept"

    async def read_kept(self, request):
        return await outcome(whole(kept.pop()))

    async def two_readers(self, request):
        stream = await self.env.FAR.echo(ReadableStream.from_([b"home"]))
        one, two = stream.tee()
        return [await whole(one), (await self.env.FAR.digest(two))[0]]

    async def forged(self, request):
        """Opens streams that nobody gave it; and takes a function for a stream, and a stream for a function."""
        messages, values = (sys.modules[f"stellwerk.wire.{name}"] for name in ("isolate", "values"))
        host = sys.modules["workers._host"].host()
        nothing = values.encode([[], {}])
        told = set()
        for number in range(-3, 100):
            got = await outcome(host._outgoing.call(lambda call: messages.StreamOpen(call, number)))
            told.add(got[2] if isinstance(got, list) else "OPENED")
        function = await self.env.FAR.echo(len)
        stream = await self.env.FAR.stream("numbers")
        number = stream._chunks.held.number
        function_number = function._binding._held.number
        return [
            sorted(told),
            await outcome(host._outgoing.call(lambda call: messages.StreamOpen(call, function_number))),
            await outcome(host._outgoing.call(lambda call: messages.StubCall(call, number, "", nothing))),
        ]
'''

JOBS = """
from js import ReadableStream
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("jobs")


class Job(WorkflowEntrypoint):
    async def run(self, event, step):
        async def in_step():
            stream = await self.env.FAR.upper(ReadableStream.from_([b"in ", b"a step"]))
            return b"".join([bytes(chunk) async for chunk in stream]).decode()

        async def returned():
            return await self.env.FAR.response()

        return await step.do("one")(in_step if event.payload["what"] == "in step" else returned)()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("streams")
    one = "[limits]\nisolates_max = 1\n"  # they keep state in their modules
    far, middle = {"binding": "FAR", "service": "far"}, {"binding": "MIDDLE", "service": "middle"}
    a_worker(workspace, "far", FAR, toml=one)
    a_worker(workspace, "middle", MIDDLE, services=[far], toml=one)
    a_worker(workspace, "near", NEAR, services=[far, middle], toml=one)
    jobs = [{"binding": "JOB", "name": "job", "class_name": "Job"}]
    a_worker(workspace, "jobs", JOBS, services=[far], workflows=jobs)
    yield from a_node(workspace)


def ask(node: ANode, path: str, **more: Any) -> Any:
    answer = node.ask("near", f"/{path}", **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def gate(node: ANode, *, is_open: bool) -> None:
    assert ask(node, "gate", method="POST", json={"open": is_open}) is None


def a_body(size: int) -> tuple[bytes, list[Any]]:
    """Bytes, and what the far end has to say of them."""
    body = hashlib.shake_128(b"body").digest(size)
    return body, [size, hashlib.sha256(body).hexdigest()]


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["flow", "flow_through", "response", "response_through"])
def test_a_stream_flows_while_it_is_made_also_through_a_worker_that_has_ended(node: ANode, path: str) -> None:
    gate(node, is_open=False)
    with node.http.stream("GET", f"{node.ingress}/{path}", headers={"host": "near.localhost"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first "
        gate(node, is_open=True)
        assert b"".join(pieces) == b"last"
        if "response" in path:
            assert answer.status_code == 203
            assert answer.headers["x-through" if "through" in path else "x-a"]


def test_several_streams_come_in_one_value(node: ANode) -> None:
    assert ask(node, "nested") == ["one", "two"]


def test_a_stream_may_be_made_of_another_workers_stream(node: ANode) -> None:
    gate(node, is_open=True)
    assert ask(node, "changed") == "first first lastlast"


def test_a_request_with_a_stream_comes_back_from_a_method(node: ANode) -> None:
    assert ask(node, "request") == {
        "url": "https://example.com/p",
        "method": "PUT",
        "x": "2",
        "text": "asked in pieces",
    }


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["upload", "upload_through"])
def test_an_upload_of_ten_mebibytes_goes_on_as_an_argument(node: ANode, path: str) -> None:
    body, expected = a_body(10 * MIB)
    assert ask(node, path, method="POST", content=body) == expected


def test_a_stream_of_the_callers_own_goes_to_a_method(node: ANode) -> None:
    assert ask(node, "made")[0] == 4_000_000


def test_an_invocation_lasts_until_the_stream_that_it_lent_has_been_read(node: ANode) -> None:
    assert ask(node, "lent") == "answered"
    until(lambda: [size for size, _ in ask(node, "notes")] == [3_000_000], "all of it has arrived")


def test_a_stream_goes_there_is_changed_and_comes_back(node: ANode) -> None:
    assert ask(node, "there_and_back", method="POST", content=b"x" * 300_000) == "X" * 300_000


def test_requests_and_responses_with_streams_go_to_a_method(node: ANode) -> None:
    assert ask(node, "described", method="POST", content=b"y" * 100_000) == [
        {"kind": "Request", "x": "3", "text": "ab", "url": "https://example.com/q", "method": "PUT"},
        {"kind": "Response", "x": "4", "text": "cd", "status": 202},
        {
            "kind": "Request",
            "x": "5",
            "text": "y" * 100_000,
            "url": "http://near.localhost/described",
            "method": "POST",
        },
    ]


def test_what_was_sent_or_is_being_read_cannot_be_sent_again(node: ANode) -> None:
    first, locked, given, used = ask(node, "twice")
    assert first == 1
    assert locked[0] == given[0] == "TypeError"
    assert "locked to a reader" in locked[2] and "locked to a reader" in given[2]
    assert used[2] == "Body already used"


# -- back-pressure and ends -------------------------------------------------------------------------------------------


def test_no_more_is_made_than_the_reader_has_room_for(node: ANode) -> None:
    size, produced = ask(node, "one_piece")
    assert 0 < size <= produced <= MIB


def test_a_reader_that_leaves_or_ends_ends_the_stream_at_the_far_end(node: ANode) -> None:
    for path in ("left_early", "one_piece"):
        start = len(node.output.lines)
        assert ask(node, path)
        assert node.record(since=start, text="endless was ended")["worker"] == "far"


def test_a_stream_that_nobody_reads_is_cancelled_where_it_is_made(node: ANode) -> None:
    start = len(node.output.lines)
    assert ask(node, "never_read") is True
    assert node.record(since=start, text="cancel was called")["worker"] == "far"
    assert ask(node, "ignored") == "ignored"
    assert node.record(since=start, text="mine was cancelled")["worker"] == "near"


def test_an_argument_that_is_read_in_part_holds_nobody_up(node: ANode) -> None:
    assert ask(node, "half_read") == 1000


def test_a_stream_that_breaks_off_says_so_to_its_reader(node: ANode) -> None:
    broken, texts, died = ask(node, "broken")
    assert broken[0] == texts[0] == died[0] == "OSError"
    assert "out of paper" in broken[2]
    assert "The body broke off" in texts[2] and "The body broke off" in died[2]
    assert ask(node, "nested") == ["one", "two"]


def test_a_stream_ends_with_the_invocation_that_received_it(node: ANode) -> None:
    assert ask(node, "keep") == "kept"
    assert "not valid any more" in ask(node, "read_kept")[2]


def test_a_received_stream_can_be_divided(node: ANode) -> None:
    assert ask(node, "two_readers") == ["home", 4]


# -- lies -------------------------------------------------------------------------------------------------------------


def test_an_isolate_cannot_open_what_it_was_not_given(node: ANode) -> None:
    told, function, stream = ask(node, "forged")
    assert all("holds no stub" in text for text in told)
    assert "no stream behind this stub" in function[2]
    assert "is not a function" in stream[2]


# -- workflows --------------------------------------------------------------------------------------------------------


def test_a_step_sends_and_reads_streams(node: ANode) -> None:
    ended = node.ended("job", node.create("job", {"what": "in step"}))
    assert (ended["status"], ended["output"]) == ("complete", "IN A STEP")


def test_a_step_cannot_return_a_response_with_a_stream(node: ANode) -> None:
    ended = node.ended("job", node.create("job", {"what": "returned"}))
    assert ended["status"] == "errored"
    assert "not serialisable" in ended["error"]["message"]


def test_nothing_of_all_this_is_left_over(node: ANode) -> None:
    until(lambda: not any(isolate["load"] for isolate in node.system()["isolates"]), "every isolate at rest")
