"""``.dev.vars``: secrets for development, one ``KEY=value`` a line, read as wrangler reads them (the dotenv dialect).

An unquoted value ends at ``#``; values in single quotes, double quotes or backticks may run over several lines; in
double quotes ``\\n`` and ``\\r`` are line breaks. Unlike dotenv, a line that means nothing is an error: a secret
that is quietly missing costs hours. Errors never repeat the line, since it may hold the secret.
"""

from __future__ import annotations

import re

from stellwerk.core.deployment.document import SourceText
from stellwerk.core.deployment.jsonc import check_text
from stellwerk.core.errors import ConfigError

_IGNORED = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<key>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:=|:[ \t])[ \t]*")
_QUOTED = re.compile(
    r"""(?:'(?P<single>(?:\\'|[^'])*)'|"(?P<double>(?:\\"|[^"])*)"|`(?P<back>(?:\\`|[^`])*)`)"""
    r"""[ \t]*(?:\#[^\n]*)?(?:\n|\Z)""",
)
_UNQUOTED = re.compile(r"(?P<value>[^#\n]*)(?:#[^\n]*)?(?:\n|\Z)")


def parse_dotenv(source: SourceText) -> tuple[dict[str, str], dict[str, int]]:
    """The values, and the line of each key. Of a key given twice, the last one counts. Raises ``ConfigError``."""
    check_text(source.text, source.file)
    text = source.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    at, line = 0, 1
    while at < len(text):
        ignored = _IGNORED.match(text, at)
        if ignored:
            end = ignored.end()
        else:
            key, value, end = _pair(text, at, source.file, line)
            values[key], lines[key] = value, line
        line += text.count("\n", at, end)
        at = end
    return values, lines


def _pair(text: str, at: int, file: str, line: int) -> tuple[str, str, int]:
    """Key, value and the position behind them."""
    head = _KEY.match(text, at)
    if head is None:
        raise ConfigError("this line is not KEY=value.", file=file, line=line, cure="Comments begin with #.")
    key = head["key"]
    if text[head.end() : head.end() + 1] not in ("'", '"', "`"):
        plain = _UNQUOTED.match(text, head.end())
        return (key, plain["value"].strip(), plain.end()) if plain else (key, "", len(text))
    quoted = _QUOTED.match(text, head.end())
    if quoted is None:
        message = "the value begins with a quote, but no such quote ends it, or more than a comment follows it."
        raise ConfigError(message, file=file, line=line, key=key)
    return key, _unquoted(quoted), quoted.end()


def _unquoted(quoted: re.Match[str]) -> str:
    double = quoted["double"]
    if double is not None:
        return double.replace("\\n", "\n").replace("\\r", "\r")
    return quoted["single"] if quoted["single"] is not None else quoted["back"]
