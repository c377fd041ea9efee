"""Which Worker answers a request: host and path in, a Worker's name out.

Patterns are Cloudflare's: ``example.com/api/*``, ``*.example.com/*`` (subdomains only), ``*example.com/*`` (any host
with that ending), a path without ``*`` matches exactly. The most specific pattern that matches wins: an exact host
before a wildcard, a longer ending before a shorter one, then the longer path. A scheme may be written and does not
matter: a node often stands behind something that ends TLS. Query strings are never looked at.

Beside the declared routes every Worker answers ``<worker>.localhost``, and one *default* Worker answers whatever no
route claims.

``RouteTable.match`` is on the path of every request, so a table is compiled once and never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.deployment.run_manifest import bound_workers
from stellwerk.core.errors import ConfigError
from stellwerk.core.ids import WorkerName

_SCHEME = re.compile(r"(?i:([a-z][a-z0-9+.-]*)://)")
_HOST = re.compile(r"[a-z0-9_.-]*")
_PATH = re.compile(r"[!$-)+-;=@-~%]*")  # visible ASCII without ? # * " < >


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePattern:
    """A validated pattern. ``host`` is lower case, and for a wildcard only what follows the ``*``."""

    host: str
    wildcard: bool
    path: str
    open_path: bool  # ended in "*": any continuation matches

    def __str__(self) -> str:
        return f"{'*' if self.wildcard else ''}{self.host}{self.path}{'*' if self.open_path else ''}"


def parse_pattern(text: str, *, custom_domain: bool = False) -> RoutePattern:
    """Read a route's pattern. Raises ``ConfigError`` (without a place: the caller knows it) that says what is wrong.

    A custom domain is a whole host: no path, no wildcard, as Cloudflare demands.
    """
    rest = text
    scheme = _SCHEME.match(text)
    if scheme:
        if scheme.group(1).lower() not in ("http", "https"):
            raise ConfigError(f'found the scheme "{scheme.group(1)}", expected http or https, or none.')
        rest = text[scheme.end() :]
    host, slash, path = rest.partition("/")
    if custom_domain:
        if "*" in rest:
            raise ConfigError(f'found "{text}": Wildcard operators (*) are not allowed in Custom Domains.')
        if slash:
            raise ConfigError(f'found "{text}": Paths are not allowed in Custom Domains.')
        path = "*"
    return _pattern(text, host.lower(), "/" + path)


def _pattern(text: str, host: str, path: str) -> RoutePattern:
    wildcard, open_path = host.startswith("*"), path.endswith("*")
    host, path = host.removeprefix("*"), path.removesuffix("*")
    if not host and not wildcard:
        raise ConfigError(f'found "{text}", expected a host: "example.com/path*".')
    if "*" in host or "*" in path:
        raise ConfigError(
            f'found "{text}": a wildcard (*) may only be the first character of the host and the last of the path.'
        )
    if ":" in host:
        raise ConfigError(f'found "{text}": a route has no port.')
    if not host.isascii():
        raise ConfigError(f'found "{text}": write the host in its ASCII form (xn--…).')
    if "?" in path or "#" in path:
        raise ConfigError(f'found "{text}": a route has no query and no fragment.')
    if not _HOST.fullmatch(host) or ".." in host or (host.startswith(".") and not wildcard):
        raise ConfigError(f'found "{text}", expected a host such as example.com or *.example.com.')
    if not _PATH.fullmatch(path):
        raise ConfigError(f'found "{text}": write other characters of the path percent-encoded (%20).')
    return RoutePattern(host=host, wildcard=wildcard, path=path, open_path=open_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """One line of the table of routes that people see."""

    pattern: str
    worker: WorkerName
    declared: bool  # False: "<worker>.localhost", which every Worker has


_PathRules = tuple[tuple[str, bool, WorkerName], ...]  # path, open, Worker; most specific first


class RouteTable:
    """Compiled routes. Make it with ``build_routes``."""

    __slots__ = ("_endings", "_exact", "default", "rows")

    def __init__(
        self,
        routes: Iterable[tuple[RoutePattern, WorkerName, bool]],
        *,
        default: WorkerName | None,
    ) -> None:
        self.default = default
        by_host: dict[tuple[bool, str], list[tuple[str, bool, WorkerName]]] = {}
        rows: list[RouteRow] = []
        for pattern, worker, declared in routes:
            by_host.setdefault((pattern.wildcard, pattern.host), []).append((pattern.path, pattern.open_path, worker))
            rows.append(RouteRow(pattern=str(pattern), worker=worker, declared=declared))
        self.rows = tuple(rows)
        self._exact: dict[str, _PathRules] = {
            host: _ordered(rules) for (wildcard, host), rules in by_host.items() if not wildcard
        }
        self._endings: tuple[tuple[str, _PathRules], ...] = tuple(
            (host, _ordered(rules))
            for (wildcard, host), rules in sorted(by_host.items(), key=lambda item: -len(item[0][1]))
            if wildcard
        )

    def match(self, host: str, path: str) -> WorkerName | None:
        """The Worker for ``host`` (a Host header, port allowed) and ``path`` (as sent, without the query).

        None when no route claims it and there is no default Worker.
        """
        rules = self._exact.get(host)
        if rules is None:  # a port, capitals, or a host without routes of its own
            host = host_name(host)
            rules = self._exact.get(host, ())
        for prefix, open_path, worker in rules:
            if path.startswith(prefix) if open_path else path == prefix:
                return worker
        for ending, rules in self._endings:
            if host.endswith(ending):
                for prefix, open_path, worker in rules:
                    if path.startswith(prefix) if open_path else path == prefix:
                        return worker
        return self.default


def _ordered(rules: list[tuple[str, bool, WorkerName]]) -> _PathRules:
    """Longest path first; of two equally long ones the exact one first."""
    return tuple(sorted(rules, key=lambda rule: (-len(rule[0]), rule[1])))


def host_name(host: str) -> str:
    """A Host header without its port and closing dot, in lower case. An IPv6 address keeps its brackets."""
    host = host.lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0].rstrip(".")


def build_routes(manifests: Iterable[Manifest]) -> RouteTable:
    """Compile the routes of the Workers that serve together.

    Raises ``ConfigError``, naming both, when two Workers claim the same pattern or both want to be the default.
    """
    workers = sorted(manifests, key=lambda manifest: manifest.name)
    default = default_worker(workers)
    claimed: dict[RoutePattern, tuple[WorkerName, bool]] = {}
    for manifest in workers:
        name = WorkerName(manifest.name)
        patterns = [
            (parse_pattern(route.pattern, custom_domain=route.custom_domain), True) for route in manifest.routes
        ]
        patterns.append((parse_pattern(f"{name}.localhost/*"), False))
        for pattern, declared in patterns:
            owner = claimed.setdefault(pattern, (name, declared))[0]
            if owner != name:
                raise ConfigError(
                    f'the Workers "{owner}" and "{name}" both claim the route {pattern}.',
                    key="routes",
                    cure="Take it from one of them.",
                )
    routes = ((pattern, name, declared) for pattern, (name, declared) in claimed.items())
    return RouteTable(routes, default=default)


def default_worker(manifests: Iterable[Manifest]) -> WorkerName | None:
    """The Worker that answers what no route claims.

    It is the one with ``default = true`` in its ``stellwerk.toml``; else the only Worker there is; else the only Worker
    that no other one binds (by ``services`` or ``workflows[].script_name``), since the head of a chain is what people
    call. If several are unbound, none is guessed. Raises ``ConfigError`` when two declare themselves.
    """
    workers = list(manifests)
    declared = sorted(manifest.name for manifest in workers if manifest.default)
    if len(declared) > 1:
        names = " and ".join(f'"{name}"' for name in declared)
        raise ConfigError(
            f"the Workers {names} all say default = true.",
            key="default",
            cure="Only one Worker can answer the requests that no route claims.",
        )
    if declared:
        return WorkerName(declared[0])
    if len(workers) == 1:
        return WorkerName(workers[0].name)
    bound = {item.worker for manifest in workers for item in bound_workers(manifest) if item.worker != manifest.name}
    heads = [manifest.name for manifest in workers if manifest.name not in bound]
    return WorkerName(heads[0]) if len(heads) == 1 else None
