"""``.dev.vars``: the dotenv dialect that wrangler reads, with errors where dotenv would shrug."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.deployment.document import SourceText
from stellwerk.core.deployment.dotenv import parse_dotenv
from stellwerk.core.errors import ConfigError


def values(text: str) -> dict[str, str]:
    return parse_dotenv(SourceText(file=".dev.vars", text=text))[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=x", "x"),
        ("A = x y \t", "x y"),
        ("  export A=x", "x"),
        ("A: x", "x"),
        ("A=", ""),
        ("A=x # note", "x"),
        ("A=x#note", "x"),
        ("A='x # y'", "x # y"),
        ('A="x # y" # note', "x # y"),
        ('A=`it\'s "x"`', 'it\'s "x"'),
        ('A="a\\nb\\rc"', "a\nb\rc"),
        ("A='a\\nb'", "a\\nb"),
        ('A="-----BEGIN\nkey=1\n#no note\n-----END"', "-----BEGIN\nkey=1\n#no note\n-----END"),
        ("A='two\nlines'", "two\nlines"),
        ('A="a \\" b"', 'a \\" b'),
        ("A=a=b==", "a=b=="),
        ("A=x\r\n", "x"),
        ("A=first\nA=last", "last"),
        ("\ufeffA=x", "x"),
        ("# note\n\n   # note\nA=x\n\n", "x"),
    ],
)
def test_a_value_is_read_as_wrangler_reads_it(text: str, value: str) -> None:
    assert values(text) == {"A": value}


def test_keys_know_their_lines_behind_values_of_several_lines() -> None:
    text = "# note\nA='1\n2\n3'\n\nB=x\r\nC=y"
    assert parse_dotenv(SourceText(file="f", text=text))[1] == {"A": 2, "B": 6, "C": 7}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=x\nhunter2\n", 2),
        ("\n\n=hunter2", 3),
        ("A='hunter2", 1),
        ('A=x\nB="hunter2" hunter2', 2),
        ("1A=hunter2", 1),
    ],
)
def test_a_line_without_meaning_is_an_error_that_does_not_repeat_it(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        values(text)
    assert (caught.value.file, caught.value.line) == (".dev.vars", line)
    assert "hunter2" not in str(caught.value)


@given(st.text() | st.lists(st.sampled_from(["A", "=", "'", '"', "`", "\\", "\n", "#", " ", "\r", ":"])).map("".join))
def test_any_text_is_read_or_refused_with_our_error(text: str) -> None:
    try:
        found = values(text)
    except ConfigError:
        return
    assert all(isinstance(value, str) for value in found.values())


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), st.text('ab #="\n'), max_size=4))
def test_what_single_quotes_hold_comes_back_as_it_was(expected: dict[str, str]) -> None:
    assert values("".join(f"{key}='{value}'\n" for key, value in expected.items())) == expected
