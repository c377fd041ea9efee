"""TOML with the line of each key.

``tomllib`` decides what the text means, and whether it is TOML at all. It tells no positions, so a second, small pass
finds them: it knows just enough of the grammar (keys, headers, strings, brackets, comments) to walk a text that is
already known to be valid.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from stellwerk.core.deployment.document import Document, child
from stellwerk.core.deployment.jsonc import check_text
from stellwerk.core.errors import ConfigError
from stellwerk.core.limits import CONFIG_DEPTH_MAX

_LINE_IN_MESSAGE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+')
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^\']|\'(?!\'\'))*\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\r\n]+")  # numbers, dates, true and false


def parse_toml(text: str, file: str) -> Document:
    """Read ``text``. Raises ``ConfigError`` with the line that ``tomllib`` objects to."""
    check_text(text, file)
    text = text.removeprefix("\ufeff")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _translated(error, text, file) from None
    except (RecursionError, ValueError) as error:  # nesting without end; a number of thousands of digits
        raise ConfigError(f"this is not TOML that can be read: {error}.", file=file) from None
    finder = _LineFinder(text, file)
    finder.walk()
    return Document(file=file, data=data, lines=finder.lines)


def _translated(error: tomllib.TOMLDecodeError, text: str, file: str) -> ConfigError:
    message = str(error)
    found = _LINE_IN_MESSAGE.search(message)
    line = int(found.group(1)) if found and found.group(1) else text.rstrip().count("\n") + 1
    return ConfigError(f"this is not TOML: {_LINE_IN_MESSAGE.sub('', message)}.", file=file, line=line)


class _LineFinder:
    """Walks a valid text and notes the line of each key and list item."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.at = 0
        self.lines: dict[str, int] = {}
        self._lengths: dict[str, int] = {}  # of each list of tables, to number ``[[headers]]``
        self._line, self._counted_to = 1, 0

    def walk(self) -> None:
        table = ""
        self.skip()
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table, 1)
            self.skip()

    def header(self) -> str:
        """``[a.b]`` or ``[[a.b]]``: the place that the keys below it belong to."""
        line = self.line()
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        parts = self.key_parts()
        place = self.note("", parts[:-1], line)
        place = child(place, parts[-1])
        if many:
            index = self._lengths.get(place, 0)
            self._lengths[place] = index + 1
            self.lines.setdefault(place, line)
            place = child(place, index)
        self.lines.setdefault(place, line)
        self.at += 2 if many else 1
        return self.latest(place)

    def note(self, place: str, parts: list[str], line: int) -> str:
        """Note each part of a dotted key, unless it has been seen; the place of the last one."""
        for part in parts:
            place = child(place, part)
            self.lines.setdefault(place, line)
            place = self.latest(place)
        return place

    def latest(self, place: str) -> str:
        """Below the name of a list of tables, its last table is meant."""
        return child(place, self._lengths[place] - 1) if place in self._lengths else place

    def pair(self, table: str, depth: int) -> None:
        line = self.line()
        place = self.note(table, self.key_parts(), line)
        self.at += 1  # the "="
        self.blank()
        self.value(place, depth)

    def key_parts(self) -> list[str]:
        """A dotted key; stands on what follows it afterwards."""
        parts: list[str] = []
        while True:
            self.blank()
            token = _KEY_PART.match(self.text, self.at)
            if token is None:  # cannot be: tomllib read the same text
                raise ConfigError("found no key here.", file=self.file, line=self.line())
            parts.append(_unquoted(token.group()))
            self.at = token.end()
            self.blank()
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def value(self, place: str, depth: int) -> None:
        if depth > CONFIG_DEPTH_MAX:
            raise ConfigError(f"nested deeper than {CONFIG_DEPTH_MAX} levels.", file=self.file, line=self.line())
        if self.text.startswith("[", self.at):
            self.bracketed("]", place, depth)
        elif self.text.startswith("{", self.at):
            self.bracketed("}", place, depth)
        else:
            token = _TEXT.match(self.text, self.at) or _PLAIN.match(self.text, self.at)
            self.at = token.end() if token else self.at + 1

    def bracketed(self, closing: str, place: str, depth: int) -> None:
        """The items of a list, or the pairs of an inline table."""
        self.at += 1
        index = 0
        self.skip()
        while self.at < len(self.text) and not self.text.startswith(closing, self.at):
            if closing == "]":
                here = child(place, index)
                self.lines[here] = self.line()
                self.value(here, depth + 1)
            else:
                self.pair(place, depth + 1)
            index += 1
            self.skip()
            if self.text.startswith(",", self.at):
                self.at += 1
                self.skip()
        self.at += 1

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def line(self) -> int:
        """Counted onwards from the last answer, since the walk only ever goes forward."""
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line


def _unquoted(token: str) -> str:
    if token.startswith(("'", '"')):
        key: Any = next(iter(tomllib.loads(f"{token} = 0")))
        return str(key)
    return token
