"""User values <-> bytes: what may cross a process boundary or lie in a journal, and in which shape it comes back.

The model is Cloudflare's: a value travels as a JavaScript value would. ``None`` is null, integral floats come back as
ints, keys are text, bytes come back as a memoryview, dates have milliseconds and no time zone, an exception keeps its
text only. The bytes are msgpack with four extension types (see ``_SET`` and its neighbours; their numbers lie in
journals, so they are never reused).

This is the hottest code of a workflow step, hence its form: scalars skip everything, containers get one pass that
copies only where something has to change, and msgspec does the rest. What is integral or text is settled when encoding,
so that decoding has to look at containers only.

The SDK's own objects (Request, Response, Blob, ...) are unknown here. Their classes have a method ``__rpc_value__``
that answers ``(kind, content)``: an empty kind means "send ``content`` in my place", any other is carried along. The
receiving side's ``mapping`` type may have a static method ``__rpc_revive__(kind, content)`` that turns it back.

What can go to another process but not into a journal (functions, streams) is unknown here as well: ``encode_carrying``
asks its ``carry`` for such a ``(kind, content)`` first, and ``encode`` refuses them.
"""

from __future__ import annotations

import base64
import inspect
import struct
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stellwerk.core.errors import Fault, StellwerkError
from stellwerk.core.limits import VALUE_DEPTH_MAX

_SET: Final = 1  # content: msgpack array
_DATE: Final = 2  # content: milliseconds since the epoch, signed 64 bit
_ERROR: Final = 3  # content: the text, UTF-8
_OBJECT: Final = 4  # content: msgpack [kind, content] of an object of the SDK

_SAFE_INTEGER: Final = 2.0**53  # past it a JavaScript number no longer stands for one integer, so it stays a float
_AS_THEY_ARE: Final = frozenset((str, int, bool, type(None)))  # need no look when encoding
_FINAL: Final = frozenset((str, int, bool, type(None), float))  # need no look when decoding
_date = struct.Struct(">q")
# What bytes that are no value can raise on their way through msgspec, the extensions and the SDK's revivers.
_UNDECODABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    OSError,
    RecursionError,
    struct.error,
)


class NotSerialisableError(StellwerkError, TypeError):
    """A value that cannot cross a process boundary. Texts are Cloudflare's where they have one."""

    code = "value.not_serialisable"
    fault = Fault.USER
    http_status = 400


class ValueTooLargeError(StellwerkError, ValueError):
    """The encoded value is larger than its place allows."""

    code = "value.too_large"
    fault = Fault.USER
    http_status = 413

    def __init__(self, size: int, size_max: int) -> None:
        super().__init__(
            f"The value takes {size} bytes when serialised; at most {size_max} are allowed here.",
            cure="Store it elsewhere and pass a reference to it.",
        )
        self.size, self.size_max = size, size_max


class InvalidValueError(StellwerkError, ValueError):
    """Bytes that no encoder of ours has written."""

    code = "value.invalid"


Carry = Callable[[Any], tuple[str, Any] | None]
_carry: ContextVar[Carry | None] = ContextVar("carry", default=None)
_pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def encode(value: Any, *, size_max: int | None = None) -> bytes:
    """The bytes of ``value``. ``size_max`` is in bytes.

    Raises ``NotSerialisableError`` (a ``TypeError``) for what cannot be sent, as Cloudflare's RPC does, and
    ``ValueTooLargeError`` (a ``ValueError``). The value itself is never changed.
    """
    kind = type(value)
    if kind is dict:
        value = _prepared_dict(value, 0)
    elif kind not in _AS_THEY_ARE:
        value = _prepared(value, 0)
    try:
        data = _pack(value)
    except (OverflowError, UnicodeEncodeError) as error:
        raise _unpackable(error) from None
    if size_max is not None and len(data) > size_max:
        raise ValueTooLargeError(len(data), size_max)
    return data


def encode_carrying(value: Any, carry: Carry, *, size_max: int | None = None) -> bytes:
    """As ``encode``, for a message: of each object that is not plain data, ``carry`` is asked first."""
    token = _carry.set(carry)
    try:
        return encode(value, size_max=size_max)
    finally:
        _carry.reset(token)


def _unpackable(error: Exception) -> NotSerialisableError:
    if isinstance(error, OverflowError):
        return NotSerialisableError(
            "DataCloneError: an int of more than 64 bits could not be cloned.", cure="Send it as a string."
        )
    return NotSerialisableError(
        "DataCloneError: a str with a lone surrogate could not be cloned.",
        cure="Decode it with errors='replace', or send bytes.",
    )


def _prepared(value: Any, depth: int) -> Any:
    """``value`` as msgspec shall see it: itself where nothing has to change."""
    kind = type(value)
    if kind is dict:
        return _prepared_dict(value, depth)
    if kind is list:
        return _prepared_list(value, depth)
    if kind is float:
        return int(value) if value.is_integer() and -_SAFE_INTEGER < value < _SAFE_INTEGER else value
    if kind in _AS_THEY_ARE or kind is bytes:
        return value
    return _prepared_rare(value, kind, depth)


def _prepared_dict(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    if depth >= VALUE_DEPTH_MAX:
        raise _too_deep()
    changed = None
    for key, item in value.items():
        if type(key) is not str:
            return _rekeyed(value, depth)
        if type(item) in _AS_THEY_ARE:
            continue
        new = _prepared(item, depth + 1)
        if new is item:
            continue
        if changed is None:
            changed = dict(value)
        changed[key] = new
    return value if changed is None else changed


def _rekeyed(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    """Keys as JavaScript would write them. Later keys win where two become the same text."""
    return {_key_text(key): _prepared(item, depth + 1) for key, item in value.items()}


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, float) and key.is_integer():
        return str(int(key))
    return str(key)


def _prepared_list(value: list[Any], depth: int) -> list[Any]:
    if depth >= VALUE_DEPTH_MAX:
        raise _too_deep()
    changed = None
    for index, item in enumerate(value):
        if type(item) in _AS_THEY_ARE:
            continue
        new = _prepared(item, depth + 1)
        if new is not item:
            if changed is None:
                changed = list(value)
            changed[index] = new
    return value if changed is None else changed


def _too_deep() -> NotSerialisableError:
    return NotSerialisableError(
        f"DataCloneError: a value nested more than {VALUE_DEPTH_MAX} levels deep could not be cloned.",
        cure="Check that it does not contain itself.",
    )


def _prepared_rare(value: Any, kind: type, depth: int) -> Any:
    """Everything that is neither a plain container nor a plain scalar."""
    if isinstance(value, dict):
        return _prepared_dict(dict(value), depth)
    if isinstance(value, list):
        return _prepared_list(list(value), depth)
    if isinstance(value, (set, frozenset)):
        if depth >= VALUE_DEPTH_MAX:
            raise _too_deep()
        return _ext(_SET, _pack_inner([_prepared(item, depth + 1) for item in value]))
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, datetime):
        return _ext(_DATE, _date.pack(_milliseconds(value)))
    if isinstance(value, BaseException):
        return _ext(_ERROR, str(value).encode("utf-8", "replace"))
    if isinstance(value, str):  # also members of a StrEnum
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _prepared(float(value), depth)
    if isinstance(value, bytes):
        return bytes(value)
    return _prepared_object(value, kind, depth)


def _prepared_object(value: Any, kind: type, depth: int) -> Any:
    carry = _carry.get()
    described = carry(value) if carry is not None else None
    if described is None and (describe := getattr(kind, "__rpc_value__", None)) is not None:
        described = describe(value)
    if described is not None:
        if depth >= VALUE_DEPTH_MAX:
            raise _too_deep()
        name, content = described
        content = _prepared(content, depth + 1)
        return _ext(_OBJECT, _pack_inner([name, content])) if name else content
    if isinstance(value, (tuple, bytearray)):
        raise NotSerialisableError(f"{kind} cannot be sent over RPC.")
    if inspect.isawaitable(value):
        raise NotSerialisableError(f"Awaitable {kind} cannot be sent over RPC.")
    if callable(value) and not isinstance(value, type):
        raise NotSerialisableError(
            f"{kind} cannot be kept or sent from here: a function lives in the invocation that made it.",
            cure="Return data; functions go over calls between Workers only.",
        )
    # Not its repr: that is the program's own code, which may fail or never end.
    raise NotSerialisableError(f"DataCloneError: an object of {kind} could not be cloned.")


def _pack_inner(value: Any) -> bytes:
    try:
        return _pack(value)
    except (OverflowError, UnicodeEncodeError) as error:
        raise _unpackable(error) from None


def _ext(code: int, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, data)


def _milliseconds(moment: datetime) -> int:
    try:
        return round(moment.timestamp() * 1_000_000) // 1000
    except (OverflowError, OSError, ValueError):
        raise NotSerialisableError(f"DataCloneError: {moment!r} could not be cloned: no such time here.") from None


class _Codec:
    """Decodes into one mapping type. ``decoder`` is used for the whole, ``hook`` for what lies in extensions."""

    __slots__ = ("decoder", "mapping", "revive")

    def __init__(self, mapping: type[dict[str, Any]]) -> None:
        self.mapping = mapping
        self.revive: Callable[[str, Any], Any] = getattr(mapping, "__rpc_revive__", _Carried)
        self.decoder = msgspec.msgpack.Decoder(ext_hook=self.extension)

    def extension(self, code: int, data: memoryview) -> Any:
        if code == _DATE:
            return datetime.fromtimestamp(_date.unpack(data)[0] / 1000)  # naive local, as Cloudflare's SDK has it
        if code == _ERROR:
            return Exception(str(data, "utf-8"))
        if code not in (_SET, _OBJECT):
            raise ValueError(f"extension type {code} is unknown")
        inner = revived(self.decoder.decode(data), self.mapping)
        if code == _SET:
            return set(inner)
        name, content = inner
        return self.revive(name, content)

    def decode(self, data: bytes) -> Any:
        try:
            value = self.decoder.decode(data)
            return value if type(value) in _FINAL else revived(value, self.mapping)
        except _UNDECODABLE as error:
            raise InvalidValueError(f"These bytes are no value: {error}.") from None


class _Carried:
    """An object of the SDK, in a process that has no SDK. Keeps what it needs to be sent on."""

    __slots__ = ("content", "kind")

    def __init__(self, kind: str, content: Any) -> None:
        self.kind, self.content = kind, content

    def __rpc_value__(self) -> tuple[str, Any]:
        return self.kind, self.content


_codecs: dict[type[dict[str, Any]], _Codec] = {}
_plain = _codecs[dict] = _Codec(dict)


def decoder(mapping: type[dict[str, Any]]) -> Callable[[bytes], Any]:
    """What ``decode`` does, for one mapping."""
    codec = _codecs.get(mapping)
    if codec is None:
        codec = _codecs[mapping] = _Codec(mapping)
    return codec.decode


def decode(data: bytes, *, mapping: type[dict[str, Any]] = dict) -> Any:
    """The value in ``data``; objects become ``mapping``. Raises ``InvalidValueError`` (a ``ValueError``)."""
    return decoder(mapping)(data)


def revived(value: Any, mapping: type[dict[str, Any]]) -> Any:
    """What msgspec decoded, with ``mapping`` for dict and memoryview for bytes. Works in place where it can."""
    kind = type(value)
    if kind is dict:
        made = value if mapping is dict else mapping(value)
        for key, item in value.items():
            if type(item) not in _FINAL:
                made[key] = revived(item, mapping)
        return made
    if kind is list:
        for index, item in enumerate(value):
            if type(item) not in _FINAL:
                value[index] = revived(item, mapping)
        return value
    return memoryview(value) if kind is bytes else value


def to_jsonable(data: bytes, *, binary_as_text: bool = False) -> Any:
    """The value in ``data`` as JSON can say it, for the API and for people.

    Dates become ISO text (UTC), sets lists, exceptions ``{"name", "message"}``, NaN and infinities null, bytes base64
    or, with ``binary_as_text``, ``[Uint8Array(n bytes)]`` as Cloudflare's logs have it.
    """
    return _jsonable(decode(data), binary_as_text)


def _jsonable(value: Any, binary_as_text: bool) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None  # false for NaN and the infinities
    if isinstance(value, dict):
        return {_key_text(key): _jsonable(item, binary_as_text) for key, item in value.items()}
    if isinstance(value, (list, set)):
        return [_jsonable(item, binary_as_text) for item in value]
    if isinstance(value, memoryview):
        return f"[Uint8Array({len(value)} bytes)]" if binary_as_text else base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, Exception):
        return {"name": "Error", "message": str(value)}
    return f"[{value.kind}]" if isinstance(value, _Carried) else value


def _iso(moment: datetime) -> str:
    utc = datetime.fromtimestamp(moment.timestamp(), tz=UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}Z"


def from_jsonable(value: Any, *, size_max: int | None = None) -> bytes:
    """The bytes of what a JSON parser answered. Numbers are JavaScript's: a longer int becomes a float."""
    return encode(_from_json(value), size_max=size_max)


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**308 else (float("inf") if value > 0 else float("-inf"))
    return value
