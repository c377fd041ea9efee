"""``env``: vars, service bindings, workflows; values over RPC (platform-semantics 1.6 and 1.7)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import js
import pytest
import workers
from pyodide.ffi import JsException, create_proxy
from tests.unit.sdk.a_host import AHost, installed, pieces, run
from workers import Request, Response, import_from_javascript, patch_env, python_from_rpc, python_to_rpc
from workers._host import ServiceRef, WorkflowRef
from workers.rpc import _BindingWrapper, _EnvWrapper, _FetcherWrapper, _RpcStubWrapper, _WorkflowWrapper, wrap_env


class Calculator:
    """Another Worker."""

    def add(self, a: int, b: int = 0, *, c: int = 0) -> int:
        return a + b + c

    def back(self, value: Any) -> Any:
        return value

    def kind(self, value: Any) -> str:
        return type(value).__name__

    def fetch_me(self) -> Response:
        return Response("from there", 201, headers={"x": "1"})


def a_host(**options: Any) -> AHost:
    bindings = {"CALC": ServiceRef("CALC"), "RUNS": WorkflowRef("RUNS"), "NAME": "x", "CONFIG": {"a": [{"b": 1}]}}
    return AHost(bindings, services={"CALC": Calculator()}, **options)


# -- env --------------------------------------------------------------------------------------------------------------


def test_vars_are_raw_and_objects_have_attributes() -> None:
    env = wrap_env(a_host().bindings)
    assert env.NAME == "x"
    assert env.CONFIG.a[0].b == 1
    assert env.CONFIG.to_py() == {"a": [{"b": 1}]}
    assert env.CALC is env.CALC
    assert isinstance(env.CALC, _FetcherWrapper) and isinstance(env.RUNS, _WorkflowWrapper)
    assert not hasattr(env, "OTHER")
    with pytest.raises(
        AttributeError, match=r"no binding 'OTHER'\. Declared in the configuration: CALC, CONFIG, NAME, RUNS"
    ):
        _ = env.OTHER


def test_env_is_wrapped_once() -> None:
    env = wrap_env({"A": 1})
    assert _EnvWrapper(env) is env is wrap_env(env)
    assert env._env == {"A": 1}


def test_module_level_names_are_looked_up_on_each_access() -> None:
    with installed(AHost({"A": 1})):
        assert workers.env.A == 1
        assert workers.env is workers.env
    with installed(AHost({"A": 2})):
        assert workers.env.A == 2
    with pytest.raises(RuntimeError, match="outside a Worker"):
        _ = workers.env
    with pytest.raises(AttributeError, match=r"^module 'workers' has no attribute 'nonsense'$"):
        _ = workers.nonsense


def test_patch_env_overlays_for_the_block() -> None:
    with installed(AHost({"A": 1, "B": 2})):
        with patch_env({"A": 3}, C=4):
            assert (workers.env.A, workers.env.B, workers.env.C) == (3, 2, 4)
            with patch_env([("A", 5)]):
                assert import_from_javascript("cloudflare:workers").env.A == 5
            assert workers.env.A == 3
        assert workers.env.A == 1
    with patch_env(A=1):
        assert workers.env.A == 1


def test_with_env_replaces_env_until_an_async_function_ends() -> None:
    async def main() -> None:
        module = import_from_javascript("cloudflare:workers")

        async def inside() -> Any:
            await asyncio.sleep(0)
            return workers.env.A, hasattr(workers.env, "B")

        with installed(AHost({"A": 1, "B": 2})):
            work = module.withEnv({"A": 9}, inside)
            assert workers.env.A == 1
            assert await work == (9, False)
            assert module.withEnv({"A": 8}, lambda: workers.env.A) == 8
            assert workers.env.A == 1

    run(main())


def test_only_two_javascript_modules_exist() -> None:
    assert import_from_javascript("cloudflare:sockets").connect
    for name in ("crypto", "internal:unsafe-eval", "cloudflare:vectorize"):
        with pytest.raises(ImportError, match=name):
            import_from_javascript(name)


def test_wait_until_takes_coroutines_and_futures_and_nothing_else() -> None:
    async def main() -> None:
        with installed(AHost()) as host:
            done: list[int] = []

            async def work() -> None:
                done.append(1)

            workers.waitUntil(work())
            workers.wait_until(asyncio.ensure_future(work()))
            await asyncio.gather(*host.waiting)
            assert done == [1, 1]
            with pytest.raises(TypeError, match="not int"):
                workers.wait_until(5)

    run(main())


# -- services ---------------------------------------------------------------------------------------------------------


def test_a_service_is_fetched_through_its_binding() -> None:
    async def main() -> None:
        with installed(a_host()) as host:
            env = workers.env
            response = await env.CALC.fetch("https://test.com/a", method="PUT", body="x", headers={"h": "1"})
            assert isinstance(response, Response)
            assert await response.text() == "PUT https://test.com/a"
            assert await (await env.CALC.fetch(Request("http://b"))).text() == "GET http://b/"
            assert await (await workers.fetch("http://c", fetcher=env.CALC)).text() == "GET http://c/"
            raw = await env.CALC._binding.fetch("http://d", {"method": "POST", "body": "x"})
            assert await raw.text() == "POST http://d/"
            assert [target for target, _ in host.requests] == ["CALC"] * 4
            assert host.requests[0][1].body == b"x"
            assert (b"h", b"1") in host.requests[0][1].headers
            with pytest.raises(TypeError, match=r"^fetch\(\) takes 1 positional argument but 2 were given$"):
                await env.CALC.fetch("http://a/", {"method": "POST"})

    run(main())


def test_any_other_name_is_a_method_of_the_other_worker() -> None:
    async def main() -> None:
        with installed(a_host()):
            calc = workers.env.CALC
            assert await calc.add(1, 2) == 3
            assert await calc.add(1, b=2, c=3) == 6
            assert await calc.back({"a": [1.0, None]}) == {"a": [1, None]}
            assert (await calc.back({"a": {"b": 1}})).a.b == 1
            assert await calc.kind(None) == "NoneType"
            assert await calc.kind(b"x") == "memoryview"
            with pytest.raises(AttributeError):
                _ = calc._private

    run(main())


def test_requests_and_responses_travel_over_rpc() -> None:
    async def main() -> None:
        with installed(a_host()):
            calc = workers.env.CALC
            response = await calc.fetch_me()
            assert isinstance(response, Response)
            assert (response.status, response.headers["x"], await response.text()) == (201, "1", "from there")
            request = await calc.back(Request("http://a", method="POST", body="x"))
            assert isinstance(request, Request)
            assert (request.url, await request.text()) == ("http://a/", "x")
            headers = await calc.back(js.Headers.new({"A": "1"}))
            assert headers.get("a") == "1"
            with pytest.raises(TypeError, match="stream cannot be sent over RPC yet"):
                await calc.back(Response(js.ReadableStream.new(pieces(b"x"))))

    run(main())


class Custom:
    def __repr__(self) -> str:
        return "Custom()"


def test_values_that_cannot_be_sent_are_refused_before_sending() -> None:
    async def main() -> None:
        with installed(a_host()):
            calc = workers.env.CALC
            with pytest.raises(TypeError, match=r"^<class 'tuple'> cannot be sent over RPC\.$"):
                await calc.back([(1, 2)])
            for value in (Custom(), 1j, range(3)):
                with pytest.raises(JsException, match=r"^DataCloneError") as caught:
                    await calc.back(value)
                assert caught.value.name == "DataCloneError"

    run(main())


def test_a_binding_is_true_and_neither_iterable_nor_sized() -> None:
    binding = wrap_env(a_host().bindings).CALC
    assert isinstance(binding, _BindingWrapper) and bool(binding)
    with pytest.raises(TypeError, match=r"^'Fetcher' object is not iterable$"):
        list(binding)
    with pytest.raises(TypeError, match=r"^'Fetcher' object has no len\(\)$"):
        len(binding)
    assert issubclass(_RpcStubWrapper, _BindingWrapper) and callable(_RpcStubWrapper(None))


# -- conversions without a wire ---------------------------------------------------------------------------------------


def test_python_to_rpc_and_back() -> None:
    moment = datetime(2025, 1, 2, 3, 4, 5, 678_912)
    value = {1: [None, 2.0, {"a": b"x"}], "s": {1}, "d": moment, "e": ValueError("no"), "m": js.Map.new([[1, 2]])}
    back = python_from_rpc(python_to_rpc(value))
    assert back["1"][:2] == [None, 2] and type(back["1"][1]) is int
    assert isinstance(back["1"][2].a, memoryview)
    assert (back.s, back.d.microsecond, type(back.e), str(back.e)) == ({1}, 678_000, Exception, "no")
    assert back.m == {"1": 2}
    assert type(python_to_rpc(Response("x"))) is js.Response


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1,), r"^<class 'tuple'> cannot be sent over RPC\.$"),
        ([bytearray(b"x")], r"^<class 'bytearray'> cannot be sent over RPC\.$"),
    ],
)
def test_python_to_rpc_refuses_as_the_wire_does(value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        python_to_rpc(value)


def test_functions_are_left_to_the_wire() -> None:
    assert python_to_rpc([len, print]) == [len, print]


def test_methods_of_dict_win_over_keys() -> None:
    value = python_from_rpc({"items": 1, "a": 2})
    assert callable(value.items) and value["items"] == 1 and value.a == 2
    value.b = 3
    assert value["b"] == 3
    del value.b
    assert not hasattr(value, "b")


# -- workflows --------------------------------------------------------------------------------------------------------


def answers(operation: str, args: dict[str, Any]) -> Any:
    if operation == "create_batch":
        return [{"id": each.get("id", "made")} for each in args["batch"]]
    if operation == "status":
        return {"status": "complete", "output": {"a": 1}, "error": None}
    return {"id": args.get("id", "made")} if operation in ("create", "get") else None


def test_a_workflow_makes_and_finds_instances() -> None:
    async def main() -> None:
        with installed(a_host(workflow=answers)) as host:
            runs = workers.env.RUNS
            assert (await runs.create(id="a", params={"x": 1.0})).id == "a"
            assert (await runs.create({"id": "b", "params": [None]})).id == "b"
            assert (await runs.create()).id == "made"
            assert [each.id for each in await runs.create_batch([{"id": "c"}, {"params": 1}])] == ["c", "made"]
            assert [each.id for each in await runs.createBatch([])] == []
            assert (await runs.get("d")).id == "d"
            assert host.operations == [
                ("RUNS", "create", {"id": "a", "params": {"x": 1}}),
                ("RUNS", "create", {"id": "b", "params": [None]}),
                ("RUNS", "create", {}),
                ("RUNS", "create_batch", {"batch": [{"id": "c"}, {"params": 1}]}),
                ("RUNS", "create_batch", {"batch": []}),
                ("RUNS", "get", {"id": "d"}),
            ]

    run(main())


def test_an_instance_is_asked_told_and_ended() -> None:
    async def main() -> None:
        with installed(a_host(workflow=answers)) as host:
            instance = await workers.env.RUNS.get("a")
            status = await instance.status()
            assert (status.status, status["output"].a, status.error) == ("complete", 1, None)
            await instance.send_event({"type": "shipped", "payload": {"n": 1}})
            await instance.sendEvent(type="shipped")
            await instance.terminate()
            assert host.operations[2:] == [
                ("RUNS", "send_event", {"id": "a", "type": "shipped", "payload": {"n": 1}}),
                ("RUNS", "send_event", {"id": "a", "type": "shipped", "payload": None}),
                ("RUNS", "terminate", {"id": "a"}),
            ]
            with pytest.raises(TypeError, match="'type'"):
                await instance.send_event({"payload": 1})
            for name in ("pause", "resume", "restart", "delete"):
                with pytest.raises(NotImplementedError, match=name):
                    await getattr(instance, name)()

    run(main())


def test_options_of_create_are_never_lost_in_silence() -> None:
    async def main() -> None:
        with installed(a_host(workflow=answers)) as host:
            with pytest.raises(TypeError, match="unknown option 'parms'"):
                await workers.env.RUNS.create(parms={})
            await workers.env.RUNS.create(retention={"successRetention": "1 day"})
            assert [level for level, _ in host.logged] == ["warn"]
            with pytest.raises(TypeError, match="<class 'tuple'> cannot be sent"):
                await workers.env.RUNS.create(params=(1,))
            with pytest.raises(JsException, match="DataCloneError"):
                await workers.env.RUNS.create(params=Custom())

    run(main())


def test_handler_wraps_what_old_style_handlers_get() -> None:
    @workers.handler
    def on_fetch(request: Any, env: Any) -> Any:
        return type(request), env.A

    assert on_fetch(js.Request.new("http://a"), {"A": 1}) == (Request, 1)
    assert create_proxy(on_fetch)(js.Request.new("http://a"), {"A": 2}) == (Request, 2)
