"""The two readers: what a text means is held against ``json`` and ``tomllib``, and every key must have its line."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stellwerk.core.deployment.document import child, parent
from stellwerk.core.deployment.jsonc import parse_jsonc
from stellwerk.core.deployment.toml import parse_toml
from stellwerk.core.errors import ConfigError
from stellwerk.core.limits import CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)

FRAGMENTS = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "'",
        "\\",
        "//",
        "/*",
        "*/",
        "\n",
        " ",
        "null",
        "true",
        "1e5",
        "-",
        "0",
        ".",
        '"a"',
    ]
)


def places(value: Any, place: str = "") -> list[str]:
    """Every key and list item in ``value``, as places."""
    if isinstance(value, dict):
        pairs = [(child(place, key), item) for key, item in value.items()]
    elif isinstance(value, list):
        pairs = [(child(place, index), item) for index, item in enumerate(value)]
    else:
        return []
    return [found for here, item in pairs for found in [here, *places(item, here)]]


def fault(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_jsonc(text, "wrangler.jsonc")
    return caught.value


@given(OBJECTS, st.sampled_from([None, 0, 2]))
def test_plain_json_means_what_json_says(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=indent == 0)
    assert parse_jsonc(text, "f").data == json.loads(text)


@given(OBJECTS)
def test_every_key_and_item_has_a_line_that_holds_it(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    document = parse_jsonc(text, "f")
    assert set(document.lines) == set(places(value))
    rows = text.split("\n")
    for key in value:
        assert json.dumps(key) in rows[document.lines[child("", key)] - 1]


def commented(value: Any) -> str:
    """The value as JSON with comments wherever one may stand, and a comma behind everything."""
    if isinstance(value, dict):
        rows = [f'{json.dumps(key)} /* ": */ : {commented(item)}, // }}\n' for key, item in value.items()]
        return "{ // {{\n" + "".join(rows) + "/**/}"
    if isinstance(value, list):
        return "[ /* ] */" + "".join(f"{commented(item)} /* , */ ,\n" for item in value) + "// end\n]"
    return json.dumps(value)


@given(OBJECTS)
def test_comments_and_trailing_commas_change_nothing(value: dict[str, Any]) -> None:
    assert parse_jsonc("// head\n" + commented(value) + "\n/* end */ // end", "f").data == value


@given(st.text() | st.lists(FRAGMENTS).map("".join) | st.lists(FRAGMENTS).map(lambda parts: '{"a":' + "".join(parts)))
@example('{"a": 1e999}')
@example('{"a": ' + "9" * 5000 + "}")
@example('{"a": "\\ud800"}')
@example("[" * 10_000)
@example('{"a":' * 10_000)
@example("/*")
@example('{"a": 1_000}')
@example("\ufeff{}")
def test_any_text_is_read_as_json_or_refused_with_our_error(text: str) -> None:
    try:
        document = parse_jsonc(text, "f")
    except ConfigError as error:
        assert error.file == "f"
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert isinstance(document.data, dict)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('{\n "a": 1\n "b": 2\n}', 3, 'found a text, expected "," or "}"'),
        ('{\n "a" 1\n}', 2, 'expected ":"'),
        ('{\n "a": tru\n}', 2, 'found "tru", expected a value'),
        ("{\n a: 1\n}", 2, "expected a key in double quotes"),
        ("{\n 'a': 1\n}", 2, "expected a key in double quotes"),
        ('{\n "a": [1, 2\n', 3, 'expected "]"'),
        ('{\n "a": "x\n}', 2, "does not end on its line"),
        ('{\n "a": "\\x"\n}', 2, "JSON does not allow"),
        ('{\n "a": 01\n}', 2, "expected a number as JSON writes it"),
        ('{\n "a": NaN\n}', 2, "expected a value"),
        ('{\n /* no end\n "a": 1}', 2, "this comment has no end"),
        ('{"a": 1}\n}', 2, "behind the end"),
        ("\n[1]", 2, "expected an object"),
        ("", 1, "found the end of the text"),
        ('{"a": 1,, "b": 2}', 1, "expected a key"),
    ],
)
def test_an_error_says_the_line_and_what_is_expected(text: str, line: int, says: str) -> None:
    error = fault(text)
    assert error.line == line
    assert says in error.message


def test_a_key_written_twice_has_its_last_value_and_is_reported() -> None:
    document = parse_jsonc('{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}', "f")
    assert document.data == {"a": 3, "b": {"c": 2}}
    assert document.repeated == ("b.c", "a")


def test_nesting_and_size_have_limits() -> None:
    depth = CONFIG_DEPTH_MAX
    assert parse_jsonc('{"a":' * (depth - 1) + "{}" + "}" * (depth - 1), "f").data
    assert f"nested deeper than {depth}" in fault('{"a":' * depth + "{}" + "}" * depth).message
    assert "expected at most" in fault(" " * CONFIG_BYTES_MAX + "{}").message


def test_a_file_that_is_not_utf8_is_refused_with_its_line() -> None:
    error = fault(b'{\n"a": "\xff"}'.decode("utf-8", "surrogateescape"))
    assert (error.line, "not UTF-8" in error.message) == (2, True)


@given(st.lists(st.text(min_size=1) | st.integers(0, 99), min_size=1, max_size=5))
def test_the_parent_of_a_place_is_the_place_it_was_made_from(keys: list[str | int]) -> None:
    place = "top"
    for key in keys:
        below = child(place, key)
        assert parent(below) == place
        place = below


def test_a_missing_key_is_placed_at_what_is_around_it() -> None:
    document = parse_jsonc('{\n"a": [\n{"b": 1}\n]\n}', "f")
    assert document.line_of("a[0].c") == 3
    assert document.line_of("a[1]") == 2
    assert document.line_of("x") == 0


EXAMPLE = '''# a Worker
name = "a" # comment with [brackets]
vars.dotted."quoted.key" = """
two = "lines"
[not.a.table]
""" # end
list = [ # of things
  1, "]", # one
  { inner = 'x', "other" = [true] },
  [2, 3],
]

[[services]]
binding = "A"

[services.props]
deep = 1

[[services]]
binding = "B"
'literal key' = 1979-05-27T07:32:00Z

[env.staging]
vars = { X = "1" }

[[env.staging.services]]
binding = "C"
'''

EXPECTED = {
    "name": 2,
    "vars": 3,
    "vars.dotted": 3,
    'vars.dotted."quoted.key"': 3,
    "list": 7,
    "list[0]": 8,
    "list[1]": 8,
    "list[2]": 9,
    "list[2].inner": 9,
    "list[2].other": 9,
    "list[2].other[0]": 9,
    "list[3]": 10,
    "list[3][0]": 10,
    "list[3][1]": 10,
    "services": 13,
    "services[0]": 13,
    "services[0].binding": 14,
    "services[0].props": 16,
    "services[0].props.deep": 17,
    "services[1]": 19,
    "services[1].binding": 20,
    'services[1]."literal key"': 21,
    "env": 23,
    "env.staging": 23,
    "env.staging.vars": 24,
    "env.staging.vars.X": 24,
    "env.staging.services": 26,
    "env.staging.services[0]": 26,
    "env.staging.services[0].binding": 27,
}


def test_every_key_of_a_real_toml_file_has_its_line() -> None:
    document = parse_toml(EXAMPLE, "wrangler.toml")
    assert document.data == tomllib.loads(EXAMPLE)
    assert dict(document.lines) == EXPECTED
    assert dict(parse_toml(EXAMPLE.replace("\n", "\r\n"), "wrangler.toml").lines) == EXPECTED


_TEXTS = st.sampled_from(
    [
        '"a#]}"',
        "'b\"[,'",
        '"""c\n"quoted"\n"""',
        "'''d\n'e' #\n'''",
        '"\\"="',
        '""',
        "''",
        '""""""',
        '"""x"""""',
        "''''y'''",
    ]
)
_PLAIN = st.sampled_from(["1", "-2.5e3", "true", "1979-05-27", "1979-05-27 07:32:00", "inf", "0x1f"])
_BREAKS = st.sampled_from(["", " ", "\n", ' # note ] } "\n  '])


@st.composite
def _value(draw: st.DrawFn, keys: count[int], depth: int = 0) -> str:
    kinds = ["text", "plain", "list", "table"] if depth < 3 else ["text", "plain"]
    kind = draw(st.sampled_from(kinds))
    if kind == "list":
        items = [draw(_value(keys, depth + 1)) + draw(_BREAKS) for _ in range(draw(st.integers(0, 3)))]
        comma = draw(st.sampled_from(["", ","])) if items else ""
        return "[" + draw(_BREAKS) + ("," + draw(_BREAKS)).join(items) + comma + draw(_BREAKS) + "]"
    if kind == "table":
        pairs = [f"k{next(keys)} = {draw(_value(keys, depth + 1))}" for _ in range(draw(st.integers(0, 3)))]
        return "{ " + ", ".join(pairs) + " }"
    return draw(_TEXTS if kind == "text" else _PLAIN)


@st.composite
def _toml_texts(draw: st.DrawFn) -> str:
    """A TOML text in which each key is written with a number of its own."""
    keys = count()
    parts: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["pair", "dotted", "quoted", "table", "tables", "comment"]))
        key = f"k{next(keys)}"
        if kind == "comment":
            parts.append('# [x] = """')
        elif kind == "table":
            parts.append(f"  [ {key} . k{next(keys)} ] # [[no]]")
        elif kind == "tables":
            parts.extend([f"[[{key}]]", "", f"[[{key}]]", f"[[{key}]]"])
        else:
            name = {"pair": key, "dotted": f"{key} . k{next(keys)}", "quoted": f'"{key}"'}[kind]
            parts.append(f"{name} = {draw(_value(keys))}")
        parts.append(draw(st.sampled_from(["", "\n", "# note\n"])))
    return "\n".join(parts)


@given(_toml_texts())
def test_the_walk_finds_exactly_the_keys_that_tomllib_finds(text: str) -> None:
    document = parse_toml(text, "f")
    assert set(document.lines) == set(places(document.data))
    rows = text.split("\n")
    for place, line in document.lines.items():
        key = re.search(r"\.?(k\d+)$", place)
        if key:
            assert re.search(rf"\b{key.group(1)}\b", rows[line - 1]), place


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[a\n", 1), ("a = 1\n\nb = [1,\n\n", 3), ("a = '\n", 1)],
)
def test_what_is_not_toml_is_refused_with_a_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, "wrangler.toml")
    assert (caught.value.file, caught.value.line) == ("wrangler.toml", line)


@given(
    st.text()
    | st.lists(st.sampled_from(["a", "=", "[", "]", "{", "}", '"', "'", ".", "\n", "#", ",", "1", " "])).map("".join)
)
def test_any_text_is_read_as_toml_or_refused_with_our_error(text: str) -> None:
    try:
        document = parse_toml(text, "f")
    except ConfigError:
        return
    assert set(document.lines) == set(places(document.data))


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "[" * 100 + "]" * 100, "a = " + "9" * 5000]
)
def test_nesting_and_numbers_without_end_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_toml(text, "f")
