"""``stellwerk.toml``: one schema, the Worker's file above the workspace's, and every mistake an error."""

from __future__ import annotations

import pytest

from stellwerk.core.deployment.document import SourceText
from stellwerk.core.deployment.manifest import Manifest, WorkerSettings
from stellwerk.core.deployment.parse import parse_worker
from stellwerk.core.deployment.settings import SETTINGS, parse_settings, render_settings_table, worker_settings
from stellwerk.core.errors import ConfigError

WRANGLER = """{
  "name": "a", "main": "a.py", "compatibility_date": "2026-01-31", "compatibility_flags": ["python_workers"],
  "limits": {"cpu_ms": 50}
}"""

EVERYTHING = """
default = true
[limits]
memory_mb = 64
wall_ms = 5_000
isolates_max = 2
isolates_idle_s = 0
[egress]
allow = ["10.0.0.0/8", "db.internal:5432", "*.corp.example", "[::1]:80", "fd00::/8", "192.168.1.7"]
[isolation]
minimum = "strict"
[python]
version = "3.12"
[dependencies]
allow_sdist = true
"""


def a_manifest(*, worker: str | None = None, workspace: str | None = None) -> Manifest:
    return parse_worker(
        SourceText(file="wrangler.jsonc", text=WRANGLER),
        settings=SourceText(file="a/stellwerk.toml", text=worker) if worker is not None else None,
        workspace_settings=SourceText(file="stellwerk.toml", text=workspace) if workspace is not None else None,
    ).manifest


def refused(text: str, *, workspace: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_settings(SourceText(file="stellwerk.toml", text=text), workspace=workspace)
    return caught.value


def test_every_setting_reaches_the_manifest() -> None:
    manifest = a_manifest(worker=EVERYTHING)
    assert manifest.default
    assert manifest.settings == WorkerSettings(
        memory_mb=64,
        cpu_ms=50,
        wall_ms=5000,
        isolates_max=2,
        isolates_idle_s=0,
        egress_allow=("10.0.0.0/8", "db.internal:5432", "*.corp.example", "[::1]:80", "fd00::/8", "192.168.1.7"),
        isolation_minimum="strict",
        python_version="3.12",
        allow_sdist=True,
    )


def test_without_files_the_built_in_defaults_hold() -> None:
    assert a_manifest().settings == WorkerSettings(cpu_ms=50)
    assert worker_settings(None, None, wrangler={}) == (WorkerSettings(), False)


def test_the_workers_file_wins_key_by_key_over_the_workspaces() -> None:
    settings = a_manifest(
        worker='[limits]\nmemory_mb = 64\n[egress]\nallow = ["b.example"]',
        workspace='[limits]\nmemory_mb = 512\nwall_ms = 1\n[egress]\nallow = ["a.example"]',
    ).settings
    assert (settings.memory_mb, settings.wall_ms, settings.egress_allow) == (64, 1, ("b.example",))


def test_every_field_of_the_manifest_that_the_file_may_set_is_in_the_schema() -> None:
    of_wrangler = {"cpu_ms", "subrequests_max"}
    assert {setting.field for setting in SETTINGS} == set(WorkerSettings.__struct_fields__) - of_wrangler | {"default"}


@pytest.mark.parametrize(
    ("text", "line", "place", "says"),
    [
        ("[limits]\nmemory = 3", 2, "limits.memory", 'found the unknown key "memory". Did you mean "memory_mb"?'),
        ("\n[limit]\nx = 1", 2, "limit", 'Did you mean "limits"?'),
        ("[egress]\ndeny = []", 2, "egress.deny", "Known here: allow."),
        ("defualt = true", 1, "defualt", 'Did you mean "default"?'),
        ("[limits]\ncpu_ms = 3", 2, "limits.cpu_ms", "It belongs in wrangler's file"),
        ("memory_mb = 3", 1, "memory_mb", "It belongs under [limits]."),
        ("[limits]\ndefault = true", 2, "limits.default", "It belongs above the first [table]."),
        ("limits = 3", 1, "limits", "found the number 3, expected an object"),
        ("[limits]\nmemory_mb = 15", 2, "limits.memory_mb", "expected a whole number from 16 to 65,536"),
        ("[limits]\nmemory_mb = 128.5", 2, "limits.memory_mb", "found the number 128.5"),
        ('[limits]\nmemory_mb = "128"', 2, "limits.memory_mb", 'found the text "128"'),
        ("[limits]\nwall_ms = 0", 2, "limits.wall_ms", "expected a whole number from 1"),
        ("[limits]\nisolates_max = 501", 2, "limits.isolates_max", "from 1 to 500"),
        ("[limits]\nisolates_idle_s = -1", 2, "limits.isolates_idle_s", "from 0 to 86,400"),
        ('[egress]\nallow = "a"', 2, "egress.allow", 'found the text "a", expected a list of hosts'),
        ('[egress]\nallow = [\n"a",\n"https://b/"]', 4, "egress.allow[1]", "Write the host alone"),
        ('[egress]\nallow = ["a b"]', 2, "egress.allow[0]", "expected a host, address or network"),
        ("[egress]\nallow = [80]", 2, "egress.allow[0]", "found the number 80"),
        ('[isolation]\nminimum = "strikt"', 2, "isolation.minimum", 'Did you mean "strict"?'),
        (
            "[python]\nversion = 3.10",
            2,
            "python.version",
            "found the number 3.1, expected a version of",
        ),
        ('[python]\nversion = "4"', 2, "python.version", 'found the text "4"'),
        ("[dependencies]\nallow_sdist = 1", 2, "dependencies.allow_sdist", "expected true or false"),
        ('default = "yes"', 1, "default", "expected true or false"),
        ("[limits", 1, "", "this is not TOML"),
    ],
)
def test_a_mistake_is_an_error_with_line_key_and_cure(text: str, line: int, place: str, says: str) -> None:
    error = refused(text)
    assert (error.file, error.line, error.key) == ("stellwerk.toml", line, place)
    assert says in str(error)


def test_the_workspaces_file_cannot_make_every_worker_the_default() -> None:
    error = refused("default = true", workspace=True)
    assert (error.line, "this is said of one Worker, not of all" in error.message) == (1, True)


def test_the_rendered_table_has_every_setting() -> None:
    table = render_settings_table()
    for setting in SETTINGS:
        assert f"| `{setting.place}` |" in table
