"""``stellwerk.toml``: everything about a Worker that Cloudflare has no word for.

One file beside the Worker's ``wrangler.jsonc``, one at the workspace's root with defaults; the Worker's wins key by key
(a list is replaced, not joined). ``SETTINGS`` is the whole schema. Unlike in wrangler's file an unknown key is an
error: these keys are limits and walls, and one that is misspelt must not be open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stellwerk.core import limits
from stellwerk.core.deployment.document import Document, SourceText, Table, describe, did_you_mean
from stellwerk.core.deployment.manifest import WorkerSettings
from stellwerk.core.deployment.toml import parse_toml
from stellwerk.core.errors import ConfigError

Check = Callable[[Table, str], Any]
"""Takes the value of a key out of its table, or raises ``ConfigError``."""

ISOLATION_LEVELS = ("floor", "reduced", "strict")  # ascending
_PYTHON_VERSION = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?")
_EGRESS = re.compile(
    r"(\*\.)?[A-Za-z0-9_.-]+(/[0-9]{1,3})?(:[0-9]{1,5})?|\[?[0-9A-Fa-f:.]+\]?(/[0-9]{1,3})?(:[0-9]{1,5})?"
)
_DAY_MS = 24 * 3_600_000


def _whole(least: int, most: int) -> Check:
    return lambda table, key: table.integer(key, least=least, most=most)


def _flag(table: Table, key: str) -> bool | None:
    return table.boolean(key)


def _level(table: Table, key: str) -> str:
    value = table.required_text(key)
    if value not in ISOLATION_LEVELS:
        raise table.wrong(key, f"one of {', '.join(ISOLATION_LEVELS)}", cure=did_you_mean(value, ISOLATION_LEVELS))
    return value


def _python_version(table: Table, key: str) -> str:
    """A number would be read as one: 3.10 is 3.1."""
    value = table.data[key]
    if not isinstance(value, str) or not _PYTHON_VERSION.fullmatch(value):
        raise table.wrong(key, 'a version of Python in quotes, such as "3.12"')
    return value


def _egress(table: Table, key: str) -> tuple[str, ...]:
    expected = 'a host, address or network with or without a port: "db.internal:5432", "10.0.0.0/8"'
    for item in table.items(key, "hosts, addresses and networks"):
        text = item.required_text("value", expected)
        if not _EGRESS.fullmatch(text):
            cure = "Write the host alone, without scheme and path." if "/" in text else ""
            raise item.wrong("value", expected, cure=cure)
    return table.texts(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key: where it stands, which field of ``WorkerSettings`` it sets, how it is checked, what it is for."""

    table: str  # "" for the top level
    key: str
    field: str
    check: Check
    expected: str
    about: str
    workspace: bool = True  # may stand at the workspace's root

    @property
    def place(self) -> str:
        return f"{self.table}.{self.key}" if self.table else self.key


SETTINGS: tuple[Setting, ...] = (
    Setting(
        table="",
        key="default",
        field="default",
        check=_flag,
        expected="true or false",
        about="this Worker answers the requests that no route claims",
        workspace=False,
    ),
    Setting(
        table="limits",
        key="memory_mb",
        field="memory_mb",
        check=_whole(16, 65_536),
        expected="MiB, 16 to 65,536",
        about="resident memory of one isolate",
    ),
    Setting(
        table="limits",
        key="wall_ms",
        field="wall_ms",
        check=_whole(1, _DAY_MS),
        expected="milliseconds, 1 to 86,400,000",
        about="time that a request may take; when absent, as long as the client stays",
    ),
    Setting(
        table="limits",
        key="isolates_max",
        field="isolates_max",
        check=_whole(1, limits.ISOLATES_MAX),
        expected=f"1 to {limits.ISOLATES_MAX}",
        about="isolates of one version at the same time",
    ),
    Setting(
        table="limits",
        key="isolates_idle_s",
        field="isolates_idle_s",
        check=_whole(0, 86_400),
        expected="seconds, 0 to 86,400",
        about="an isolate without work is ended after this time",
    ),
    Setting(
        table="egress",
        key="allow",
        field="egress_allow",
        check=_egress,
        expected="hosts, addresses and networks",
        about="what the Worker may connect to beside public addresses",
    ),
    Setting(
        table="isolation",
        key="minimum",
        field="isolation_minimum",
        check=_level,
        expected=", ".join(ISOLATION_LEVELS),
        about="the node refuses to run the Worker behind lower walls",
    ),
    Setting(
        table="python",
        key="version",
        field="python_version",
        check=_python_version,
        expected='such as "3.12"',
        about="the interpreter; it must be installed",
    ),
    Setting(
        table="dependencies",
        key="allow_sdist",
        field="allow_sdist",
        check=_flag,
        expected="true or false",
        about="dependencies may be built from source, which runs their code",
    ),
)

_ELSEWHERE = {
    "limits.cpu_ms": 'It belongs in wrangler\'s file: "limits": {"cpu_ms": …}.',
    "limits.subrequests": 'It belongs in wrangler\'s file: "limits": {"subrequests": …}.',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSettings:
    """The keys that one file has, by field, checked."""

    values: Mapping[str, Any]


def parse_settings(source: SourceText, *, workspace: bool = False) -> DeclaredSettings:
    """Read a ``stellwerk.toml``. ``workspace``: it is the one with defaults for all Workers.

    Raises ``ConfigError`` with file, line and key for any key that is not in ``SETTINGS``, and for any wrong value.
    """
    document = parse_toml(source.text, source.file)
    top = Table(document=document, place="", data=document.data)
    _refuse_unknown(document, top)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        table = top.table(setting.table) if setting.table else top
        if table is None or setting.key not in table.data:
            continue
        if workspace and not setting.workspace:
            cure = "Write it into the stellwerk.toml beside that Worker's configuration."
            raise document.error(setting.place, "this is said of one Worker, not of all.", cure=cure)
        values[setting.field] = setting.check(table, setting.key)
    return DeclaredSettings(values=values)


def _refuse_unknown(document: Document, top: Table) -> None:
    tables = {setting.table for setting in SETTINGS if setting.table}
    top_keys = {setting.key for setting in SETTINGS if not setting.table}
    for key in top.data:
        if key in top_keys:
            continue
        if key not in tables:
            raise _unknown(document, top.place_of(key), key, sorted(tables | top_keys))
        table = top.table(key)
        known = [setting.key for setting in SETTINGS if setting.table == key]
        for name in table.data if table else ():
            if table is not None and name not in known:
                raise _unknown(document, table.place_of(name), name, known)


def _unknown(document: Document, place: str, key: str, known: list[str]) -> ConfigError:
    elsewhere = _ELSEWHERE.get(place) or _right_place(key)
    cure = elsewhere or did_you_mean(key, known) or f"Known here: {', '.join(known)}."
    return document.error(place, f"found the unknown key {describe(key).removeprefix('the text ')}.", cure=cure)


def _right_place(key: str) -> str:
    """A known key in the wrong table is the likeliest mistake of all."""
    for setting in SETTINGS:
        if setting.key == key:
            return f"It belongs under [{setting.table}]." if setting.table else "It belongs above the first [table]."
    return ""


def worker_settings(
    worker: DeclaredSettings | None,
    workspace: DeclaredSettings | None,
    *,
    wrangler: Mapping[str, Any],
) -> tuple[WorkerSettings, bool]:
    """The settings in force, and whether the Worker is the default one: Worker above workspace above built-in defaults.

    ``wrangler`` has the fields that wrangler's own ``limits`` set.
    """
    values: dict[str, Any] = {}
    values.update(workspace.values if workspace else {})
    values.update(worker.values if worker else {})
    values.update(wrangler)
    default = bool(values.pop("default", False))
    return WorkerSettings(**values), default


def render_settings_table() -> str:
    """The schema as Markdown, for the documentation."""
    built_in = WorkerSettings()
    parts = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for setting in SETTINGS:
        default = getattr(built_in, setting.field, False)
        shown = _shown(default)
        parts.append(f"| `{setting.place}` | {setting.expected} | {shown} | {setting.about} |")
    return "\n".join(parts) + "\n"


def _shown(value: object) -> str:
    if value in (None, ()):
        return "none"
    return "false" if value is False else str(value)
