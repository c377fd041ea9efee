"""What a Worker's files say about its dependencies. Pure: text in, requirements and notices out.

Two files are read, and count together: ``pyproject.toml`` (``[project] dependencies`` and ``requires-python``) and
``requirements.txt`` (so a file that pins what the other names does what its author means). Dependency groups are for
development and are ignored.

Only named requirements, and direct https links to wheels, are accepted. A requirements file may also hold options for
the installer (``--no-binary``, ``-e .``, ``--index-url``): these come from whoever uploads the Worker, and would make
the node run a stranger's build script or ask a stranger's index, so they are refused by name. Which index is asked is
for the node's operator to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from stellwerk.core import limits
from stellwerk.core.errors import DependencyError

PYPROJECT = "pyproject.toml"
REQUIREMENTS = "requirements.txt"
VENDORED = "python_modules"

PROVIDED = frozenset({"workers-py", "workers-runtime-sdk", "webtypy"})
"""Cloudflare's SDK and tools: every isolate has our SDK already, under the same module names."""

_HASH_OPTION = re.compile(r"\s--hash=(sha256:[0-9a-f]{64})(?=\s|$)")
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What to install, one requirement a line, sorted, each once."""

    lines: tuple[str, ...] = ()
    vendored: bool = False  # the bundle brings a python_modules folder
    notices: tuple[str, ...] = ()  # sentences for the person who deploys


def read_requirements(files: Mapping[str, bytes], *, python_version: str) -> Requirements:
    """The requirements of the Worker with these ``files``, for a Python of ``python_version`` ("3.11.7").

    Raises ``DependencyError`` that names the file (and line) for anything it cannot honour.
    """
    found: list[str] = []
    notices: list[str] = []
    if PYPROJECT in files:
        found += _from_pyproject(_text(files, PYPROJECT), python_version, notices)
    if REQUIREMENTS in files:
        found += _from_requirements(_text(files, REQUIREMENTS))
    lines = sorted({line for line in found if not _is_provided(line, notices)})
    if len(lines) > limits.REQUIREMENTS_MAX:
        raise DependencyError(
            f"This Worker names {len(lines)} dependencies; it may name {limits.REQUIREMENTS_MAX}.",
            cure="Name only what the program itself imports; what those need is found by the installer.",
        )
    vendored = any(path.startswith(f"{VENDORED}/") for path in files)
    return Requirements(lines=tuple(lines), vendored=vendored, notices=tuple(dict.fromkeys(notices)))


def _text(files: Mapping[str, bytes], name: str) -> str:
    content = files[name]
    if len(content) > limits.REQUIREMENTS_BYTES_MAX:
        raise DependencyError(
            f"{name} has {len(content):,} bytes; it may have {limits.REQUIREMENTS_BYTES_MAX:,}.",
            cure="Name only what the program itself imports.",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DependencyError(f"{name} is not UTF-8 text: {error}.", cure="Save it as UTF-8.") from error


def _from_pyproject(text: str, python_version: str, notices: list[str]) -> Iterator[str]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DependencyError(f"{PYPROJECT} is not valid TOML: {error}.", cure="Correct the file.") from error
    project = _table(document, "project")
    if "dependencies" in (project.get("dynamic") or ()):
        notices.append(f'{PYPROJECT} says that its dependencies are "dynamic": nothing is installed for them.')
    if _table(_table(_table(document, "tool"), "uv"), "sources"):
        notices.append(f"[tool.uv.sources] in {PYPROJECT} is ignored: dependencies come from the package index.")
    _check_python(project.get("requires-python"), python_version, notices)
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise DependencyError(
            f"[project] dependencies in {PYPROJECT} is not a list of texts.", cure='Write it as ["name>=1", ...].'
        )
    return (_parse(item, PYPROJECT) for item in dependencies)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    return value if isinstance(value, dict) else {}


def _check_python(asked: object, have: str, notices: list[str]) -> None:
    if asked is None:
        return
    try:
        accepted = SpecifierSet(str(asked)).contains(have, prereleases=True)
    except InvalidSpecifier:
        notices.append(f"requires-python in {PYPROJECT} cannot be read: {asked!r}.")
        return
    if not accepted:
        notices.append(f"{PYPROJECT} asks for Python {asked}, but this Worker runs on Python {have}.")


def _from_requirements(text: str) -> Iterator[str]:
    for number, line in _logical_lines(text):
        yield _parse(line, f"{REQUIREMENTS}:{number}")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end in a backslash joined with the next, with the number of the first."""
    pending, first = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        if (pending + line).strip():
            yield first, (pending + line).strip()
        pending, first = "", 0
    if pending.strip():
        yield first, pending.strip()


def _parse(text: str, place: str) -> str:
    """One requirement in its normal form, with its hashes."""
    if text.startswith("-"):
        raise DependencyError(
            f"{place}: options are not accepted here: {text.split()[0]}.",
            cure="Name packages only. Which index is asked is set for the node, by UV_INDEX_URL and the like.",
        )
    hashes = _HASH_OPTION.findall(text)
    try:
        requirement = Requirement(_HASH_OPTION.sub("", text).strip())
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise DependencyError(
            f"{place}: {text[:100]!r} is not a requirement: {reason}.", cure='Write it as "name>=1.2".'
        ) from error
    _check_link(requirement, place)
    return " ".join([str(requirement), *(f"--hash={value}" for value in hashes)])


def _check_link(requirement: Requirement, place: str) -> None:
    if requirement.url is None:
        return
    link = urlsplit(requirement.url)
    if link.scheme != "https" or not link.path.endswith(".whl"):
        raise DependencyError(
            f"{place}: {requirement.name} comes from {requirement.url}, which is not an https link to a wheel.",
            cure="Name a version from the package index, or vendor it in python_modules/.",
        )


def _is_provided(line: str, notices: list[str]) -> bool:
    name = Requirement(line.split(" --hash=")[0]).name
    if canonicalize_name(name) not in PROVIDED:
        return False
    notices.append(f"{name} is not installed: every Worker has the SDK already.")
    return True
