"""What becomes of a user's value on its way through bytes. The rules are Cloudflare's RPC conversions."""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import Awaitable
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from workers._js import JsDict

from stellwerk.core.limits import VALUE_DEPTH_MAX
from stellwerk.wire.values import (
    InvalidValueError,
    NotSerialisableError,
    ValueTooLargeError,
    decode,
    encode,
    from_jsonable,
    to_jsonable,
)


def sent(value: Any, **options: Any) -> Any:
    return decode(encode(value), **options)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        42,
        -1,
        2**63 - 1,
        -(2**63),
        1.2345,
        math.inf,
        "",
        "grün",
        [],
        {},
        [1, None, "a"],
        {"a": {"b": [None]}},
    ],
)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = sent(value)
    assert back == value
    assert type(back) is type(value)


def test_integral_floats_come_back_as_ints_like_javascripts_numbers() -> None:
    back = sent({"a": 42.0, "b": [1.0, -0.0, 1.5], "c": True})
    assert back == {"a": 42, "b": [1, 0, 1.5], "c": True}
    assert [type(item) for item in (back["a"], *back["b"], back["c"])] == [int, int, int, float, bool]


def test_floats_past_the_integers_of_a_double_stay_floats() -> None:
    assert type(sent(1e300)) is float
    assert type(sent(2.0**53)) is float
    assert type(sent(2.0**53 - 1)) is int
    assert math.isnan(sent(math.nan))


def test_keys_become_text_as_javascript_writes_them() -> None:
    assert sent({1: "a"}) == {"1": "a"}
    assert sent({None: "c"}) == {"null": "c"}
    assert sent({True: "c", False: "d"}) == {"true": "c", "false": "d"}
    assert sent({2.0: "b", 2.5: "d"}) == {"2": "b", "2.5": "d"}


def test_bytes_and_memoryviews_come_back_as_memoryviews() -> None:
    back = sent({"a": b"abc", "b": [memoryview(b"abcdef")[::2]]})
    assert isinstance(back["a"], memoryview) and bytes(back["a"]) == b"abc"
    assert isinstance(back["b"][0], memoryview) and bytes(back["b"][0]) == b"ace"
    assert isinstance(sent(b"abc"), memoryview)


def test_sets_come_back_as_sets() -> None:
    assert sent({"s": {1, "a", 2.0}}) == {"s": {1, "a", 2}}
    assert sent(frozenset((1, 2))) == {1, 2}


def test_dates_have_milliseconds_and_come_back_naive_and_local() -> None:
    moment = datetime(2025, 11, 25, 12, 30, 15, 123_456)
    assert sent(moment) == datetime(2025, 11, 25, 12, 30, 15, 123_000)
    aware = datetime(2025, 11, 25, 12, 30, 15, 123_000, tzinfo=UTC)
    back = sent([aware])[0]
    assert back.tzinfo is None
    assert back.timestamp() == aware.timestamp()


def test_an_exception_keeps_its_text_only() -> None:
    back = sent({"e": KeyError("x")})["e"]
    assert type(back) is Exception
    assert str(back) == "'x'"


def test_subclasses_are_sent_as_what_they_are_below() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    back = sent({"a": Colour.RED, "b": Level.HIGH, "c": OrderedDict(x=1.0), Colour.RED: 1})
    assert back == {"a": "red", "b": 3, "c": {"x": 1}, "red": 1}
    assert type(back["a"]) is str and type(back["b"]) is int and type(back["c"]) is dict


def test_objects_become_the_mapping_that_is_asked_for_at_every_depth() -> None:
    back = sent({"a": [{"b": {"c": b"x"}}]}, mapping=JsDict)
    assert back.a[0].b.c == b"x"
    assert type(back) is type(back.a[0]) is type(back.a[0].b) is JsDict
    assert sent(back, mapping=JsDict) == back


def test_encoding_changes_nothing_in_the_value() -> None:
    inner: list[Any] = [1.0, b"x", memoryview(b"y"), {1: {2.0}}]
    value = {"a": inner, 5: 1.0}
    before = repr(value)
    encode(value)
    assert repr(value) == before
    assert value["a"] is inner


async def _nothing() -> None: ...


def _coroutine() -> Awaitable[None]:
    return _nothing()


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": [value]}])
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: (1, 2), "<class 'tuple'> cannot be sent over RPC."),
        (lambda: bytearray(b"x"), "<class 'bytearray'> cannot be sent over RPC."),
        (_coroutine, "Awaitable <class 'coroutine'> cannot be sent over RPC."),
    ],
)
def test_what_cannot_be_sent_is_refused_with_cloudflares_words(make: Any, text: str, wrap: Any) -> None:
    value = make()
    with pytest.raises(TypeError) as caught:
        encode(wrap(value))
    assert str(caught.value) == text
    if asyncio.iscoroutine(value):
        value.close()


def test_functions_are_refused_because_stubs_are_not_built() -> None:
    with pytest.raises(TypeError, match="lives in the invocation that made it"):
        encode({"f": lambda: 1})


class Custom:
    def __repr__(self) -> str:
        return "Custom()"


@pytest.mark.parametrize("value", [Custom(), Custom, 1j, range(3), object()])
def test_other_objects_are_a_data_clone_error(value: Any) -> None:
    with pytest.raises(NotSerialisableError) as caught:
        encode([value])
    assert str(caught.value).startswith("DataCloneError")
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_ints_of_more_than_64_bits_are_refused(value: int) -> None:
    for wrapped in (value, [value], {value}):
        with pytest.raises(NotSerialisableError, match="64 bits"):
            encode(wrapped)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(NotSerialisableError, match="surrogate"):
        encode({"a": "\ud800"})


def test_depth_has_a_limit_that_a_value_containing_itself_runs_into() -> None:
    value: list[Any] = []
    for _ in range(VALUE_DEPTH_MAX - 1):
        value = [value]
    assert sent(value) == value
    with pytest.raises(NotSerialisableError, match="levels deep"):
        encode([value])
    loop: dict[str, Any] = {}
    loop["me"] = loop
    with pytest.raises(NotSerialisableError, match="levels deep"):
        encode(loop)


def test_a_size_limit_is_kept_to_the_byte() -> None:
    data = encode("x" * 100)
    assert encode("x" * 100, size_max=len(data)) == data
    with pytest.raises(ValueTooLargeError) as caught:
        encode("x" * 100, size_max=len(data) - 1)
    assert isinstance(caught.value, ValueError)
    assert str(len(data)) in str(caught.value)


class Parcel:
    """As the SDK's classes do it."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __rpc_value__(self) -> tuple[str, Any]:
        return "Parcel", [self.content]


class Unpacking(dict[str, Any]):
    @staticmethod
    def __rpc_revive__(kind: str, content: Any) -> Any:
        assert kind == "Parcel"
        return Parcel(*content)


def test_an_object_of_the_sdk_is_carried_and_given_back() -> None:
    data = encode({"p": Parcel({"x": 1.0, "inner": Parcel(b"abc")})})
    outer = decode(data, mapping=Unpacking)["p"]
    assert outer.content["x"] == 1
    assert outer.content["inner"].content == b"abc"
    assert to_jsonable(data) == {"p": "[Parcel]"}


def test_an_object_of_the_sdk_passes_through_a_process_that_has_no_sdk() -> None:
    data = encode([Parcel(Parcel("x"))])
    again = encode(decode(data))
    assert decode(again, mapping=Unpacking)[0].content.content == "x"


def test_an_object_may_stand_for_a_plain_value() -> None:
    class Null:
        def __rpc_value__(self) -> tuple[str, Any]:
            return "", None

    assert sent({"a": Null()}) == {"a": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x01",
        b"\xd4\x63\x00",
        b"\xd4\x01\xc0",
        b"\xc7\x02\x01\x91\x90",
        b"\xd4\x02\x00",
        b"\xc7\x08\x02\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xd4\x03\xff",
        b"\xd4\x04\x01",
        b"\xc7\x02\x04\x91\x01",
        b"\x91" * 5000 + b"\xc0",
    ],
)
@pytest.mark.parametrize("mapping", [dict, JsDict])
def test_bytes_that_are_no_value_are_refused(data: bytes, mapping: type[dict[str, Any]]) -> None:
    with pytest.raises(InvalidValueError):
        decode(data, mapping=mapping)


def test_the_api_shows_values_as_json() -> None:
    moment = datetime(2025, 11, 25, 12, 30, 15, 120_000, tzinfo=UTC)
    value = {"d": moment, "b": b"\x00\xff", "s": {1}, "n": [math.nan, -math.inf, 1.5], "e": ValueError("no"), "x": None}
    shown = to_jsonable(encode(value))
    assert shown == {
        "d": "2025-11-25T12:30:15.120Z",
        "b": "AP8=",
        "s": [1],
        "n": [None, None, 1.5],
        "e": {"name": "Error", "message": "no"},
        "x": None,
    }
    json.dumps(shown, allow_nan=False)
    assert to_jsonable(encode([b"abc"]), binary_as_text=True) == ["[Uint8Array(3 bytes)]"]


def test_json_comes_in_with_javascripts_numbers() -> None:
    assert decode(from_jsonable({"a": [1, 2.0, 10**30], "b": None})) == {"a": [1, 2, 1e30], "b": None}
    assert decode(from_jsonable(json.loads("1e400"))) == math.inf
    assert decode(from_jsonable(-(10**400))) == -math.inf
    with pytest.raises(ValueTooLargeError):
        from_jsonable("x" * 100, size_max=10)
