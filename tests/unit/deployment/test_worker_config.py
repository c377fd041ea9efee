"""From texts to a manifest: what each honoured key becomes, and what each mistake is told."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core import limits
from stellwerk.core.deployment import manifest as manifests
from stellwerk.core.deployment.document import SourceText
from stellwerk.core.deployment.manifest import Route, ServiceBinding, WorkflowBinding
from stellwerk.core.deployment.parse import ParsedWorker, parse_worker
from stellwerk.core.errors import ConfigError

MINIMAL = {
    "name": "orders",
    "main": "src/entry.py",
    "compatibility_date": "2026-01-31",
    "compatibility_flags": ["python_workers"],
}


def a_config(**keys: Any) -> SourceText:
    """A valid configuration with these keys set; one key a line, in order; None takes a key away."""
    merged = {key: value for key, value in {**MINIMAL, **keys}.items() if value is not None}
    rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in merged.items())
    return SourceText(file="wrangler.jsonc", text="{\n" + rows + "\n}")


def parsed(*, environment: str | None = None, dev_vars: str | None = None, **keys: Any) -> ParsedWorker:
    secrets = SourceText(file=".dev.vars", text=dev_vars) if dev_vars is not None else None
    return parse_worker(a_config(**keys), environment=environment, dev_vars=secrets)


def refused(**keys: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parsed(**keys)
    return caught.value


def codes(worker: ParsedWorker) -> list[tuple[str, str]]:
    return [(notice.code, notice.key) for notice in worker.warnings]


def test_a_minimal_worker_has_the_documented_defaults_and_nothing_to_warn_about() -> None:
    worker = parsed()
    assert worker.warnings == ()
    assert worker.manifest == manifests.Manifest(
        name="orders",
        main="src/entry.py",
        compatibility_date="2026-01-31",
        compatibility_flags=("python_workers",),
    )


def test_every_honoured_key_reaches_the_manifest() -> None:
    worker = parsed(
        main="./src/entry.py",
        vars={"TEXT": "a", "JSON": {"deep": [1, 2.5, None, True]}},
        services=[{"binding": "CHARGE", "service": "charge", "entrypoint": "Refund", "props": {"tenant": 7}}],
        workflows=[
            {
                "binding": "FLOW",
                "name": "order-flow",
                "class_name": "OrderFlow",
                "script_name": "flows",
                "limits": {"steps": 25_000},
                "concurrency": {"limit": 3},
            }
        ],
        routes=["example.com/*", {"pattern": "shop.example.com", "custom_domain": True}],
        limits={"cpu_ms": 300_000, "subrequests": 50},
    ).manifest
    assert worker.main == "src/entry.py"
    assert worker.vars == {"TEXT": "a", "JSON": {"deep": [1, 2.5, None, True]}}
    assert worker.services == (
        ServiceBinding(binding="CHARGE", service="charge", entrypoint="Refund", props={"tenant": 7}),
    )
    assert worker.workflows == (
        WorkflowBinding(
            binding="FLOW",
            name="order-flow",
            class_name="OrderFlow",
            script_name="flows",
            steps_max=25_000,
            concurrency_max=3,
        ),
    )
    assert worker.routes == (
        Route(pattern="example.com/*"),
        Route(pattern="shop.example.com", custom_domain=True),
    )
    assert (worker.settings.cpu_ms, worker.settings.subrequests_max) == (300_000, 50)


def test_toml_and_jsonc_say_the_same_thing() -> None:
    text = """
name = "orders"
main = "src/entry.py"
compatibility_date = "2026-01-31"
compatibility_flags = ["python_workers"]
route = "example.com/*"
[vars]
TEXT = "a"
[[services]]
binding = "CHARGE"
service = "charge"
"""
    from_toml = parse_worker(SourceText(file="wrangler.toml", text=text))
    from_jsonc = parsed(
        route="example.com/*", vars={"TEXT": "a"}, services=[{"binding": "CHARGE", "service": "charge"}]
    )
    assert from_toml.manifest == from_jsonc.manifest
    assert from_toml.lines == {"services[0]": 9}


@pytest.mark.parametrize(
    ("keys", "place", "says"),
    [
        ({"name": None}, "name", "it is missing, expected the Worker's name"),
        ({"name": "Orders"}, "name", 'found the text "Orders", expected at most 63 lower-case'),
        ({"name": "x" * 64}, "name", "at most 63"),
        ({"name": 3}, "name", "found the number 3, expected the Worker's name"),
        ({"main": None}, "main", "it is missing"),
        ({"main": "src/entry"}, "main", "Main module needs to end with a .py file extension"),
        ({"main": "src/index.ts"}, "main", "Stellwerk runs Python Workers only"),
        ({"main": "/src/entry.py"}, "main", "a path below the Worker's folder"),
        ({"main": "a/../../entry.py"}, "main", "a path below the Worker's folder"),
        ({"compatibility_date": None}, "compatibility_date", "it is missing"),
        ({"compatibility_date": "31.1.2026"}, "compatibility_date", 'expected a date in quotes such as "2026-01-31"'),
        ({"compatibility_date": "2026-02-30"}, "compatibility_date", "expected a date"),
        ({"compatibility_date": "20260131"}, "compatibility_date", "expected a date"),
        ({"compatibility_flags": None}, "compatibility_flags", '"python_workers" is missing'),
        ({"compatibility_flags": ["nodejs_compat"]}, "compatibility_flags", 'Add "python_workers"'),
        ({"compatibility_flags": "python_workers"}, "compatibility_flags", "expected a list of texts"),
        ({"compatibility_flags": [1]}, "compatibility_flags[0]", "found the number 1, expected a text"),
        ({"vars": ["A"]}, "vars", "found a list, expected an object"),
        ({"vars": {"A": "x" * 5121}}, "vars.A", "found a value of 5,121 bytes, expected at most 5,120"),
        ({"vars": {"A": "é" * 2561}}, "vars.A", "found a value of 5,122 bytes"),
        ({"vars": {"A": 2**64}}, "vars.A", "expected a text or JSON"),
        ({"vars": {f"V{n}": "x" for n in range(129)}}, "vars", "found 129 vars and secrets, expected at most 128"),
        ({"services": {"A": "b"}}, "services", "found an object, expected a list of objects with binding and service"),
        ({"services": ["charge"]}, "services[0]", 'found the text "charge", expected an object'),
        ({"services": [{"binding": "A"}]}, "services[0].service", "it is missing, expected the name of a Worker"),
        ({"services": [{"service": "a"}]}, "services[0].binding", "it is missing"),
        ({"services": [{"binding": "", "service": "a"}]}, "services[0].binding", 'found the text ""'),
        (
            {"services": [{"binding": "A", "service": "a", "entrypoint": "a-b"}]},
            "services[0].entrypoint",
            "expected the name of a class",
        ),
        ({"services": [{"binding": "A", "service": "a", "props": 1}]}, "services[0].props", "expected an object"),
        ({"services": [{"binding": "A", "service": "a", "remote": True}]}, "services[0].remote", "refused"),
        ({"route": "a/*", "routes": ["b/*"]}, "route", "expected only one of them"),
        ({"routes": "a/*"}, "routes", "expected a list of patterns"),
        ({"routes": [3]}, "routes[0]", "found the number 3, expected a pattern"),
        ({"routes": ["a/*", "a.*.b/"]}, "routes[1]", "a wildcard (*) may only be"),
        ({"route": "ftp://a/*"}, "route", 'found the scheme "ftp"'),
        ({"routes": [{"zone_name": "a"}]}, "routes[0].pattern", "it is missing"),
        ({"routes": [{"pattern": "a/b", "custom_domain": True}]}, "routes[0].pattern", "Paths are not allowed"),
        ({"routes": [{"pattern": "a", "custom_domain": 1}]}, "routes[0].custom_domain", "expected true or false"),
        ({"routes": [{"pattern": "a", "zone_id": "1", "zone_name": "b"}]}, "routes[0].zone_id", "only one of"),
        ({"routes": ["a/*"] * 1001}, "routes", "found 1001 routes, expected at most 1000"),
        ({"limits": {"cpu_ms": 300_001}}, "limits.cpu_ms", "expected a whole number from 1 to 300,000"),
        ({"limits": {"cpu_ms": 0}}, "limits.cpu_ms", "found the number 0"),
        ({"limits": {"cpu_ms": True}}, "limits.cpu_ms", "found true"),
        ({"limits": {"subrequests": 1.5}}, "limits.subrequests", "found the number 1.5"),
        ({"limits": 5}, "limits", "expected an object"),
        ({"secrets": {"required": "A"}}, "secrets.required", "expected a list of texts"),
        ({"env": []}, "env", "expected an object"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_expected(
    keys: dict[str, Any], place: str, says: str
) -> None:
    error = refused(**keys)
    assert (error.file, error.key) == ("wrangler.jsonc", place)
    assert says in str(error)
    present = [key for key, value in {**MINIMAL, **keys}.items() if value is not None]
    top = place.split(".")[0].split("[")[0]
    assert error.line == (present.index(top) + 2 if top in present else 0)


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"name": "-a"}, "name", "at most 64 letters"),
        ({"name": None}, "name", "it is missing"),
        ({"class_name": None}, "class_name", "it is missing, expected the name of a class in the main module"),
        ({"class_name": "A B"}, "class_name", "expected the name of a class"),
        ({"binding": None}, "binding", "it is missing"),
        ({"limits": {"steps": 25_001}}, "limits.steps", "from 1 to 25,000"),
        ({"concurrency": {"limit": 0}}, "concurrency.limit", "found the number 0"),
        ({"schedules": "* * * * *"}, "schedules", "refused, not built yet"),
    ],
)
def test_a_wrong_workflow_is_refused(change: dict[str, Any], place: str, says: str) -> None:
    workflow = {"name": "flow", "binding": "FLOW", "class_name": "Flow", **change}
    error = refused(workflows=[{key: value for key, value in workflow.items() if value is not None}])
    assert error.key == f"workflows[0].{place}"
    assert says in error.message


def test_two_workflows_cannot_share_a_name() -> None:
    one = {"name": "flow", "binding": "A", "class_name": "Flow"}
    assert refused(workflows=[one, {**one, "binding": "B"}]).key == "workflows[1].name"


def test_a_name_in_env_means_one_thing() -> None:
    charge = {"binding": "A", "service": "charge"}
    assert "vars.A has as well" in refused(vars={"A": "x"}, services=[charge]).message
    assert "services[0].binding has as well" in refused(services=[charge, charge]).message
    flow = {"name": "flow", "binding": "A", "class_name": "Flow"}
    error = refused(services=[charge], workflows=[flow])
    assert (error.key, "services[0].binding" in error.message) == ("workflows[0].binding", True)
    with pytest.raises(ConfigError, match=r"\.dev\.vars: A has as well"):
        parsed(services=[charge], dev_vars="A=1")


def test_a_refused_key_is_refused_by_name_with_all_others_of_its_kind() -> None:
    error = refused(kv_namespaces=[{"binding": "KV", "id": "1"}], ai={"binding": "AI"})
    assert (error.line, error.key) == (6, "kv_namespaces")
    assert error.message == "refused, not built yet: key-value stores. Refused as well: ai (line 7)."


@pytest.mark.parametrize(
    "keys",
    [
        {"kv_namespaces": []},
        {"queues": {"producers": [], "consumers": []}},
        {"triggers": {"crons": []}},
        {"durable_objects": {"bindings": []}},
        {"unsafe": {}},
    ],
)
def test_a_refused_key_that_asks_for_nothing_is_let_pass(keys: dict[str, Any]) -> None:
    assert parsed(**keys).warnings == ()


def test_keys_without_effect_are_said_in_one_notice_and_the_schema_in_none() -> None:
    schema: dict[str, Any] = {"$schema": "x"}
    worker = parsed(**schema, minify=True, observability={"enabled": True}, package_manager="uv")
    (notice,) = worker.warnings
    assert notice.code == "config.without_effect"
    assert all(key in notice.text for key in ("minify", "observability", "package_manager"))
    assert "$schema" not in notice.text


def test_an_unknown_key_warns_with_its_line_and_the_nearest_known_one() -> None:
    (notice,) = parsed(srvices=[]).warnings
    assert (notice.code, notice.key, notice.line) == ("config.unknown_key", "srvices", 6)
    assert str(notice) == 'wrangler.jsonc:6: srvices: unknown key, not looked at. Did you mean "services"?'
    (nested,) = parsed(services=[{"binding": "A", "service": "b", "entry_point": "X"}]).warnings
    assert (nested.key, 'Did you mean "entrypoint"?' in nested.text) == ("services[0].entry_point", True)


def test_a_key_written_twice_warns() -> None:
    text = a_config().text.replace("{", '{"name": "first",', 1)
    worker = parse_worker(SourceText(file="wrangler.json", text=text))
    assert worker.manifest.name == "orders"
    assert codes(worker) == [("config.repeated_key", "name")]


def test_a_custom_domain_that_is_switched_off_is_no_route() -> None:
    assert parsed(routes=[{"pattern": "a.example", "custom_domain": True, "enabled": False}]).manifest.routes == ()


def test_a_compatibility_date_after_today_is_refused_when_today_is_known() -> None:
    today = datetime.date(2026, 1, 30)
    with pytest.raises(ConfigError, match="a date not after today, 2026-01-30"):
        parse_worker(a_config(), today=today)
    assert parse_worker(a_config(), today=datetime.date(2026, 1, 31)).manifest.compatibility_date == "2026-01-31"


def test_dates_and_infinities_of_toml_are_no_vars() -> None:
    head = '\nname = "a"\nmain = "a.py"\ncompatibility_date = "2026-01-31"\ncompatibility_flags = ["python_workers"]\n'
    for value in ("2026-01-31", "[inf]", "{ a = nan }"):
        with pytest.raises(ConfigError) as caught:
            parse_worker(SourceText(file="wrangler.toml", text=f"{head}vars.A = {value}\n"))
        assert (caught.value.key, caught.value.line) == ("vars.A", 6)


# -- environments -----------------------------------------------------------------------------------------------------


def test_without_an_environment_the_env_section_counts_for_nothing() -> None:
    worker = parsed(env={"staging": {"vars": {"A": "b"}, "kv_namespaces": [{}]}})
    assert (worker.manifest.name, worker.manifest.vars, worker.warnings) == ("orders", {}, ())


def test_an_environment_inherits_what_is_inheritable_and_its_name_gets_an_ending() -> None:
    worker = parsed(
        environment="staging",
        limits={"cpu_ms": 5},
        routes=["example.com/*"],
        env={"staging": {}, "production": {"name": "shop", "routes": ["shop.example.com/*"], "main": "prod.py"}},
    )
    assert worker.manifest.name == "orders-staging"
    assert worker.manifest.main == "src/entry.py"
    assert worker.manifest.settings.cpu_ms == 5
    assert worker.manifest.routes == (Route(pattern="example.com/*"),)


@pytest.mark.parametrize("above", [{"route": "example.com/*"}, {"routes": ["example.com/*"]}])
@pytest.mark.parametrize("own", [{"route": "shop.example.com/*"}, {"routes": ["shop.example.com/*"]}])
def test_an_environment_overrides_what_it_says_itself(above: dict[str, Any], own: dict[str, Any]) -> None:
    production = {"name": "shop", "main": "prod.py", **own}
    worker = parsed(environment="production", env={"production": production}, **above)
    assert worker.manifest.name == "shop"
    assert worker.manifest.main == "prod.py"
    assert worker.manifest.routes == (Route(pattern="shop.example.com/*"),)


def test_bindings_and_vars_are_not_inherited_and_each_loss_is_warned_about() -> None:
    worker = parsed(
        environment="staging",
        vars={"A": "a", "B": "b"},
        services=[{"binding": "CHARGE", "service": "charge"}],
        kv_namespaces=[{"binding": "KV"}],
        queues={"producers": []},
        env={"staging": {"vars": {"A": "staged"}}},
    )
    assert worker.manifest.vars == {"A": "staged"}
    assert worker.manifest.services == ()
    assert codes(worker) == [
        ("config.not_inherited", "vars.B"),
        ("config.not_inherited", "services"),
        ("config.not_inherited", "kv_namespaces"),
    ]
    assert '"services" exists at the top level, but not on "env.staging"' in worker.warnings[1].text


def test_an_error_in_an_environment_stands_where_the_environment_says_it() -> None:
    error = refused(environment="staging", env={"staging": {"services": [{"binding": "A"}]}})
    assert (error.key, error.line) == ("env.staging.services[0].service", 6)
    error = refused(environment="staging", env={"staging": {"r2_buckets": [{"binding": "A"}]}})
    assert error.key == "env.staging.r2_buckets"


def test_an_unknown_environment_is_refused_when_there_are_others() -> None:
    error = refused(environment="stagin", env={"staging": {}})
    assert 'found no environment "stagin", expected one of: staging. Did you mean "staging"?' in str(error)


def test_an_environment_of_a_file_without_any_only_changes_the_name() -> None:
    worker = parsed(environment="staging", vars={"A": "a"})
    assert (worker.manifest.name, worker.manifest.vars) == ("orders-staging", {"A": "a"})
    assert codes(worker) == [("config.environment_missing", "env")]


def test_a_key_of_the_top_level_only_is_warned_about_in_an_environment() -> None:
    worker = parsed(environment="staging", env={"staging": {"keep_vars": True}})
    assert codes(worker) == [("config.top_level_only", "env.staging.keep_vars")]


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_come_from_dev_vars_and_win_over_vars() -> None:
    worker = parsed(vars={"A": "public", "B": "b"}, dev_vars="A=secret\nC=c\n").manifest
    assert worker.vars == {"B": "b"}
    assert worker.secrets == {"A": "secret", "C": "c"}


def test_a_required_secret_without_a_value_is_warned_about() -> None:
    worker = parsed(secrets={"required": ["A", "B"]}, dev_vars="A=x")
    assert codes(worker) == [("config.secret_missing", "secrets.required[1]")]


def test_vars_and_secrets_share_one_limit_and_a_secret_has_its_own() -> None:
    lines = "".join(f"S{n}=x\n" for n in range(limits.VARS_MAX))
    assert len(parsed(dev_vars=lines).manifest.secrets) == limits.VARS_MAX
    with pytest.raises(ConfigError, match="found 129 vars and secrets"):
        parsed(vars={"A": "x"}, dev_vars=lines)
    with pytest.raises(ConfigError, match="found a value of 5,121 bytes") as caught:
        parsed(dev_vars="A=x\nB=" + "s" * 5121)
    assert (caught.value.file, caught.value.line, caught.value.key) == (".dev.vars", 2, "B")
    assert "sss" not in str(caught.value)


# -- anything at all --------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from([*MINIMAL, "vars", "secrets", "services", "workflows", "routes", "route", "limits", "env", "x"])
_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        key: _JSON | st.just("a")
        for key in ("binding", "service", "entrypoint", "props", "name", "class_name", "limits", "pattern", "enabled")
    },
)
_CONFIGS = st.dictionaries(_KEYS, _JSON | st.lists(_ITEMS, max_size=2), max_size=5)


@given(_CONFIGS, st.none() | st.sampled_from(["staging", "x"]))
def test_any_configuration_becomes_a_manifest_that_can_be_stored_or_our_error(
    keys: dict[str, Any], environment: str | None
) -> None:
    try:
        worker = parsed(environment=environment, **keys).manifest
    except ConfigError as error:
        assert error.file == "wrangler.jsonc"
    else:
        assert manifests.decode(manifests.encode(worker)) == worker


@given(_CONFIGS)
def test_any_environment_becomes_a_manifest_or_our_error(keys: dict[str, Any]) -> None:
    try:
        parsed(environment="staging", env={"staging": keys})
    except ConfigError as error:
        assert error.file == "wrangler.jsonc"
