"""Functions and RpcTargets over RPC: stubs, what they live by, what they end with, and who may not call them.

The rules are those of Cloudflare's RPC: a function stays where it is, its receiver calls it, and it lives until the
invocation that received it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.node.kit import DEADLINE_S, ANode, a_node, a_worker, until

LIMIT = 10_000

FAR = """
import asyncio
import functools
import os

from workers import RpcTarget, WorkerEntrypoint, wait_until

kept = []
noted = []


class Cart(RpcTarget):
    colour = "red"

    def __init__(self):
        self.items = []
        self.instance_function = lambda: 1

    def add(self, item, *, count=1):
        self.items += [item] * count
        return len(self.items)

    async def fail(self, text):
        raise ValueError(text)

    def lister(self):
        return lambda: self.items

    def _private(self):
        return 1

    @staticmethod
    def static():
        return 1


class Default(WorkerEntrypoint):
    total = 0

    async def counter(self):
        total = 0

        def count(n):
            nonlocal total
            total += n
            return total

        return count

    def _bound(self, n):
        self.total += n
        return self.total

    async def kinds(self):
        async def asynchronous(n):
            await asyncio.sleep(0)
            return n + 1

        return {
            "bound": self._bound, "lambda": lambda n: n + 1, "async": asynchronous,
            "partial": functools.partial(lambda a, b: a + b, 1), "builtin": abs,
        }

    async def cart(self):
        return Cart()

    async def failing(self):
        def fail(text):
            raise KeyError(text)

        return fail

    async def call(self, function, *args, **kwargs):
        return await function(*args, **kwargs)

    async def call_target(self, target, method, *args):
        return await getattr(target, method)(*args)

    async def call_all(self, given):
        return [await given.one(1), await given.many[0](2)]

    async def call_later(self, function):
        async def later():
            await asyncio.sleep(0)
            noted.append(await function(1))

        wait_until(later())

    async def notes(self):
        return list(noted)

    async def keep(self, function):
        kept.append(function)
        return await function(1)

    async def call_kept(self):
        return await kept.pop()(1)

    async def functions(self, count):
        return [lambda: 1] * count

    async def dying(self):
        return {"die": lambda: os._exit(1), "other": lambda: 1}

    async def release(self):
        return "the first"

    async def echo(self, value):
        return value

    async def bounce(self, back, depth):
        return await back(depth + 1)
"""

MIDDLE = """
from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def counter(self):
        return await self.env.FAR.counter()

    async def twice(self):
        count = await self.env.FAR.counter()

        async def twice(n):
            await count(n)
            return await count(n)

        return twice

    async def call(self, function, *args):
        return await function(*args)

    async def pass_on(self, function, *args):
        return await self.env.FAR.call(function, *args)
"""

NEAR = '''
import asyncio
import sys

from workers import Response, RpcTarget, WorkerEntrypoint
from workers.rpc import _RpcStubWrapper

kept = []
released = asyncio.Event()


class Mine(RpcTarget):
    def __init__(self):
        self.got = []

    def put(self, value):
        self.got.append(value)
        return len(self.got)


async def outcome(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return [type(error).__name__, getattr(error, "name", ""), str(error)]


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 3)[3]
        return Response.json(await getattr(self, name)())

    async def counts(self):
        count = await self.env.FAR.counter()
        return [await count(2), await count(1), await count(-5)]

    async def looks(self):
        count = await self.env.FAR.counter()
        found = [isinstance(count, _RpcStubWrapper), callable(count), bool(count)]
        for look in (len, iter):
            try:
                look(count)
            except TypeError as error:
                found.append(str(error))
        return found

    async def kinds(self):
        kinds = await self.env.FAR.kinds()
        return {name: await kind(1) for name, kind in kinds.items()}

    async def callbacks(self):
        got = []

        async def slow(a, *, b):
            got.append(a)
            return {"sum": a + b}

        return [
            await self.env.FAR.call(got.append, 1), await self.env.FAR.call(slow, 2, b=3),
            await self.env.FAR.call_all({"one": lambda n: n * 10, "many": [lambda n: n * 100]}), got,
        ]

    async def target_there(self):
        mine = Mine()
        return [await self.env.FAR.call_target(mine, "put", "x"), await self.env.FAR.call_target(mine, "put", "y"),
                mine.got]

    async def third(self):
        count = await self.env.FAR.counter()
        return [await self.env.MIDDLE.call(count, 5), await self.env.MIDDLE.pass_on(count, 5), await count(1)]

    async def own_passed_on(self):
        return await self.env.MIDDLE.pass_on(lambda n: n + 1, 1)

    async def through(self):
        count = await self.env.MIDDLE.counter()
        return [await count(1), await count(1)]

    async def closure(self):
        twice = await self.env.MIDDLE.twice()
        return [await twice(1), await twice(10)]

    async def home(self):
        function = await self.env.FAR.echo(lambda: "mine")
        return [isinstance(function, _RpcStubWrapper), await function()]

    async def cart(self):
        cart = await self.env.FAR.cart()
        first = [await cart.add("a"), await cart.add("b", count=2), await (await cart.lister())()]
        refused = [await outcome(getattr(cart, name)()) for name in
                   ("missing", "static", "colour", "items", "instance_function")]
        called = await outcome(cart())
        function = await self.env.FAR.counter()
        try:
            cart._private
        except AttributeError as error:
            private = str(error)
        return {"first": first, "refused": refused, "called": called, "private": private,
                "of function": await outcome(function.__getattr__("missing")())}

    async def errors(self):
        def mine(text):
            raise LookupError(text)

        failing = await self.env.FAR.failing()
        return [await outcome(failing("far")), await outcome((await self.env.FAR.cart()).fail("target")),
                await outcome(self.env.FAR.call(mine, "near")), await outcome(failing(object()))]

    async def later(self):
        await self.env.FAR.call_later(lambda n: "called")
        return "answered"

    async def notes(self):
        return await self.env.FAR.notes()

    async def keep_there(self):
        return await self.env.FAR.keep(lambda n: n)

    async def kept_there(self):
        return await outcome(self.env.FAR.call_kept())

    async def keep_here(self):
        kept.append(await self.env.FAR.counter())
        return await kept[0](1)

    async def kept_here(self):
        stub = kept.pop()
        return [await outcome(stub(1)), await outcome(self.env.FAR.call(stub, 1))]

    async def destroyed(self):
        count = await self.env.FAR.counter()
        count._binding.destroy()
        return await outcome(count(1))

    async def dying(self):
        far = await self.env.FAR.dying()
        return [await outcome(far.die()), await outcome(far.other()), await outcome(self.env.FAR.call(far.other))]

    async def too_many_at_once(self):
        return [await outcome(self.env.FAR.functions(10_001)), await outcome(self.env.FAR.echo([len] * 10_001))]

    async def too_many_held(self):
        held = []
        while True:
            got = await outcome(self.env.FAR.functions(4_000))
            if isinstance(got[0], str):
                break
            held += got
        return [len(held), got]

    async def forgotten(self):
        for _ in range(6):
            assert len(await self.env.FAR.functions(4_000)) == 4_000
        return "fine"

    async def more_than_invocations(self):
        held = [await self.env.FAR.counter() for _ in range(1_100)]
        return [len(held), await held[-1](1)]

    async def bounced(self):
        async def back(depth):
            return await self.env.FAR.bounce(back, depth)

        return await outcome(back(0))

    async def hold(self):
        """Holds a function of FAR's while FAR is deployed anew."""
        count = await self.env.FAR.counter()
        print("holding")
        await released.wait()
        return [await count(1), await self.env.FAR.release()]

    async def release(self):
        released.set()
        return await self.env.FAR.release()

    async def forged(self):
        """Calls stubs that nobody gave it, by their numbers, and passes them on."""
        messages, values = (sys.modules[f"stellwerk.wire.{name}"] for name in ("isolate", "values"))
        host = sys.modules["workers._host"].host()
        nothing = values.encode([[], {}])
        told = set()
        for number in range(-3, 200):
            for make in (
                lambda call: messages.StubCall(call, number, "", nothing),
                lambda call: messages.RpcCall(call, "FAR", "echo", nothing, stubs=[number * 2]),
            ):
                got = await outcome(host._outgoing.call(make))
                told.add(got[2] if isinstance(got, list) else "CALLED")
        return sorted(told)
'''

JOBS = """
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("jobs")


class Job(WorkflowEntrypoint):
    async def run(self, event, step):
        async def in_step():
            count = await self.env.FAR.counter()
            got = []
            await self.env.FAR.call(got.append, "called")
            return [await count(2), await count(1), *got]

        async def returned():
            return await self.env.FAR.counter()

        what = event.payload["what"]
        if what == "in step":
            return await step.do("one")(in_step)()
        if what == "returned":
            return await step.do("one")(returned)()
        if what == "received between steps":
            await self.env.FAR.counter()
        if what == "sent between steps":
            await self.env.FAR.call(lambda: 1)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("functions")
    one = "[limits]\nisolates_max = 1\n"  # they keep state in their modules
    far, middle = {"binding": "FAR", "service": "far"}, {"binding": "MIDDLE", "service": "middle"}
    a_worker(workspace, "far", FAR, toml=one)
    a_worker(workspace, "middle", MIDDLE, services=[far], toml=one)
    a_worker(workspace, "near", NEAR, services=[far, middle], toml=one)
    jobs = [{"binding": "JOB", "name": "job", "class_name": "Job"}]
    a_worker(workspace, "jobs", JOBS, services=[far], workflows=jobs)
    a_worker(workspace, "spy", NEAR, services=[far, middle], toml=one)
    yield from a_node(workspace)


def ask(node: ANode, path: str, worker: str = "near") -> Any:
    answer = node.ask(worker, f"/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- functions --------------------------------------------------------------------------------------------------------


def test_a_returned_function_keeps_its_state_between_calls(node: ANode) -> None:
    assert ask(node, "counts") == [2, 3, -2]


def test_a_stub_is_a_true_callable_and_neither_sized_nor_iterable(node: ANode) -> None:
    assert ask(node, "looks") == [
        *(True, True, True),
        "'RpcStub' object has no len()",
        "'RpcStub' object is not iterable",
    ]


def test_every_kind_of_function_can_be_returned(node: ANode) -> None:
    assert ask(node, "kinds") == {"bound": 1, "lambda": 2, "async": 2, "partial": 2, "builtin": 1}


def test_functions_can_be_arguments_also_deep_in_a_value(node: ANode) -> None:
    assert ask(node, "callbacks") == [None, {"sum": 5}, [10, 200], [1, 2]]


def test_a_stub_can_be_given_to_a_third_worker_and_is_the_same_function_there(node: ANode) -> None:
    assert ask(node, "third") == [5, 10, 11]


def test_a_function_of_the_caller_goes_on_to_a_third_worker(node: ANode) -> None:
    assert ask(node, "own_passed_on") == 2


def test_a_worker_may_return_a_stub_that_it_was_given(node: ANode) -> None:
    assert ask(node, "through") == [1, 2]


def test_an_invocation_lasts_while_what_it_returned_is_held(node: ANode) -> None:
    """The returned function uses a stub of the invocation that made it."""
    assert ask(node, "closure") == [2, 22]


def test_a_function_that_comes_home_is_called_like_any_other(node: ANode) -> None:
    assert ask(node, "home") == [True, "mine"]


def test_what_a_function_raises_is_carried_like_what_a_method_raises(node: ANode) -> None:
    far, target, near, refused = ask(node, "errors")
    assert far[0] == "KeyError" and "far" in far[2]
    assert (target[0], target[2]) == ("ValueError", "target")
    assert (near[0], near[2]) == ("LookupError", "near")
    assert refused[0] == "JsException" and "DataCloneError" in refused[2]


# -- RpcTarget --------------------------------------------------------------------------------------------------------


def test_public_methods_of_a_target_are_called_by_attribute_and_nothing_else_of_it(node: ANode) -> None:
    said = ask(node, "cart")
    assert said["first"] == [1, 3, ["a", "b", "b"]]
    names = ("missing", "static", "colour", "items", "instance_function")
    assert [refused[2] for refused in said["refused"]] == [f"Method {name} does not exist" for name in names]
    assert said["called"][0] == "TypeError" and "is not a function" in said["called"][2]
    assert said["private"] == "_private"
    assert said["of function"][2] == "Method missing does not exist"


def test_a_target_can_be_an_argument(node: ANode) -> None:
    assert ask(node, "target_there") == [1, 2, ["x", "y"]]


# -- how long they live -----------------------------------------------------------------------------------------------


def test_wait_until_may_still_call_what_the_method_was_given(node: ANode) -> None:
    assert ask(node, "later") == "answered"
    until(lambda: ask(node, "notes") == ["called"], "the function was called")


def test_a_stub_ends_with_the_invocation_that_received_it(node: ANode) -> None:
    assert ask(node, "keep_here") == 1
    for said in ask(node, "kept_here"):
        assert "not valid any more" in said[2]
    assert ask(node, "keep_there") == 1
    assert "not valid any more" in ask(node, "kept_there")[2]


def test_a_stub_can_be_let_go_by_hand(node: ANode) -> None:
    assert "not valid any more" in ask(node, "destroyed")[2]


def test_what_the_program_forgets_does_not_count(node: ANode) -> None:
    assert ask(node, "forgotten") == "fine"


def test_a_function_whose_isolate_has_ended_says_so(node: ANode) -> None:
    during, after, passed_on = ask(node, "dying")
    assert during[2].startswith("The Worker that was called ended")
    assert after[2].startswith("The Worker that has this function or stream ended")
    assert "ended" in passed_on[2]
    assert ask(node, "counts") == [2, 3, -2]


def test_an_isolate_that_is_replaced_lives_on_while_its_functions_are_held(tmp_path: Path) -> None:
    entry = a_worker(tmp_path, "far", FAR)
    services = [{"binding": name, "service": "far"} for name in ("FAR", "MIDDLE")]
    a_worker(tmp_path, "near", NEAR, services=services, toml="[limits]\nisolates_max = 1\n")
    with ANode(tmp_path) as node, ThreadPoolExecutor(1) as thread:
        holding = thread.submit(ask, node, "hold")
        node.record(worker="near", text="holding")
        entry.write_text(FAR.replace("the first", "the second"))
        node.record(worker="far", event=lambda text: "version 2 serves now" in text)
        assert ask(node, "release") == "the second"
        assert holding.result(DEADLINE_S) == [1, "the second"]


# -- workflows --------------------------------------------------------------------------------------------------------


def test_a_step_sends_and_receives_functions(node: ANode) -> None:
    ended = node.ended("job", node.create("job", {"what": "in step"}))
    assert (ended["status"], ended["output"]) == ("complete", [2, 3, "called"])


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("returned", "returned a value which is not serialisable"),
        ("received between steps", "lives until the end of the invocation that receives it"),
        ("sent between steps", "Send it from a step"),
    ],
)
def test_what_is_run_again_or_stored_refuses_functions(node: ANode, what: str, text: str) -> None:
    ended = node.ended("job", node.create("job", {"what": what}))
    assert ended["status"] == "errored"
    assert text in ended["error"]["message"]


# -- limits and lies --------------------------------------------------------------------------------------------------


def test_more_functions_than_an_isolate_may_give_away_are_refused_with_the_limit(node: ANode) -> None:
    for said in ask(node, "too_many_at_once"):
        assert str(LIMIT) in said[2]
    assert ask(node, "counts") == [2, 3, -2]


def test_more_stubs_than_an_isolate_may_hold_are_refused_and_its_end_frees_them(node: ANode) -> None:
    for _ in range(2):
        held, said = ask(node, "too_many_held")
        assert held == 8_000
        assert str(LIMIT) in said[2]


def test_functions_that_are_held_take_no_room_from_the_invocations_of_their_isolate(node: ANode) -> None:
    assert ask(node, "more_than_invocations") == [1_100, 1]


def test_functions_that_call_one_another_for_ever_end_with_the_limit_of_chained_calls(node: ANode) -> None:
    said = ask(node, "bounced")
    assert "16 Workers" in said[2]


def test_an_isolate_cannot_call_or_pass_on_what_it_was_not_given(node: ANode) -> None:
    told = ask(node, "forged", worker="spy")
    assert "CALLED" not in told
    assert all("holds no stub" in text for text in told)


def test_nothing_of_all_this_is_left_over(node: ANode) -> None:
    until(lambda: not any(isolate["load"] for isolate in node.system()["isolates"]), "every isolate at rest")
