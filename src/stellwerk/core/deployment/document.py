"""A configuration file as it was read: its data, and the line of each key.

Both readers (``jsonc.py``, ``toml.py``) end in a ``Document``, so that whatever looks at the values later can say
where the culprit stands. A *place* is the path of a key as people write it: ``services[0].binding``, ``env.dev.vars``.
``Table`` is how values are taken out: each method returns the type it names or raises a ``ConfigError`` with file,
line, key, what was found and what is expected.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stellwerk.core.errors import ConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_$-]+")
_SHOWN_MAX = 60  # characters of a found value that a message repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A file's text with the name that messages shall call it by. Reading it was somebody else's work."""

    file: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that a person should know and that stops nothing. ``code`` is stable, as an error's is."""

    code: str
    text: str
    file: str
    line: int = 0
    key: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        return ": ".join(part for part in (place, self.key, self.text) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One parsed file. ``lines`` has every key and every list item; ``repeated`` the keys that were written twice."""

    file: str
    data: dict[str, Any]
    lines: Mapping[str, int]
    repeated: tuple[str, ...] = ()

    def line_of(self, place: str) -> int:
        """The line of ``place``, or of the nearest thing around it; 0 when the file says nothing of it."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = parent(place)
        return 0

    def error(self, place: str, message: str, *, cure: str = "") -> ConfigError:
        return ConfigError(message, file=self.file, line=self.line_of(place), key=place, cure=cure)

    def notice(self, code: str, place: str, text: str) -> Notice:
        return Notice(code=code, text=text, file=self.file, line=self.line_of(place), key=place)


def child(place: str, key: str | int) -> str:
    """The place of ``key`` within ``place``. A key that is no plain word is quoted, so that places stay unambiguous."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    word = key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    return f"{place}.{word}" if place else word


def parent(place: str) -> str:
    """The place around ``place``: ``a.b[0]`` -> ``a.b`` -> ``a`` -> ``""``."""
    if place.endswith("]"):
        return place[: place.rindex("[")]
    if place.endswith('"'):  # a quoted key may hold dots and brackets: go back to the quote that opened it
        opening = _opening_quote(place)
        return place[: max(opening - 1, 0)]
    return place.rpartition(".")[0]


def _opening_quote(place: str) -> int:
    index = len(place) - 2
    while index > 0 and not (place[index] == '"' and _backslashes_before(place, index) % 2 == 0):
        index -= 1
    return index


def _backslashes_before(text: str, index: int) -> int:
    return index - len(text[:index].rstrip("\\"))


def describe(value: object) -> str:
    """What was found, in words that fit behind "found": ``the text "abc"``, ``a list``, ``the number 3``."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {_cut(json.dumps(value, ensure_ascii=False))}"
        case int() | float():
            return f"the number {_cut(repr(value))}"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, if any is close."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean "x"?``, or nothing when no known word is near."""
    found = nearest(word, known)
    return f'Did you mean "{found}"?' if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An object of a document, from which values are taken by type.

    ``places`` says where a key really stands when the table was laid together from several parts of the file (the top
    level and ``env.<name>``).
    """

    document: Document
    place: str
    data: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, key: str) -> str:
        return self.places.get(key) or child(self.place, key)

    def wrong(self, key: str, expected: str, *, cure: str = "") -> ConfigError:
        """The error for a value that is not what is expected."""
        found = f"found {describe(self.data[key])}" if key in self.data else "it is missing"
        return self.document.error(self.place_of(key), f"{found}, expected {expected}.", cure=cure)

    def text(self, key: str, expected: str = "a text") -> str | None:
        """The text of ``key``; None when it is absent. An empty text is refused: no key that we honour allows it."""
        if key not in self.data:
            return None
        value = self.data[key]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, expected)
        return value

    def required_text(self, key: str, expected: str = "a text") -> str:
        value = self.text(key, expected)
        if value is None:
            raise self.wrong(key, expected)
        return value

    def boolean(self, key: str) -> bool | None:
        value = self.data.get(key)
        if key in self.data and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, *, least: int, most: int) -> int | None:
        """A whole number within bounds (inclusive); None when absent. JSON's ``3.0`` is whole; TOML's as well."""
        if key not in self.data:
            return None
        value = self.data[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, float) and value.is_integer():
            value, whole = int(value), True
        if not whole or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least:,} to {most:,}")
        return int(value)

    def table(self, key: str) -> Table | None:
        """The object of ``key``; None when absent."""
        if key not in self.data:
            return None
        value = self.data[key]
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Table(document=self.document, place=self.place_of(key), data=value)

    def items(self, key: str, expected: str) -> list[Table]:
        """Each item of a list as a table with the one key ``value``, standing at ``key[n]``."""
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, f"a list of {expected}")
        place = self.place_of(key)
        return [
            Table(document=self.document, place=place, data={"value": item}, places={"value": child(place, index)})
            for index, item in enumerate(value)
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(item.required_text("value") for item in self.items(key, "texts"))

    def tables(self, key: str, expected: str) -> list[Table]:
        """The list of objects of ``key``; empty when absent."""
        found = [item.table("value") for item in self.items(key, expected)]
        return [table for table in found if table is not None]
