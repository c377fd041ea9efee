"""Our table of configuration keys against the schema that npm's newest wrangler ships.

A key that wrangler adds makes this fail until somebody has decided what Stellwerk does with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core.deployment.wrangler_keys import NESTED_KEYS, WRANGLER_KEYS, KeyRule

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

FETCH_TIMEOUT_S = 180
NESTED_AT = {
    "secrets": ("RawEnvironment", "secrets"),
    "services[]": ("RawEnvironment", "services", "[]"),
    "workflows[]": ("WorkflowBinding",),
    "workflows[].limits": ("WorkflowBinding", "limits"),
    "workflows[].concurrency": ("WorkflowBinding", "concurrency"),
    "limits": ("UserLimits",),
}
"""Where the schema describes the keys inside an honoured one; routes are three alternatives, see below."""


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The definitions of wrangler's ``config-schema.json``, out of the package as npm publishes it."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed: it brings wrangler"
    folder = tmp_path_factory.mktemp("wrangler")
    subprocess.run(
        [npm, "pack", "wrangler@latest", "--silent"],
        cwd=folder,
        check=True,
        timeout=FETCH_TIMEOUT_S,
        capture_output=True,
    )
    (package,) = Path(folder).glob("wrangler-*.tgz")
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/config-schema.json")
        assert member is not None
        found: dict[str, Any] = json.load(member)["definitions"]
    return found


def in_schema(rules: dict[str, KeyRule]) -> set[str]:
    return {key for key, rule in rules.items() if rule.in_schema}


def test_every_key_of_the_schema_is_in_our_table_and_none_is_invented(definitions: dict[str, Any]) -> None:
    top = set(definitions["RawConfig"]["properties"])
    assert in_schema(dict(WRANGLER_KEYS)) == top
    extras = set(WRANGLER_KEYS) - in_schema(dict(WRANGLER_KEYS))
    assert not extras & top, "no longer extras: the schema has them"


def test_our_table_knows_which_keys_an_environment_may_have(definitions: dict[str, Any]) -> None:
    ours = {key for key, rule in WRANGLER_KEYS.items() if rule.in_schema and not rule.top_level_only}
    assert ours == set(definitions["RawEnvironment"]["properties"])


def test_our_table_knows_which_keys_are_not_inherited(definitions: dict[str, Any]) -> None:
    """The schema says it in words. Two bindings lack them; wrangler's program does not inherit those either."""
    unsaid = {"durable_objects", "version_metadata"}
    said = {
        key
        for key, described in definitions["RawEnvironment"]["properties"].items()
        if "not automatically inherited" in (text := described.get("description", ""))
        or "must be specified separately" in text
    }
    assert {key for key, rule in WRANGLER_KEYS.items() if not rule.inherited} == said | unsaid


@pytest.mark.parametrize("within", NESTED_KEYS)
def test_the_keys_inside_honoured_ones_are_in_our_table(definitions: dict[str, Any], within: str) -> None:
    if within == "routes[]":
        kinds = [definitions[name] for name in ("ZoneIdRoute", "ZoneNameRoute", "CustomDomainRoute")]
        expected = {key for kind in kinds for key in kind["properties"]}
    else:
        first, *rest = NESTED_AT[within]
        described = definitions[first]
        for part in rest:
            described = described["items"] if part == "[]" else described["properties"][part]
        expected = set(described["properties"])
    assert in_schema(dict(NESTED_KEYS[within])) == expected
