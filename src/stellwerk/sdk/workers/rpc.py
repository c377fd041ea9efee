"""Bindings: what the names in ``env`` are, and what values may go through them.

``env`` gives out vars and secrets as they are, and a wrapper for everything that reaches another Worker. A wrapper
holds a raw binding and asks the host; the host owns the wire.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from workers._host import RawRequest, RawResponse, ServiceRef, WorkflowRef, host
from workers._js import JsDict, JsException, JsNull, JsProxy, NotBuiltError, js_text, options_of, revivers
from workers._stubs import RpcStub, RpcTarget
from workers.fetch import fetch

_SCALARS = (str, int, type(None))
_SAFE_INTEGER = 2**53


def python_to_rpc(value: Any) -> Any:
    """The value as it would be sent: checked, copied, with bytes for every kind of buffer. ``TypeError`` for a tuple, a
    bytearray or an awaitable; ``JsException`` (DataCloneError) for objects of other classes. Functions stay themselves:
    what a stub stands for is settled when it is sent."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _SAFE_INTEGER else value
    if isinstance(value, dict):
        return JsDict({js_text(key): python_to_rpc(item) for key, item in value.items()})
    if isinstance(value, list):
        return [python_to_rpc(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {python_to_rpc(item) for item in value}
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, Exception):
        return Exception(str(value))
    if isinstance(value, _BindingWrapper):
        return value._binding
    if isinstance(value, JsNull):
        return None
    _refuse(value)
    return getattr(value, "js_object", value)


def _refuse(value: Any) -> None:
    if isinstance(value, (tuple, bytearray)):
        raise TypeError(f"{type(value)} cannot be sent over RPC.")
    if inspect.isawaitable(value):
        raise TypeError(f"Awaitable {type(value)} cannot be sent over RPC.")
    if (callable(value) and not isinstance(value, type)) or isinstance(value, (RpcTarget, RpcStub)):
        return
    if not hasattr(type(value), "__rpc_value__"):
        raise JsException(f"an object of {type(value)} could not be cloned.", name="DataCloneError")


def python_from_rpc(value: Any) -> Any:
    """What came over the wire, as a Worker's program sees it: JsDict, memoryview, ints for integral floats."""
    if isinstance(value, (str, bool, int, type(None))):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _SAFE_INTEGER else value
    if isinstance(value, dict):
        return JsDict({js_text(key): python_from_rpc(item) for key, item in value.items()})
    if isinstance(value, list):
        return [python_from_rpc(item) for item in value]
    if isinstance(value, set):
        return {python_from_rpc(item) for item in value}
    if isinstance(value, bytes):
        return memoryview(value)
    if isinstance(value, JsNull):
        return None
    if isinstance(value, RpcStub):
        return _RpcStubWrapper(value)
    describe = getattr(type(value), "__rpc_value__", None)
    if describe is None:
        return value
    kind, content = describe(value)
    return JsDict.__rpc_revive__(kind, content) if kind else python_from_rpc(content)


class _BindingWrapper:
    """Base of the wrappers. ``_binding`` is the raw binding; its class name is what errors show."""

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def _js_name(self) -> str:
        return type(self._binding).__name__

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"'{self._js_name()}' object is not iterable")

    def __len__(self) -> int:
        raise TypeError(f"'{self._js_name()}' object has no len()")

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def __repr__(self) -> str:
        return f"<{self._js_name()}>"


class _RpcStubWrapper(_BindingWrapper):
    """A function or an ``RpcTarget`` of another Worker. Calling it, or a method of it, gives an awaitable."""

    _binding: RpcStub

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return _call_stub(self._binding, "", *args, **kwargs)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(_call_stub, self._binding, name)


async def _call_stub(stub: RpcStub, method: str, /, *args: Any, **kwargs: Any) -> Any:
    try:
        return await host().stub_rpc(stub._held, method, list(args), kwargs)
    except TypeError as error:
        raise _as_clone_error(error) from None


def _revived_stub(place: Any) -> _RpcStubWrapper:
    return _RpcStubWrapper(RpcStub(host().received_stub(place)))


revivers["RpcStub"] = _revived_stub


class Fetcher(JsProxy):
    """A service binding as JavaScript has it: ``fetch(resource, init)``."""

    def __init__(self, ref: ServiceRef) -> None:
        self._ref = ref

    def _send(self, request: RawRequest) -> Awaitable[RawResponse]:
        return host().service_fetch(self._ref.binding, request)

    async def fetch(self, resource: Any, *init: Any, **options: Any) -> Any:
        return (await fetch(resource, fetcher=self, **options_of(init, options))).js_object


class _FetcherWrapper(_BindingWrapper):
    """A service binding: ``fetch``, and every other name is a method of the other Worker."""

    _binding: Fetcher

    def __init__(self, binding: Fetcher | ServiceRef) -> None:
        super().__init__(Fetcher(binding) if isinstance(binding, ServiceRef) else binding)
        # A partial, not a method: its complaint about a second positional argument must read as fetch's own.
        self.fetch = functools.partial(fetch, fetcher=self._binding)

    def _send(self, request: RawRequest) -> Awaitable[RawResponse]:
        return self._binding._send(request)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(_call, self._binding._ref.binding, name)


async def _call(binding: str, method: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of another Worker; keyword arguments travel as such."""
    try:
        return await host().service_rpc(binding, method, list(args), kwargs)
    except TypeError as error:
        raise _as_clone_error(error) from None


def _as_clone_error(error: TypeError) -> Exception:
    text = str(error)
    if not text.startswith("DataCloneError: "):
        return TypeError(text)  # of no class of the platform's own: its name is shown, and carried on
    return JsException(text.removeprefix("DataCloneError: "), name="DataCloneError")


class WorkflowImpl(JsProxy):
    """A workflow binding as JavaScript has it. Its name is Cloudflare's."""

    def __init__(self, ref: WorkflowRef) -> None:
        self._ref = ref


async def _workflow(ref: WorkflowRef, operation: str, args: dict[str, Any]) -> Any:
    try:
        return await host().workflow(ref.binding, operation, args)
    except TypeError as error:
        raise _as_clone_error(error) from None


_CREATE_OPTIONS = frozenset(("id", "params"))
_CREATE_IGNORED = frozenset(("retention", "locationHint"))


def _create_args(options: dict[str, Any]) -> dict[str, Any]:
    args: dict[str, Any] = {}
    for name, value in options.items():
        if name in _CREATE_IGNORED:
            host().log("warn", f"Workflow create: the option {name!r} has no effect in this release.")
        elif name not in _CREATE_OPTIONS:
            raise TypeError(f"Workflow create: unknown option {name!r}; known are 'id' and 'params'.")
        elif value is not None:
            args[name] = value
    return args


class _WorkflowWrapper(_BindingWrapper):
    """``env.MY_WORKFLOW``: makes and finds instances."""

    _binding: WorkflowImpl

    def __init__(self, binding: WorkflowImpl | WorkflowRef) -> None:
        super().__init__(WorkflowImpl(binding) if isinstance(binding, WorkflowRef) else binding)

    async def create(self, *given: Any, **options: Any) -> _WorkflowInstanceWrapper:
        """``create(id=, params=)`` or ``create({"id": ..., "params": ...})``. Returns when the instance is on disk; an
        id that this workflow has had before is refused."""
        args = _create_args(options_of(given, options))
        made = await _workflow(self._binding._ref, "create", args)
        return _WorkflowInstanceWrapper(self._binding, made["id"])

    async def create_batch(self, batch: list[Any]) -> list[_WorkflowInstanceWrapper]:
        """At most 100 at once. As Cloudflare does, ids that exist already are left out of the answer."""
        args = {"batch": [_create_args(options_of((options,), {})) for options in batch]}
        made = await _workflow(self._binding._ref, "create_batch", args)
        return [_WorkflowInstanceWrapper(self._binding, each["id"]) for each in made]

    async def get(self, id: str) -> _WorkflowInstanceWrapper:
        """The instance with this id. Raises an error that begins with ``(instance.not_found)`` if there is none."""
        found = await _workflow(self._binding._ref, "get", {"id": id})
        return _WorkflowInstanceWrapper(self._binding, found["id"])

    createBatch = create_batch


class WorkflowInstance(JsProxy):
    """The raw side of an instance."""

    def __init__(self, workflow: WorkflowImpl, id: str) -> None:
        self._workflow, self.id = workflow, id


class _WorkflowInstanceWrapper(_BindingWrapper):
    """One instance of a workflow."""

    _binding: WorkflowInstance

    def __init__(self, workflow: WorkflowImpl, id: str) -> None:
        super().__init__(WorkflowInstance(workflow, id))

    @property
    def id(self) -> str:
        return self._binding.id

    async def _do(self, operation: str, **args: Any) -> Any:
        return await _workflow(self._binding._workflow._ref, operation, {"id": self.id, **args})

    async def status(self) -> Any:
        """``status``, ``output`` and ``error``, by attribute or key."""
        return python_from_rpc(await self._do("status"))

    async def terminate(self, *_options: Any, **_named: Any) -> None:
        await self._do("terminate")

    async def send_event(self, *given: Any, **options: Any) -> None:
        """``send_event({"type": ..., "payload": ...})``. Returns when the event is on disk."""
        event = options_of(given, options)
        kind = event.get("type")
        if not isinstance(kind, str):
            raise TypeError("send_event needs an object with a 'type' (text) and, if wanted, a 'payload'.")
        await self._do("send_event", type=kind, payload=event.get("payload"))

    sendEvent = send_event

    async def pause(self, *_options: Any, **_named: Any) -> None:
        raise _not_built("pause")

    async def resume(self, *_options: Any, **_named: Any) -> None:
        raise _not_built("resume")

    async def restart(self, *_options: Any, **_named: Any) -> None:
        raise _not_built("restart")

    async def delete(self, *_options: Any, **_named: Any) -> None:
        raise _not_built("delete")

    def __repr__(self) -> str:
        return f"<WorkflowInstance {self.id}>"


def _not_built(operation: str) -> NotBuiltError:
    return NotBuiltError(
        f"{operation}() of a workflow instance is not built yet. terminate() and create() with a new id are."
    )


def _wrapped(value: Any) -> Any:
    """A binding as the program sees it."""
    if isinstance(value, (ServiceRef, Fetcher)):
        return _FetcherWrapper(value)
    if isinstance(value, (WorkflowRef, WorkflowImpl)):
        return _WorkflowWrapper(value)
    return python_from_rpc(value) if type(value) in (dict, list) else value


class _EnvWrapper:
    """``env``: one attribute per binding. Wrapping twice gives the same object."""

    _env: Mapping[str, Any]

    def __new__(cls, env: Any) -> _EnvWrapper:
        if isinstance(env, _EnvWrapper):
            return env
        made = super().__new__(cls)
        made.__dict__["_env"] = env
        return made

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._env[name]
        except KeyError:
            if name.startswith("__"):
                raise AttributeError(name) from None
            declared = ", ".join(sorted(self._env)) or "none"
            raise AttributeError(f"env has no binding {name!r}. Declared in the configuration: {declared}.") from None
        wrapped = self.__dict__[name] = _wrapped(value)
        return wrapped

    def __dir__(self) -> list[str]:
        return sorted(self._env)


def wrap_env(env: Mapping[str, Any] | _EnvWrapper) -> _EnvWrapper:
    """``env`` for a program, from the host's raw values."""
    return _EnvWrapper(env)
