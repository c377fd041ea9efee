"""Any value that can be sent comes back as its canonical form; any bytes are a value or an ``InvalidValueError``."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from workers._js import JsDict
from workers.rpc import python_from_rpc, python_to_rpc

from stellwerk.wire.values import InvalidValueError, decode, encode, from_jsonable, to_jsonable

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=20)
    | st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1))
)
hashables = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(
    scalars | st.sets(hashables, max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


def canonical(value: Any) -> Any:
    """What a value looks like after the journey, in a form that can be compared (NaN included)."""
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, (bytes, memoryview)):
        return ("binary", bytes(value))
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000_000) // 1000
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    return value


@given(values)
def test_a_value_comes_back_in_canonical_form(value: Any) -> None:
    back = decode(encode(value))
    assert canonical(back) == canonical(value)


@given(values)
def test_a_second_journey_changes_nothing(value: Any) -> None:
    once = encode(value)
    assert canonical(decode(encode(decode(once)))) == canonical(decode(once))


@given(values)
def test_the_mapping_changes_the_type_of_objects_only(value: Any) -> None:
    data = encode(value)
    assert canonical(decode(data, mapping=JsDict)) == canonical(decode(data))


@given(values)
def test_the_sdks_own_conversion_agrees_with_the_wire(value: Any) -> None:
    assert canonical(python_from_rpc(python_to_rpc(value))) == canonical(decode(encode(value)))


@given(values)
def test_every_value_can_be_shown_as_json(value: Any) -> None:
    json.dumps(to_jsonable(encode(value)), allow_nan=False)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts, st.lists, max_leaves=9)
)
def test_json_survives(value: Any) -> None:
    decode(from_jsonable(value))


@given(st.binary(max_size=200))
@example(b"\xc7\x00\x01")
@example(b"\xc7\x0c\xff" + bytes(12))
@example(b"\xd6\xff\xff\xff\xff\xff")
def test_garbage_is_a_value_or_an_invalid_value_error(data: bytes) -> None:
    mappings: list[type[dict[str, Any]]] = [dict, JsDict]
    for mapping in mappings:
        try:
            value = decode(data, mapping=mapping)
        except InvalidValueError:
            continue
        repr(value)


@given(values, st.data())
def test_a_damaged_value_is_a_value_or_an_invalid_value_error(value: Any, data: st.DataObject) -> None:
    damaged = bytearray(encode({"v": value}))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidValueError):
        decode(bytes(damaged), mapping=JsDict)
