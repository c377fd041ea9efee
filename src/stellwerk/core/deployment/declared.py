"""The honoured keys that hold more than one value: services, workflows, routes, limits, vars.

Each function takes the table of keys in force and returns what the manifest says, or raises ``ConfigError`` with the
place of the culprit. Keys inside these objects are held against ``NESTED_KEYS``, as the top level is against
``WRANGLER_KEYS``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stellwerk.core import limits
from stellwerk.core.deployment.document import Notice, Table, child, describe, did_you_mean
from stellwerk.core.deployment.manifest import Route, ServiceBinding, WorkflowBinding
from stellwerk.core.deployment.routing import parse_pattern
from stellwerk.core.deployment.wrangler_keys import NESTED_KEYS, KeyRule, State, asks_for_nothing
from stellwerk.core.errors import ConfigError
from stellwerk.core.ids import is_workflow_name

UNKNOWN_KEY = "config.unknown_key"
WITHOUT_EFFECT = "config.without_effect"


def check_keys(table: Table, rules: Mapping[str, KeyRule], notices: list[Notice]) -> None:
    """Hold a table's keys against their rules: unknown ones are warned about, refused ones raise, the rest is fine.

    All keys without effect are said in one notice.
    """
    silent: list[str] = []
    for key, value in table.data.items():
        rule = rules.get(key)
        place = table.place_of(key)
        if rule is None:
            hint = did_you_mean(key, rules)
            notices.append(table.document.notice(UNKNOWN_KEY, place, f"unknown key, not looked at. {hint}".strip()))
        elif rule.state is State.REFUSED and not asks_for_nothing(value):
            raise _refusal(table, rules, key)
        elif rule.state is State.WITHOUT_EFFECT and not rule.quiet:
            silent.append(key)
    if silent:
        said = ", ".join(f"{key} ({rules[key].reason})" for key in silent)
        notices.append(table.document.notice(WITHOUT_EFFECT, table.place, f"without effect here: {said}."))


def _refusal(table: Table, rules: Mapping[str, KeyRule], key: str) -> ConfigError:
    """One error for all refused keys of a table: who has to change the file wants to know them all."""
    others = [
        f"{other} (line {table.document.line_of(table.place_of(other))})"
        for other, value in table.data.items()
        if other != key and other in rules and rules[other].state is State.REFUSED and not asks_for_nothing(value)
    ]
    also = f" Refused as well: {', '.join(others)}." if others else ""
    return table.document.error(table.place_of(key), f"refused, {rules[key].reason}.{also}")


def parse_services(top: Table, notices: list[Notice]) -> tuple[ServiceBinding, ...]:
    found = []
    for table in top.tables("services", "objects with binding and service"):
        check_keys(table, NESTED_KEYS["services[]"], notices)
        props = table.table("props")
        if props is not None:
            check_json(props.data, table, "props")
        found.append(
            ServiceBinding(
                binding=table.required_text("binding", "the name that the binding has in env"),
                service=table.required_text("service", "the name of a Worker"),
                entrypoint=_class_name(table, "entrypoint") or "Default",
                props=dict(props.data) if props is not None else None,
            )
        )
    return tuple(found)


def parse_workflows(top: Table, notices: list[Notice]) -> tuple[WorkflowBinding, ...]:
    found: list[WorkflowBinding] = []
    for table in top.tables("workflows", "objects with name, binding and class_name"):
        check_keys(table, NESTED_KEYS["workflows[]"], notices)
        name = table.required_text("name", "the name of a workflow")
        if not is_workflow_name(name):
            raise table.wrong("name", "at most 64 letters, digits, - and _, no - at the beginning")
        if any(other.name == name for other in found):
            raise table.wrong("name", "a name that no other workflow of this list has")
        class_name = _class_name(table, "class_name")
        if class_name is None:
            raise table.wrong("class_name", "the name of a class in the main module")
        found.append(
            WorkflowBinding(
                name=name,
                binding=table.required_text("binding", "the name that the binding has in env"),
                class_name=class_name,
                script_name=table.text("script_name", "the name of a Worker"),
                steps_max=_nested(table, "limits", "steps", limits.STEPS_PER_INSTANCE_MAX, notices)
                or limits.STEPS_PER_INSTANCE,
                concurrency_max=_nested(table, "concurrency", "limit", limits.RUNS_QUEUED_MAX, notices),
            )
        )
    return tuple(found)


def _nested(table: Table, key: str, inner: str, most: int, notices: list[Notice]) -> int | None:
    within = table.table(key)
    if within is None:
        return None
    check_keys(within, NESTED_KEYS[f"workflows[].{key}"], notices)
    return within.integer(inner, least=1, most=most)


def _class_name(table: Table, key: str) -> str | None:
    value = table.text(key, "the name of a class")
    if value is not None and not value.isidentifier():
        raise table.wrong(key, "the name of a class")
    return value


def parse_routes(top: Table, notices: list[Notice]) -> tuple[Route, ...]:
    """``routes``, or the one ``route``; wrangler allows either."""
    if not asks_for_nothing(top.data.get("route")):
        if not asks_for_nothing(top.data.get("routes")):
            raise top.document.error(top.place_of("route"), "found route and routes, expected only one of them.")
        items = [_as_item(top, "route")]
    else:
        items = top.items("routes", "patterns")
    if len(items) > limits.ROUTES_MAX:
        raise top.document.error(
            top.place_of("routes"), f"found {len(items)} routes, expected at most {limits.ROUTES_MAX}."
        )
    found = (_route(item, notices) for item in items)
    return tuple(route for route in found if route is not None)


def _as_item(top: Table, key: str) -> Table:
    place = top.place_of(key)
    return Table(document=top.document, place=place, data={"value": top.data[key]}, places={"value": place})


def _route(item: Table, notices: list[Notice]) -> Route | None:
    """None: a custom domain that is switched off."""
    value = item.data["value"]
    if isinstance(value, str):
        return _checked(item, "value", Route(pattern=value))
    table = item.table("value") if isinstance(value, dict) else None
    if table is None:
        raise item.wrong("value", "a pattern (example.com/*) or an object with pattern")
    check_keys(table, NESTED_KEYS["routes[]"], notices)
    if "zone_id" in table.data and "zone_name" in table.data:
        raise table.wrong("zone_id", "only one of zone_id and zone_name")
    route = Route(
        pattern=table.required_text("pattern", "a pattern such as example.com/*"),
        custom_domain=bool(table.boolean("custom_domain")),
    )
    return None if table.boolean("enabled") is False else _checked(table, "pattern", route)


def _checked(table: Table, key: str, route: Route) -> Route:
    try:
        parse_pattern(route.pattern, custom_domain=route.custom_domain)
    except ConfigError as error:
        raise table.document.error(table.place_of(key), error.message, cure=error.cure) from None
    return route


def parse_limits(top: Table, notices: list[Notice]) -> dict[str, int]:
    """``limits``, as fields of ``WorkerSettings``."""
    table = top.table("limits")
    if table is None:
        return {}
    check_keys(table, NESTED_KEYS["limits"], notices)
    found = {
        "cpu_ms": table.integer("cpu_ms", least=1, most=limits.CPU_MS_MAX),
        "subrequests_max": table.integer("subrequests", least=1, most=limits.SUBREQUESTS_MAX),
    }
    return {field: value for field, value in found.items() if value is not None}


def parse_required_secrets(top: Table, notices: list[Notice]) -> tuple[str, ...]:
    table = top.table("secrets")
    if table is None:
        return ()
    check_keys(table, NESTED_KEYS["secrets"], notices)
    return table.texts("required")


def parse_vars(top: Table) -> dict[str, Any]:
    table = top.table("vars")
    if table is None:
        return {}
    for name, value in table.data.items():
        if not name:
            raise table.wrong(name, "a name for the var")
        check_json(value, table, name)
        size = len(value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode())
        if size > limits.VAR_BYTES_MAX:
            message = f"found a value of {size:,} bytes, expected at most {limits.VAR_BYTES_MAX:,}."
            raise table.document.error(table.place_of(name), message, cure="Put it into a file of the Worker.")
    return dict(table.data)


def check_json(value: Any, table: Table, key: str) -> None:
    """Refuse what cannot be stored as JSON: TOML's dates and times, ``inf`` and ``nan``, numbers past 64 bits."""
    fault = next(_not_json(value), None)
    if fault is not None:
        found = describe(fault)
        message = f"found {found}, expected a text or JSON with numbers of at most 64 bits."
        raise table.document.error(table.place_of(key), message, cure='Write it as a text: "2026-01-31".')


def _not_json(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _not_json(item)
    elif isinstance(value, list):
        for item in value:
            yield from _not_json(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**64:
            yield value
    elif value is not None and not isinstance(value, str | bool):
        yield value


def check_binding_names(
    top: Table,
    taken: Mapping[str, str],
    services: Iterable[ServiceBinding],
    workflows: Iterable[WorkflowBinding],
) -> None:
    """Each name of ``env`` means one thing. ``taken``: the names that vars and secrets have, and where.

    Raises ``ConfigError`` that names both places.
    """
    places = dict(taken)
    declared = [("services", service.binding) for service in services]
    counts = {"services": 0, "workflows": 0}
    declared += [("workflows", workflow.binding) for workflow in workflows]
    for key, name in declared:
        place = child(child(top.place_of(key), counts[key]), "binding")
        counts[key] += 1
        if name in places:
            message = f'found the name "{name}", which {places[name]} has as well, expected a name of its own.'
            raise top.document.error(place, message)
        places[name] = place
