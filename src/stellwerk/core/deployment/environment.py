"""``env.<name>`` laid over the top level, with wrangler's rules.

Some keys are inherited (``main``, ``routes``, ``limits`` …). Bindings, ``vars``, ``secrets`` and ``define`` are not: an
environment has just those that it declares itself, and wrangler warns where the top level has more. The name becomes
``<name>-<environment>`` unless the environment gives one. Which keys are inherited stands in ``wrangler_keys.py``.
"""

from __future__ import annotations

from typing import Any

from stellwerk.core.deployment.document import Document, Notice, Table, child, did_you_mean
from stellwerk.core.deployment.wrangler_keys import WRANGLER_KEYS, asks_for_nothing

NOT_INHERITED = "config.not_inherited"


def select_environment(document: Document, environment: str | None) -> tuple[Table, tuple[Notice, ...]]:
    """The keys in force, each knowing where it stands, and warnings. ``environment`` None: the top level as it is.

    As with wrangler, an environment that the file does not have is an error when it has others, and otherwise only
    changes the Worker's name. Raises ``ConfigError``.
    """
    top = Table(document=document, place="", data=document.data)
    environments = top.table("env")
    if environment is None:
        return top, ()
    chosen = _chosen(environments, environment)
    if chosen is None:
        notice = document.notice(
            "config.environment_missing",
            "env",
            f'there is no environment "{environment}"; the top level is used, named with that ending.',
        )
        return Table(document=document, place="", data=_renamed(document.data, environment)), (notice,)
    return _overlaid(top, chosen, environment)


def _chosen(environments: Table | None, environment: str) -> Table | None:
    if environments is None or not environments.data:
        return None
    if environment not in environments.data:
        names = ", ".join(sorted(environments.data))
        message = f'found no environment "{environment}", expected one of: {names}.'
        raise environments.document.error("env", message, cure=did_you_mean(environment, environments.data))
    return environments.table(environment)


def _overlaid(top: Table, chosen: Table, environment: str) -> tuple[Table, tuple[Notice, ...]]:
    data: dict[str, Any] = {}
    places: dict[str, str] = {}
    notices: list[Notice] = []
    for key, value in _renamed(top.data, environment).items():
        rule = WRANGLER_KEYS.get(key)
        if key == "env":
            continue
        if rule is None or rule.inherited:
            data[key] = value
        elif not asks_for_nothing(value):
            notices.extend(_lost(top, chosen, key, environment))
    if "route" in chosen.data or "routes" in chosen.data:  # two spellings of one thing
        data.pop("route", None)
        data.pop("routes", None)
    for key, value in chosen.data.items():
        rule = WRANGLER_KEYS.get(key)
        if rule and rule.top_level_only:
            text = "this key counts at the top level only; not looked at."
            notices.append(top.document.notice("config.top_level_only", chosen.place_of(key), text))
            continue
        data[key] = value
        places[key] = chosen.place_of(key)
    return Table(document=top.document, place="", data=data, places=places), tuple(notices)


def _renamed(data: Any, environment: str) -> dict[str, Any]:
    name = data.get("name")
    return {**data, "name": f"{name}-{environment}"} if isinstance(name, str) and name else dict(data)


def _lost(top: Table, chosen: Table, key: str, environment: str) -> list[Notice]:
    """What of a key that is not inherited the environment lacks: all of it, or some vars."""
    where = f'"env.{environment}"'
    if key not in chosen.data:
        text = f'"{key}" exists at the top level, but not on {where}; it is not inherited. Add it to {where}.'
        return [top.document.notice(NOT_INHERITED, top.place_of(key), text)]
    above, below = top.data[key], chosen.data[key]
    if key not in ("vars", "define") or not isinstance(above, dict) or not isinstance(below, dict):
        return []
    missing = [name for name in above if name not in below]
    if not missing:
        return []
    text = f'at the top level, but not on {where}: {", ".join(missing)}. "{key}" is not inherited.'
    return [top.document.notice(NOT_INHERITED, child(top.place_of(key), missing[0]), text)]
