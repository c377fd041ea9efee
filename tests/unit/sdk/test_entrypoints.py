"""Which classes a module exports, what may be called on them, and how handlers are called (2.1 and 2.2)."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import pytest
from pyodide.code import relaxed_call as pyodide_relaxed_call
from tests.unit.sdk.a_host import AHost, installed, run
from workers import DurableObject, WorkerEntrypoint, WorkflowEntrypoint
from workers._relaxed import relaxed_call
from workers.entrypoints import DurableObjectContext, ExecutionContext, exported_classes, rpc_methods
from workers.rpc import _EnvWrapper
from workers.workflows import NonRetryableError


class Mixin:
    def mixed(self) -> None: ...
    def hidden(self) -> None: ...


class Default(Mixin, WorkerEntrypoint):
    hidden = None  # type: ignore[assignment]

    def fetch(self) -> None: ...
    async def add(self) -> None: ...
    def _private(self) -> None: ...
    @staticmethod
    def static() -> None: ...
    @classmethod
    def of_class(cls) -> None: ...
    @property
    def prop(self) -> int:
        return 1


class Flow(WorkflowEntrypoint): ...


class Counter(DurableObject): ...


def a_module(**names: Any) -> ModuleType:
    module = ModuleType("entry")
    vars(module).update(names)
    return module


def test_strict_subclasses_are_exported_imported_ones_too() -> None:
    module = a_module(
        WorkerEntrypoint=WorkerEntrypoint,
        Default=Default,
        Flow=Flow,
        Counter=Counter,
        _Hidden=Flow,
        other=5,
        Mixin=Mixin,
    )
    assert exported_classes(module) == {
        "Default": (Default, "entrypoint"),
        "Flow": (Flow, "workflow"),
        "Counter": (Counter, "object"),
    }


def test_all_decides_where_it_is_given() -> None:
    module = a_module(__all__=["Flow", "_Counter"], Default=Default, Flow=Flow, _Counter=Counter)
    assert exported_classes(module) == {
        "Flow": (Flow, "workflow"),
        "_Counter": (Counter, "object"),
        "Counter": (Counter, "object"),
    }


def test_public_plain_methods_of_the_whole_ancestry_may_be_called() -> None:
    assert rpc_methods(Default) == ["add", "fetch", "mixed"]


def test_env_arrives_wrapped_once_and_an_init_without_super_works() -> None:
    env = {"A": 1}
    first = Default(ExecutionContext({"x": 1}), env)
    assert isinstance(first.env, _EnvWrapper) and first.env.A == 1
    assert Default(None, first.env).env is first.env
    assert first.ctx.props.x == 1

    class Bare(DurableObject):
        def __init__(self, state: Any, env: Any) -> None:
            self.state = state

    assert Bare("s", env).state == "s"


def test_the_context_of_an_object_is_wrapped_once() -> None:
    context = DurableObjectContext(ExecutionContext())
    assert DurableObjectContext(context) is context
    assert Counter(context, {}).ctx is context
    assert context.props is None and isinstance(context._ctx, ExecutionContext)


def test_wait_until_of_the_context_reaches_the_host() -> None:
    async def main() -> None:
        with installed(AHost()) as host:
            done: list[int] = []

            async def work() -> None:
                done.append(1)

            ctx = ExecutionContext()
            ctx.waitUntil(work())
            ctx.wait_until(work())
            ctx.passThroughOnException()
            for each in host.waiting:
                await each
            assert done == [1, 1]

    run(main())


class Handlers:
    def none(self) -> Any:
        return ()

    def one(self, a: Any) -> Any:
        return (a,)

    def default(self, a: Any, b: Any = None) -> Any:
        return a, b

    def any(self, *args: Any) -> Any:
        return args

    def keyword(self, a: Any, *, b: Any = 7) -> Any:
        return a, b


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("name", "got"), [("none", ()), ("one", (1,)), ("default", (1, 2)), ("any", (1, 2, 3)), ("keyword", (1, 7))]
)
def test_surplus_arguments_are_dropped(name: str, got: Any) -> None:
    for _ in range(2):  # the second time from the table
        assert relaxed_call(getattr(Handlers(), name), 1, 2, 3) == got


def test_a_decorator_does_not_hide_what_the_function_takes() -> None:
    assert relaxed_call(decorated(lambda a: a), 1, 2, 3) == 1


def test_missing_arguments_are_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        relaxed_call(Handlers().one)


def test_what_has_no_signature_gets_everything() -> None:
    assert relaxed_call(max, 1, 2, 3) == 3


def test_pyodides_variant_drops_keywords_too() -> None:
    assert pyodide_relaxed_call(lambda a, b=0: (a, b), 1, b=2, c=3) == (1, 2)
    assert pyodide_relaxed_call(lambda **k: k, 1, b=2) == {"b": 2}


def test_the_non_retryable_error_is_a_plain_exception() -> None:
    assert NonRetryableError.__mro__[1] is Exception
    assert NonRetryableError.__module__ == "workers.workflows"
