"""JSON with comments and trailing commas, read so that the line of each key is known.

The grammar is JSON's (RFC 8259) plus ``// …``, ``/* … */`` and a comma before a closing bracket: what wrangler accepts.
``json`` cannot be used because it forgets positions. Whatever is wrong becomes a ``ConfigError`` with its line.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

from stellwerk.core.deployment.document import Document, child
from stellwerk.core.errors import ConfigError
from stellwerk.core.limits import CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_DIGITS_MAX = 400  # of one number; int() itself gives up at some thousands, with an error that nobody understands


def parse_jsonc(text: str, file: str) -> Document:
    """Read ``text`` as an object. Raises ``ConfigError`` with the line of the first thing that is amiss."""
    check_text(text, file)
    reader = _Reader(text.removeprefix("\ufeff"), file)
    data = reader.document()
    return Document(file=file, data=data, lines=reader.lines, repeated=tuple(reader.repeated))


def check_text(text: str, file: str) -> None:
    """Refuse what no reader should see: a file far too large, or one that was not UTF-8."""
    if len(text) > CONFIG_BYTES_MAX:
        raise ConfigError(f"the file has {len(text):,} characters, expected at most {CONFIG_BYTES_MAX:,}.", file=file)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError("found a byte that is not UTF-8.", file=file, line=line) from None


class _Reader:
    """One pass over one text. ``at`` is where it stands; each method leaves it behind what it read."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.at = 0
        self.lines: dict[str, int] = {}
        self.repeated: list[str] = []
        self._line_ends = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> dict[str, Any]:
        self.skip()
        if not self.text.startswith("{", self.at):
            raise self.error(f"found {self.next_words()}, expected an object: {{ … }}.")
        data = self.object_("", 1)
        self.skip()
        if self.at < len(self.text):
            raise self.error(f"found {self.next_words()} behind the end of the object.")
        return data

    def value(self, place: str, depth: int) -> Any:
        if depth > CONFIG_DEPTH_MAX:
            raise self.error(f"nested deeper than {CONFIG_DEPTH_MAX} levels.", place)
        start = self.text[self.at : self.at + 1]
        if start == "{":
            return self.object_(place, depth)
        if start == "[":
            return self.list_(place, depth)
        if start == '"':
            return self.string(place)
        if start and start in "-0123456789":
            return self.number(place)
        word = _WORD.match(self.text, self.at)
        if word and word.group() in _WORDS:
            self.at = word.end()
            return _WORDS[word.group()]
        raise self.error(f"found {self.next_words()}, expected a value.", place)

    def object_(self, place: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while self.more("}", place):
            line = self.line()
            if not self.text.startswith('"', self.at):
                raise self.error(f'found {self.next_words()}, expected a key in double quotes or "}}".', place)
            key = self.string(place)
            here = child(place, key)
            if key in found:
                self.repeated.append(here)
            self.lines[here] = line
            self.skip()
            if not self.text.startswith(":", self.at):
                raise self.error(f'found {self.next_words()}, expected ":" behind the key.', here)
            self.at += 1
            self.skip()
            found[key] = self.value(here, depth + 1)
            self.separator("}", place)
        return found

    def list_(self, place: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while self.more("]", place):
            here = child(place, len(found))
            self.lines[here] = self.line()
            found.append(self.value(here, depth + 1))
            self.separator("]", place)
        return found

    def more(self, closing: str, place: str) -> bool:
        """Whether an item follows; steps over the closing bracket if not."""
        self.skip()
        if self.at >= len(self.text):
            raise self.error(f'the text ends here, expected "{closing}".', place)
        if self.text.startswith(closing, self.at):
            self.at += 1
            return False
        return True

    def separator(self, closing: str, place: str) -> None:
        """Step over the comma behind an item. Behind the last one it may be missing, or be there."""
        self.skip()
        if self.text.startswith(",", self.at):
            self.at += 1
        elif self.at < len(self.text) and not self.text.startswith(closing, self.at):
            raise self.error(f'found {self.next_words()}, expected "," or "{closing}".', place)

    def string(self, place: str) -> str:
        token = _STRING.match(self.text, self.at)
        if token is None:
            raise self.error("this text in double quotes does not end on its line.", place)
        try:
            found: str = json.loads(token.group())
            found.encode()  # half of a surrogate pair cannot be stored or sent
        except ValueError:
            message = f"{token.group()[:60]} has an escape or a character that JSON does not allow."
            raise self.error(message, place) from None
        self.at = token.end()
        return found

    def number(self, place: str) -> int | float:
        token = _NUMBER.match(self.text, self.at)
        if token is None or _WORD.match(self.text, token.end()) or self.text[token.end() : token.end() + 1].isdigit():
            raise self.error(f"found {self.next_words()}, expected a number as JSON writes it.", place)
        if len(token.group()) > _DIGITS_MAX:
            raise self.error(f"this number has more than {_DIGITS_MAX} digits.", place)
        whole = token.group(1) is None and token.group(2) is None
        found = int(token.group()) if whole else float(token.group())
        if found in (float("inf"), float("-inf")):
            raise self.error(f"the number {token.group()[:60]} is too large.", place)
        self.at = token.end()
        return found

    def skip(self) -> None:
        """Step over white space and comments."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.text.startswith("/*", self.at):
            raise self.error('this comment has no end, expected "*/".')

    def line(self) -> int:
        return bisect_right(self._line_ends, self.at - 1) + 1

    def next_words(self) -> str:
        if self.at >= len(self.text):
            return "the end of the text"
        if self.text[self.at] == '"':
            return "a text"
        word = _WORD.match(self.text, self.at)
        return json.dumps(word.group()[:40] if word else self.text[self.at], ensure_ascii=False)

    def error(self, message: str, place: str = "") -> ConfigError:
        return ConfigError(message, file=self.file, line=self.line(), key=place)
