"""From the texts of a Worker's configuration to its manifest.

Texts in, values out: whoever calls this has read the files. ``wrangler.jsonc``, ``.json`` or ``.toml`` says what
Cloudflare knows, ``stellwerk.toml`` the rest, ``.dev.vars`` the secrets of development. The first thing that cannot be
honoured raises ``ConfigError`` with file, line and key; what is odd but harmless comes back as a notice.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from stellwerk.core import limits
from stellwerk.core.deployment import declared
from stellwerk.core.deployment.document import Document, Notice, SourceText, Table, child
from stellwerk.core.deployment.dotenv import parse_dotenv
from stellwerk.core.deployment.environment import select_environment
from stellwerk.core.deployment.jsonc import parse_jsonc
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.deployment.settings import parse_settings, worker_settings
from stellwerk.core.deployment.toml import parse_toml
from stellwerk.core.deployment.wrangler_keys import WRANGLER_KEYS
from stellwerk.core.errors import ConfigError
from stellwerk.core.ids import is_worker_name

PYTHON_FLAG = "python_workers"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAIN_ENDING = "Main module needs to end with a .py file extension"  # Cloudflare's text
_JAVASCRIPT = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedWorker:
    """A Worker's manifest, what a person should be told, and where its bindings stand.

    ``lines`` maps ``services[0]``, ``workflows[1]``, ``routes[2]`` to lines of ``file``, in the environment in force.
    """

    manifest: Manifest
    warnings: tuple[Notice, ...]
    file: str
    lines: Mapping[str, int]


def parse_document(source: SourceText) -> Document:
    """Read a wrangler configuration, by the ending of its name: TOML, or else JSON with comments."""
    if source.file.endswith(".toml"):
        return parse_toml(source.text, source.file)
    return parse_jsonc(source.text, source.file)


def parse_worker(
    wrangler: SourceText,
    *,
    settings: SourceText | None = None,
    workspace_settings: SourceText | None = None,
    dev_vars: SourceText | None = None,
    environment: str | None = None,
    today: datetime.date | None = None,
) -> ParsedWorker:
    """Parse and validate everything that declares one Worker.

    ``settings`` is the ``stellwerk.toml`` beside it, ``workspace_settings`` the one with defaults; ``dev_vars`` is
    ``.dev.vars``, or ``.dev.vars.<environment>`` where that exists. With ``today`` (UTC) a compatibility date in the
    future is refused, as Cloudflare does. Raises ``ConfigError``.
    """
    document = parse_document(wrangler)
    notices = [
        document.notice("config.repeated_key", place, "this key is written twice; the last one counts.")
        for place in document.repeated
    ]
    top, lost = select_environment(document, environment)
    notices.extend(lost)
    _refuse_javascript(top)
    declared.check_keys(top, WRANGLER_KEYS, notices)
    values = declared.parse_vars(top)
    secrets = _secrets(dev_vars, declared.parse_required_secrets(top, notices), top, notices)
    services = declared.parse_services(top, notices)
    workflows = declared.parse_workflows(top, notices)
    taken = {name: child(top.place_of("vars"), name) for name in values}
    taken.update((name, f"{dev_vars.file}: {name}") for name in secrets if dev_vars)
    declared.check_binding_names(top, taken, services, workflows)
    _check_count(top, values, secrets)
    worker, default = worker_settings(
        parse_settings(settings) if settings else None,
        parse_settings(workspace_settings, workspace=True) if workspace_settings else None,
        wrangler=declared.parse_limits(top, notices),
    )
    manifest = Manifest(
        name=_name(top),
        main=_main(top),
        compatibility_date=_compatibility_date(top, today),
        compatibility_flags=_compatibility_flags(top),
        vars={name: value for name, value in values.items() if name not in secrets},  # the secret wins, as in wrangler
        secrets=secrets,
        services=services,
        workflows=workflows,
        routes=declared.parse_routes(top, notices),
        settings=worker,
        default=default,
    )
    return ParsedWorker(manifest=manifest, warnings=tuple(notices), file=wrangler.file, lines=_lines(top))


def _lines(top: Table) -> dict[str, int]:
    return {
        child(key, index): top.document.line_of(child(top.place_of(key), index))
        for key in ("services", "workflows", "routes")
        for index in range(len(top.data.get(key, ())))
    }


def _name(top: Table) -> str:
    name = top.required_text("name", "the Worker's name")
    if not is_worker_name(name):
        raise top.wrong("name", "at most 63 lower-case letters, digits, - and _, no - at the beginning")
    return name


def _refuse_javascript(top: Table) -> None:
    """Said before anything else: to a JavaScript Worker no other error matters."""
    text = top.data.get("main")
    if isinstance(text, str) and text.endswith(_JAVASCRIPT):
        message = f'found "{text}": Stellwerk runs Python Workers only. {_MAIN_ENDING}.'
        raise top.document.error(top.place_of("main"), message)


def _main(top: Table) -> str:
    """The main module's path below the Worker's folder, without ``./``."""
    text = top.required_text("main", "the path of the main module, such as src/entry.py")
    if not text.endswith(".py"):
        raise top.document.error(top.place_of("main"), f'found "{text}": {_MAIN_ENDING}.')
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text:
        raise top.wrong("main", "a path below the Worker's folder, with /")
    return str(path)


def _compatibility_date(top: Table, today: datetime.date | None) -> str:
    """Required: what a Worker means must not depend on the day of its deploy."""
    expected = 'a date in quotes such as "2026-01-31"'
    text = top.required_text("compatibility_date", expected)
    try:
        date = datetime.date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        date = None
    if date is None:
        raise top.wrong("compatibility_date", expected)
    if today is not None and date > today:
        raise top.wrong("compatibility_date", f"a date not after today, {today.isoformat()}")
    return text


def _compatibility_flags(top: Table) -> tuple[str, ...]:
    flags = top.texts("compatibility_flags")
    if PYTHON_FLAG not in flags:
        raise top.document.error(
            top.place_of("compatibility_flags"),
            f'the flag "{PYTHON_FLAG}" is missing; without it Cloudflare takes no Python module.',
            cure=f'Add "{PYTHON_FLAG}" to compatibility_flags.',
        )
    return flags


def _secrets(
    source: SourceText | None,
    required: tuple[str, ...],
    top: Table,
    notices: list[Notice],
) -> dict[str, str]:
    """The values of ``.dev.vars``. Messages name keys and sizes, never a value."""
    values, lines = parse_dotenv(source) if source else ({}, {})
    for name, value in values.items():
        size = len(value.encode())
        if source and size > limits.VAR_BYTES_MAX:
            message = f"found a value of {size:,} bytes, expected at most {limits.VAR_BYTES_MAX:,}."
            raise ConfigError(message, file=source.file, line=lines[name], key=name)
    for index, name in enumerate(required):
        if name not in values:
            place = child(child(top.place_of("secrets"), "required"), index)
            text = f'the secret "{name}" has no value; write it into .dev.vars, or set it with `secret put`.'
            notices.append(top.document.notice("config.secret_missing", place, text))
    return values


def _check_count(top: Table, values: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
    count = len(values.keys() | secrets.keys())
    if count > limits.VARS_MAX:
        message = f"found {count} vars and secrets, expected at most {limits.VARS_MAX}."
        raise top.document.error(top.place_of("vars"), message)
