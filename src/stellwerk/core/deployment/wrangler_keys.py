"""Every key of wrangler's configuration, and what Stellwerk does with it. The documentation is drawn from it.

A key is in exactly one of three states. *Honoured*: it does what Cloudflare says. *Without effect*: it is accepted,
nothing depends on it here, and that is said once. *Refused*: a Worker that asks for it would not work, so it is not
loaded at all; better an error at deploy than a silent loss in production. A refused key that asks for nothing (an empty
list or object, ``false``) is let pass.

``tests/external/test_wrangler_schema.py`` holds this table against the schema that npm's wrangler ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    HONOURED = "honoured"
    WITHOUT_EFFECT = "accepted without effect"
    REFUSED = "refused by name"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """What becomes of one key, and why, in one line."""

    state: State
    reason: str
    inherited: bool = True  # an environment takes it over from the top level
    top_level_only: bool = False  # not a key of ``env.<name>``
    in_schema: bool = True  # False: a key that older wranglers wrote, and files still have
    quiet: bool = False  # without effect, and nobody could expect one


def _honoured(reason: str, *, inherited: bool = True, top_level_only: bool = False) -> KeyRule:
    return KeyRule(state=State.HONOURED, reason=reason, inherited=inherited, top_level_only=top_level_only)


def _without_effect(
    reason: str,
    *,
    inherited: bool = True,
    top_level_only: bool = False,
    in_schema: bool = True,
    quiet: bool = False,
) -> KeyRule:
    return KeyRule(
        state=State.WITHOUT_EFFECT,
        reason=reason,
        inherited=inherited,
        top_level_only=top_level_only,
        in_schema=in_schema,
        quiet=quiet,
    )


def _refused(reason: str, *, inherited: bool = True, top_level_only: bool = False) -> KeyRule:
    return KeyRule(state=State.REFUSED, reason=reason, inherited=inherited, top_level_only=top_level_only)


def _not_built(what: str) -> KeyRule:
    """A binding that is to come. As all of wrangler's bindings, it is not inherited by environments."""
    return _refused(f"not built yet: {what}", inherited=False)


def _not_offered(what: str) -> KeyRule:
    return _refused(f"Stellwerk does not offer {what}", inherited=False)


_BUNDLER = "nothing is bundled: Python files are loaded as they are"

WRANGLER_KEYS: Mapping[str, KeyRule] = {
    # -- what a Worker is ---------------------------------------------------------------------------------------------
    "$schema": _without_effect("for editors", top_level_only=True, quiet=True),
    "name": _honoured("the Worker's name; `<name>.localhost` leads to it"),
    "main": _honoured("the main module; must end in .py"),
    "compatibility_date": _honoured("required; which of Cloudflare's changes of behaviour apply"),
    "compatibility_flags": _honoured("must contain `python_workers`"),
    "env": _honoured("environments, overlaid as wrangler does when one is asked for by name", top_level_only=True),
    "vars": _honoured("texts and JSON values of `env`; at most 128 with the secrets, 5 KiB each", inherited=False),
    "secrets": _honoured("`required`: a name that .dev.vars lacks is warned about", inherited=False),
    "services": _honoured("other Workers of the node, by name, with `entrypoint` and `props`", inherited=False),
    "workflows": _honoured("durable workflows, of this Worker or of `script_name`", inherited=False),
    "routes": _honoured("host and path patterns in Cloudflare's syntax; custom domains"),
    "route": _honoured("one route; not together with `routes`"),
    "limits": _honoured("`cpu_ms` and `subrequests` of one invocation"),
    # -- without effect -----------------------------------------------------------------------------------------------
    "account_id": _without_effect("the node decides which account a token belongs to"),
    "alias": _without_effect(_BUNDLER, top_level_only=True),
    "base_dir": _without_effect("every file below the Worker's folder belongs to its bundle"),
    "build": _without_effect("no build command is run; build before you deploy"),
    "cache": _without_effect("no response is cached in front of a Worker"),
    "compliance_region": _without_effect("everything stays on this node"),
    "define": _without_effect(_BUNDLER, inherited=False),
    "dependencies_instrumentation": _without_effect("nothing is reported to Cloudflare", top_level_only=True),
    "dev": _without_effect("ports and addresses are options of `stellwerk dev`", top_level_only=True),
    "find_additional_modules": _without_effect("every file below the Worker's folder belongs to its bundle"),
    "first_party_worker": _without_effect("of use within Cloudflare only"),
    "jsx_factory": _without_effect(_BUNDLER),
    "jsx_fragment": _without_effect(_BUNDLER),
    "keep_names": _without_effect(_BUNDLER),
    "keep_vars": _without_effect("a deploy sets exactly the vars that the file has", top_level_only=True),
    "logpush": _without_effect("logs are read on the node"),
    "minify": _without_effect(_BUNDLER),
    "no_bundle": _without_effect(_BUNDLER),
    "observability": _without_effect("logs and metrics of every Worker are always kept"),
    "placement": _without_effect("a Worker runs where the node is"),
    "preserve_file_names": _without_effect("files always keep their names"),
    "preview_urls": _without_effect("versions have no addresses of their own"),
    "previews": _without_effect("versions have no addresses of their own"),
    "python_modules": _without_effect("everything in python_modules/ is installed"),
    "rules": _without_effect("every file below the Worker's folder belongs to its bundle"),
    "send_metrics": _without_effect("nothing is reported to Cloudflare", top_level_only=True),
    "tsconfig": _without_effect(_BUNDLER),
    "upload_source_maps": _without_effect(_BUNDLER),
    "workers_dev": _without_effect("`<name>.localhost` always leads to the Worker"),
    # -- bindings to come ---------------------------------------------------------------------------------------------
    "access": _refused("not built yet: access control in front of a Worker"),
    "analytics": _not_built("SQL over analytics"),
    "analytics_engine_datasets": _not_built("data points for analytics"),
    "assets": _refused("not built yet: static files in front of a Worker"),
    "connect": _not_built("raw sockets that a Worker listens on"),
    "d1_databases": _not_built("SQL databases"),
    "dispatch_namespaces": _not_built("Workers chosen by name at run time"),
    "durable_objects": _not_built("objects with storage of their own"),
    "exports": _refused("not built yet: declare workflows in `workflows`"),
    "flagship": _not_built("feature flags"),
    "hyperdrive": _not_built("pooled database connections; connect directly and name the host in `[egress] allow`"),
    "images": _not_built("transformation of images"),
    "kv_namespaces": _not_built("key-value stores"),
    "migrations": _refused("not built yet: it belongs to `durable_objects`"),
    "mtls_certificates": _not_built("client certificates for outgoing requests"),
    "queues": _not_built("producers and consumers of queues"),
    "r2_buckets": _not_built("buckets of files"),
    "ratelimits": _not_built("rate limits that a Worker asks"),
    "secrets_store_secrets": _not_built("secrets shared by several Workers; use .dev.vars or `secret put`"),
    "streaming_tail_consumers": _not_built("Workers that receive the traces of others"),
    "tail_consumers": _not_built("Workers that receive the traces of others"),
    "triggers": _refused("not built yet: `crons` and `events`"),
    "version_metadata": _not_built("a binding that tells a Worker its version"),
    # -- not offered --------------------------------------------------------------------------------------------------
    "addresses": _refused("Stellwerk does not offer e-mail", top_level_only=True),
    "agent_memory": _not_offered("AI"),
    "ai": _not_offered("AI inference; call a model's HTTP API with fetch"),
    "ai_search": _not_offered("AI"),
    "ai_search_namespaces": _not_offered("AI"),
    "artifacts": _not_offered("Git storage"),
    "browser": _not_offered("browser rendering"),
    "cloudchamber": _not_offered("containers"),
    "containers": _not_offered("containers; any process may be called with fetch"),
    "data_blobs": _refused(
        "Stellwerk does not offer blob bindings; read the file from the bundle",
        top_level_only=True,
    ),
    "k2": _not_offered("Cloudflare's streams; use a workflow, or any broker's client"),
    "logfwdr": _refused("Stellwerk does not offer Cloudflare's internal log forwarding"),
    "media": _not_offered("transformation of videos"),
    "pages_build_output_dir": _refused("this is a Pages project; Stellwerk runs Workers", top_level_only=True),
    "pipelines": _not_offered("Pipelines"),
    "send_email": _not_offered("e-mail; call a mail service with fetch"),
    "site": _refused("Stellwerk does not offer Workers Sites, which Cloudflare has given up", top_level_only=True),
    "stream": _not_offered("video streaming"),
    "text_blobs": _refused(
        "Stellwerk does not offer blob bindings; read the file from the bundle",
        top_level_only=True,
    ),
    "unsafe": _not_offered("bindings that wrangler itself does not know"),
    "unsafe_hello_world": _not_offered("wrangler's sample binding"),
    "vectorize": _not_offered("vector indexes"),
    "vpc_networks": _not_offered("tunnels; name the host in `[egress] allow` and connect to it"),
    "vpc_services": _not_offered("tunnels; name the host in `[egress] allow` and connect to it"),
    "wasm_modules": _refused("Stellwerk runs native Python; use a wheel", top_level_only=True),
    "worker_loaders": _not_offered("Workers made of code that arrives at run time"),
    # -- of older wranglers, and of tools beside it: files still have them ---------------------------------------------
    "legacy_env": _without_effect("environments are always Workers of their own", top_level_only=True, in_schema=False),
    "node_compat": _without_effect("for JavaScript", in_schema=False),
    "package_manager": _without_effect("dependencies are installed with uv", top_level_only=True, in_schema=False),
    "usage_model": _without_effect("nothing is billed", in_schema=False),
}
"""Top-level keys; those without ``top_level_only`` are keys of ``env.<name>`` as well."""

NESTED_KEYS: Mapping[str, Mapping[str, KeyRule]] = {
    "secrets": {"required": _honoured("names that must have a value")},
    "services[]": {
        "binding": _honoured("its name in `env`"),
        "service": _honoured("the Worker's name"),
        "entrypoint": _honoured("the class, when it is not `Default`"),
        "props": _honoured("`ctx.props` of the callee"),
        "remote": _refused("Stellwerk has no remote Workers; bind one that runs on this node"),
        "environment": KeyRule(
            state=State.REFUSED,
            reason="given up by Cloudflare; write `<worker>-<environment>` as `service`",
            in_schema=False,
        ),
    },
    "workflows[]": {
        "binding": _honoured("its name in `env`"),
        "name": _honoured("the workflow's name, unique on the node"),
        "class_name": _honoured("the WorkflowEntrypoint class"),
        "script_name": _honoured("the Worker that has the class, when it is another one"),
        "limits": _honoured("`steps`: at most 25,000"),
        "concurrency": _honoured("`limit`: instances that run at the same time; further ones stay queued"),
        "schedules": _refused("not built yet: instances created by a cron schedule"),
        "default_retention": _without_effect("not built yet: instances that ended are kept"),
        "jurisdiction": _without_effect("everything stays on this node"),
        "remote": KeyRule(
            state=State.REFUSED,
            reason="Stellwerk has no remote Workers; bind one that runs on this node",
            in_schema=False,
        ),
    },
    "workflows[].limits": {"steps": _honoured("default 10,000")},
    "workflows[].concurrency": {"limit": _honoured("default: no limit of its own")},
    "routes[]": {
        "pattern": _honoured("`host/path*`"),
        "custom_domain": _honoured("the whole host"),
        "zone_name": _without_effect("Stellwerk has no zones", quiet=True),
        "zone_id": _without_effect("Stellwerk has no zones", quiet=True),
        "enabled": _honoured("`false`: the custom domain is left out"),
        "previews_enabled": _without_effect("versions have no addresses of their own"),
    },
    "limits": {
        "cpu_ms": _honoured("at most 300,000"),
        "subrequests": _honoured("outgoing requests of one invocation"),
    },
}
"""Keys inside the honoured ones. ``services[]`` means each item of the list."""


def asks_for_nothing(value: object) -> bool:
    """Whether a key's value is as good as its absence: empty, ``false``, or an object of nothing but such values."""
    if isinstance(value, dict):
        return all(asks_for_nothing(item) for item in value.values())
    return value is None or value is False or value in ("", [])


def render_key_table() -> str:
    """The table as Markdown, for people who want to know whether their Worker will run."""
    parts = ["| key | what becomes of it | what for, or why not |", "|---|---|---|"]
    for state in State:
        rows = [(key, rule) for key, rule in WRANGLER_KEYS.items() if rule.state is state]
        for key, rule in sorted(rows):
            parts.append(_row(key, rule))
            for within, rules in NESTED_KEYS.items():
                if within.split("[")[0].split(".")[0] == key:
                    parts.extend(_row(f"{within}.{name}", nested) for name, nested in rules.items())
    return "\n".join(parts) + "\n"


def _row(key: str, rule: KeyRule) -> str:
    scope = "" if rule.inherited else " Not inherited by environments."
    return f"| `{key}` | {rule.state.value} | {rule.reason}.{scope} |"
