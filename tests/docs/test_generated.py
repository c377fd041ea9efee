"""What is drawn from the code is as new as the code, and nothing that people may meet is left undocumented."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import ROOT

from docs import generate
from stellwerk.core import limits
from stellwerk.core.deployment.manifest import WorkerSettings
from stellwerk.core.deployment.settings import SETTINGS
from stellwerk.core.deployment.wrangler_keys import NESTED_KEYS, WRANGLER_KEYS
from stellwerk.core.workflow.status import MOVES, Status

CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")


@pytest.mark.parametrize("name", [*generate.PAGES, generate.README])
def test_the_generated_parts_are_fresh(name: str) -> None:
    page = (ROOT / name).read_text("utf-8")
    assert generate.MARKED.search(page), "no generated part: is a marker misspelt?"
    assert generate.refresh(page) == page, "make docs"


def test_every_part_is_on_a_page() -> None:
    text = "".join((ROOT / name).read_text("utf-8") for name in (*generate.PAGES, generate.README))
    assert {name for _, name, _ in generate.MARKED.findall(text)} == set(generate.PARTS)


def test_a_part_that_is_out_of_date_is_noticed() -> None:
    stale = "<!-- generated: settings -->\n| old |\n<!-- end -->"
    assert generate.refresh(stale) != stale
    with pytest.raises(KeyError):
        generate.refresh("<!-- generated: nothing -->\n<!-- end -->")


def test_every_setting_and_every_key_is_documented() -> None:
    for setting in SETTINGS:
        assert f"| `{setting.place}` |" in CONFIGURATION
    for key in WRANGLER_KEYS:
        assert f"| `{key}` |" in CONFIGURATION
    for within, rules in NESTED_KEYS.items():
        for key in rules:
            assert f"| `{within}.{key}` |" in CONFIGURATION


def test_settings_that_nothing_acts_on_are_said_to_be_so() -> None:
    """A limit that is only read would be a lie. The page's list is held against what node and isolate look at."""
    sources = [
        path.read_text("utf-8") for room in ("node", "isolate") for path in (generate.PACKAGE / room).rglob("*.py")
    ]
    idle = {
        name
        for name in WorkerSettings.__struct_fields__
        if not any(re.search(rf"settings\.{name}\b", source) for source in sources)
    }
    places = {setting.field: setting.place for setting in SETTINGS}
    places |= {"cpu_ms": "limits.cpu_ms", "subrequests_max": "limits.subrequests"}
    (paragraph,) = re.findall(r"\*\*Not enforced yet\.\*\*(.*?)\n\n", CONFIGURATION, re.DOTALL)
    said = set(re.findall(r"`([a-z_.]+)`", paragraph.partition("`dependencies.allow_sdist")[0]))
    assert said == {places[name] for name in idle}


def test_every_limit_is_documented() -> None:
    page = (ROOT / "docs" / "limits.md").read_text("utf-8")
    for name in vars(limits):
        if name.isupper() and name not in ("KIB", "MIB"):
            assert f"| `{name}` | " in page


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    kinds = generate.error_types()
    assert len(kinds) > 25
    for kind in kinds:
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", kind.code)
        assert f"| `{kind.code}` | {kind.fault.value} | {kind.http_status} |" in page


def test_a_code_belongs_to_one_kind_of_error_and_its_descendants() -> None:
    """A program that looks at a code must not mean two things by it."""
    owners: dict[str, type] = {}
    for kind in sorted(generate.error_types(), key=lambda kind: len(kind.__mro__)):
        first = owners.setdefault(kind.code, kind)
        assert issubclass(kind, first), f"{kind.__name__} and {first.__name__} share {kind.code}"


def test_every_route_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    found = generate.routes()
    assert len(found) > 25
    for method, path, said in found:
        assert f"| `{method}` | `{path}` |" in page
        assert said


def test_the_diagram_has_every_move_of_the_table() -> None:
    diagram = generate.status_diagram()
    for status, following in MOVES.items():
        for other in Status:
            assert (f"    {status} --> {other}\n" in diagram) == (other in following)
