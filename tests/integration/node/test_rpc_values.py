"""What may go through a binding, and in which shape it arrives: every kind of value, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.node.kit import ANode, a_node, a_worker

FAR = '''
from workers import Blob, File, FormData, Request, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def echo(self, *args, **kwargs):
        """What came, and what the far end saw of it."""
        value = args[0] if args else kwargs
        return {"value": value, "type": type(value).__name__}

    async def nothing(self):
        pass

    async def send(self, what):
        return {
            "response": lambda: Response("answer", status=201, headers={"x-a": "1"}),
            "request": lambda: Request("https://example.com/p", method="POST", body="asked"),
            "blob": lambda: Blob(["blob"], content_type="text/x"),
            "file": lambda: File("file", filename="f.txt", content_type="text/plain"),
            "tuple": lambda: (1, 2),
            "nested tuple": lambda: {"deep": [(1, 2)]},
            "object": lambda: object(),
        }[what]()
'''

NEAR = """
import asyncio
from datetime import datetime

from workers import Blob, File, Request, Response, WorkerEntrypoint


class Strange:
    pass


async def awaitable():
    pass


WHEN = datetime(2026, 6, 1, 12, 30, 15, 123456)
VALUES = {
    "none": None, "true": True, "int": 42, "big": 2**53, "float": 1.5, "integral": 42.0, "text": "ünï☃",
    "list": [1, [2, None]], "dict": {"a": {"b": 1}, "none": None}, "keys": {1: "one", None: "null", 2.0: "two"},
    "set": {1, 2}, "bytes": b"\\x00\\xff", "view": memoryview(b"abc")[1:], "date": WHEN,
    "error": ValueError("the text"), "empty": {}, "empty list": [],
}
REFUSED = {
    "tuple": (1,), "bytearray": bytearray(b"x"), "nested": {"a": [bytearray(b"x")]}, "object": Strange(),
    "complex": 1j, "range": range(3), "huge": 2**70,
}


def shown(value):
    if isinstance(value, memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Exception):
        return str(value)
    if isinstance(value, set):
        return sorted(value)
    return value


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        verb, _, name = request.url.split("/", 3)[3].partition("/")
        return Response.json(await getattr(self, verb)(name.replace("%20", " ")))

    async def value(self, name):
        answer = await self.env.FAR.echo(VALUES[name])
        value = answer.value
        return {"far": answer["type"], "near": type(value).__name__, "value": shown(value)}

    async def refused(self, name):
        value = awaitable() if name == "awaitable" else REFUSED[name]
        try:
            await self.env.FAR.echo(value)
        except Exception as error:
            return {"raised": type(error).__name__, "message": str(error)}
        finally:
            if name == "awaitable":
                value.close()

    async def attributes(self, name):
        answer = (await self.env.FAR.echo({"deep": {"list": [{"x": 1}]}, "items": 2})).value
        return [answer.deep.list[0].x, answer["items"], callable(answer.items)]

    async def named(self, name):
        return (await self.env.FAR.echo(one=1, two=[2])).value

    async def nothing(self, name):
        return repr(await self.env.FAR.nothing())

    async def got(self, name):
        try:
            value = await self.env.FAR.send(name)
        except Exception as error:
            return {"raised": type(error).__name__, "message": str(error)}
        found = {"type": type(value).__name__, "text": await value.text()}
        for attribute in ("status", "url", "content_type", "name"):
            if hasattr(value, attribute):
                found[attribute] = getattr(value, attribute)
        return found

    async def given(self, name):
        made = {
            "response": lambda: Response("answer", status=201),
            "request": lambda: Request("https://example.com/p", method="POST", body="asked"),
            "blob": lambda: Blob(["blob"]),
            "file": lambda: File("file", filename="f.txt"),
        }[name]()
        answer = await self.env.FAR.echo(made)
        return [answer["type"], type(answer.value).__name__, await answer.value.text()]

    async def large(self, size):
        answer = await self.env.FAR.echo(bytes(int(size)))
        return len(answer.value)

    async def too_large(self, name):
        try:
            await self.env.FAR.echo(bytes(33 * 1024 * 1024))
        except Exception as error:
            return str(error)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("values")
    a_worker(workspace, "far", FAR)
    a_worker(workspace, "near", NEAR, services=[{"binding": "FAR", "service": "far"}])
    yield from a_node(workspace)


def ask(node: ANode, path: str) -> Any:
    answer = node.ask("near", f"/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("name", "arrives_as", "value"),
    [
        ("none", "NoneType", None),
        ("true", "bool", True),
        ("int", "int", 42),
        ("big", "int", 2**53),
        ("float", "float", 1.5),
        ("integral", "int", 42),
        ("text", "str", "ünï☃"),
        ("list", "list", [1, [2, None]]),
        ("dict", "JsDict", {"a": {"b": 1}, "none": None}),
        ("keys", "JsDict", {"1": "one", "null": "null", "2": "two"}),
        ("set", "set", [1, 2]),
        ("bytes", "memoryview", "00ff"),
        ("view", "memoryview", "6263"),
        ("date", "datetime", "2026-06-01T12:30:15.123000"),
        ("error", "Exception", "the text"),
        ("empty", "JsDict", {}),
        ("empty list", "list", []),
    ],
)
def test_a_value_goes_there_and_comes_back_in_cloudflares_shape(
    node: ANode, name: str, arrives_as: str, value: Any
) -> None:
    assert ask(node, f"value/{name}") == {"far": arrives_as, "near": arrives_as, "value": value}


@pytest.mark.parametrize(
    ("name", "raised", "message"),
    [
        ("tuple", "TypeError", "<class 'tuple'> cannot be sent over RPC."),
        ("bytearray", "TypeError", "<class 'bytearray'> cannot be sent over RPC."),
        ("nested", "TypeError", "<class 'bytearray'> cannot be sent over RPC."),
        ("awaitable", "TypeError", "Awaitable <class 'coroutine'> cannot be sent over RPC."),
        ("object", "JsException", "DataCloneError"),
        ("complex", "JsException", "DataCloneError"),
        ("range", "JsException", "DataCloneError"),
        ("huge", "JsException", "DataCloneError"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is_sent(node: ANode, name: str, raised: str, message: str) -> None:
    said = ask(node, f"refused/{name}")
    assert said["raised"] == raised
    assert message in said["message"]


def test_objects_are_read_by_attribute_and_by_key(node: ANode) -> None:
    assert ask(node, "attributes/") == [1, 2, True]


def test_arguments_by_name_stay_so_and_no_result_is_none(node: ANode) -> None:
    assert ask(node, "named/") == {"one": 1, "two": [2]}
    assert ask(node, "nothing/") == "None"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("response", {"type": "Response", "text": "answer", "status": 201, "url": ""}),
        ("request", {"type": "Request", "text": "asked", "url": "https://example.com/p"}),
        ("blob", {"type": "Blob", "text": "blob", "content_type": "text/x"}),
        ("file", {"type": "File", "text": "file", "content_type": "text/plain", "name": "f.txt"}),
    ],
)
def test_the_sdks_own_objects_come_back_from_a_method(node: ANode, name: str, expected: dict[str, Any]) -> None:
    assert ask(node, f"got/{name}") == expected


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("response", "Response", "answer"),
        ("request", "Request", "asked"),
        ("blob", "Blob", "blob"),
        ("file", "File", "file"),
    ],
)
def test_the_sdks_own_objects_go_to_a_method_and_back(node: ANode, name: str, kind: str, text: str) -> None:
    assert ask(node, f"given/{name}") == [kind, kind, text]


@pytest.mark.parametrize("name", ["tuple", "nested tuple", "object"])
def test_a_result_that_cannot_be_sent_is_an_error_at_the_call(node: ANode, name: str) -> None:
    said = ask(node, f"got/{name}")
    assert "tuple" in said["message"] if "tuple" in name else "DataCloneError" in said["message"]


def test_thirty_mebibytes_fit_and_more_is_refused_with_the_limit(node: ANode) -> None:
    assert ask(node, f"large/{30 * 1024 * 1024}") == 30 * 1024 * 1024
    assert str(32 * 1024 * 1024) in ask(node, "too_large/")
