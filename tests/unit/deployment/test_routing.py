"""Which Worker answers: Cloudflare's patterns, ``<worker>.localhost``, and the default Worker."""

from __future__ import annotations

import fnmatch
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.deployment.manifest import Manifest, Route, ServiceBinding, WorkflowBinding
from stellwerk.core.deployment.routing import RouteTable, build_routes, default_worker, parse_pattern
from stellwerk.core.errors import ConfigError


def a_worker(name: str, *patterns: str, default: bool = False, calls: tuple[str, ...] = (), flow: str = "") -> Manifest:
    flows = (WorkflowBinding(name="flow", binding="FLOW", class_name="Flow", script_name=flow),) if flow else ()
    return Manifest(
        name=name,
        main="a.py",
        compatibility_date="2026-01-31",
        routes=tuple(Route(pattern=pattern) for pattern in patterns),
        services=tuple(ServiceBinding(binding=callee.upper(), service=callee) for callee in calls),
        workflows=flows,
        default=default,
    )


def a_table(**patterns: str) -> RouteTable:
    """One Worker per keyword, with one pattern; and no default Worker."""
    return build_routes([a_worker(name, pattern) for name, pattern in patterns.items()] + [a_worker("unrelated")])


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("example.com/*", ["example.com/", "example.com/a/b"], ["www.example.com/", "example.org/"]),
        ("example.com", ["example.com/"], ["example.com/a"]),
        ("example.com/a", ["example.com/a"], ["example.com/a/", "example.com/ab", "example.com/A"]),
        ("example.com/a*", ["example.com/a", "example.com/ab", "example.com/a/b"], ["example.com/b"]),
        ("*.example.com/*", ["a.example.com/", "a.b.example.com/x"], ["example.com/", "notexample.com/"]),
        ("*example.com/*", ["a.example.com/", "example.com/x", "notexample.com/"], ["example.org/"]),
        ("*/*", ["anything.at/all"], []),
        ("https://Example.COM/*", ["example.com/", "EXAMPLE.com:8787/", "example.com./"], []),
    ],
)
def test_a_pattern_matches_as_cloudflare_says(pattern: str, matching: list[str], other: list[str]) -> None:
    table = a_table(a=pattern)
    for url in matching + other:
        host, _, path = url.partition("/")
        assert table.match(host, "/" + path) == ("a" if url in matching else None), url


def test_the_most_specific_pattern_wins() -> None:
    table = build_routes(
        [
            a_worker("exact", "shop.example.com/cart"),
            a_worker("long", "shop.example.com/cart*", "shop.example.com/cart/items*"),
            a_worker("host", "shop.example.com/*"),
            a_worker("deep", "*.shop.example.com/*"),
            a_worker("wide", "*.example.com/*", "*.example.com/cart/items/very/long*"),
            a_worker("rest", "*/*"),
        ]
    )
    assert table.match("shop.example.com", "/cart") == "exact"
    assert table.match("shop.example.com", "/carts") == "long"
    assert table.match("shop.example.com", "/cart/items/very/long") == "long"
    assert table.match("shop.example.com", "/") == "host"
    assert table.match("a.shop.example.com", "/") == "deep"
    assert table.match("a.example.com", "/") == "wide"
    assert table.match("example.com", "/") == "rest"


def test_a_host_whose_paths_do_not_match_falls_to_wider_patterns() -> None:
    table = a_table(a="shop.example.com/cart*", b="*.example.com/*")
    assert table.match("shop.example.com", "/other") == "b"


def test_every_worker_answers_its_own_name_below_localhost() -> None:
    table = build_routes([a_worker("charge"), a_worker("notify")])
    assert table.match("charge.localhost", "/x") == "charge"
    assert table.match("Notify.localhost:8787", "/") == "notify"
    assert table.match("localhost:8787", "/") is None
    assert table.match("[::1]:8787", "/") is None


def test_a_route_below_another_workers_localhost_name_takes_its_paths() -> None:
    table = build_routes([a_worker("gateway", "charge.localhost/api/*"), a_worker("charge")])
    assert table.match("charge.localhost", "/api/x") == "gateway"
    assert table.match("charge.localhost", "/") == "charge"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "expected a host"),
        ("/path", "expected a host"),
        ("ftp://example.com/", 'found the scheme "ftp"'),
        ("a.*.com/", "a wildcard (*) may only be"),
        ("**.com/", "a wildcard (*) may only be"),
        ("a.com/*/b", "a wildcard (*) may only be"),
        ("a.com*", "a wildcard (*) may only be"),
        ("a.com:80/*", "a route has no port"),
        ("a.com/?q=1", "a route has no query"),
        ("a.com/#x", "a route has no query"),
        ("bücher.example/*", "ASCII form"),
        ("a b.com/*", "expected a host such as"),
        (".a.com/*", "expected a host such as"),
        ("a..com/*", "expected a host such as"),
        ("a.com/ü", "percent-encoded"),
        ("a.com/a b", "percent-encoded"),
    ],
)
def test_a_pattern_that_cloudflare_has_no_meaning_for_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pattern(pattern)
    assert says in caught.value.message


@pytest.mark.parametrize(("pattern", "says"), [("*.a.com", "Wildcard operators"), ("a.com/", "Paths are not allowed")])
def test_a_custom_domain_is_a_whole_host(pattern: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pattern(pattern, custom_domain=True)
    assert says in caught.value.message
    assert str(parse_pattern("a.com", custom_domain=True)) == "a.com/*"


def test_two_workers_cannot_claim_one_pattern() -> None:
    workers = [a_worker("b", "https://Example.com/*"), a_worker("a", "example.com/*")]
    with pytest.raises(ConfigError) as caught:
        build_routes(workers)
    assert caught.value.message == 'the Workers "a" and "b" both claim the route example.com/*.'
    with pytest.raises(ConfigError, match=r"charge\.localhost"):
        build_routes([a_worker("a", "charge.localhost/*"), a_worker("charge")])
    assert build_routes([a_worker("a", "example.com/*", "example.com/*")]).match("example.com", "/") == "a"


def test_the_rows_show_declared_routes_and_localhost_names() -> None:
    rows = build_routes([a_worker("b", "http://b.example/x*"), a_worker("a")]).rows
    assert [(row.pattern, row.worker, row.declared) for row in rows] == [
        ("a.localhost/*", "a", False),
        ("b.example/x*", "b", True),
        ("b.localhost/*", "b", False),
    ]


# -- the default Worker -----------------------------------------------------------------------------------------------


def test_the_declared_default_answers_what_no_route_claims() -> None:
    table = build_routes([a_worker("a"), a_worker("b", "b.example/x", default=True)])
    assert table.default == "b"
    assert table.match("127.0.0.1:8787", "/") == "b"
    assert table.match("b.example", "/y") == "b"


def test_two_defaults_are_an_error_that_names_both() -> None:
    with pytest.raises(ConfigError, match='the Workers "a" and "b" all say default = true'):
        build_routes([a_worker("a", default=True), a_worker("b", default=True)])


def test_an_only_worker_is_the_default() -> None:
    assert default_worker([a_worker("a", calls=("a",))]) == "a"
    assert default_worker([]) is None


def test_the_only_worker_that_no_other_binds_is_the_default() -> None:
    chain = [a_worker("gateway", flow="orders"), a_worker("orders", calls=("charge", "orders")), a_worker("charge")]
    assert default_worker(chain) == "gateway"
    assert default_worker([*chain, a_worker("other")]) is None
    assert default_worker([a_worker("a", calls=("b",)), a_worker("b", calls=("a",))]) is None


# -- properties -------------------------------------------------------------------------------------------------------

_HOSTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3).map(".".join)
_PATHS = st.lists(st.sampled_from(["", "a", "b", "ab"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
_PATTERNS = st.builds(
    lambda star, host, path, end: star + host + path + end,
    st.sampled_from(["", "*", "*."]),
    _HOSTS,
    _PATHS,
    st.sampled_from(["", "*"]),
)


def _matches(pattern: str, host: str, path: str) -> bool:
    """Each half on its own, since fnmatch's ``*`` would run over the slash between them."""
    host_part, _, path_part = pattern.partition("/")
    return fnmatch.fnmatchcase(host, host_part) and fnmatch.fnmatchcase(path, "/" + path_part)


def _specificity(pattern: str) -> tuple[bool, int, int, bool]:
    host, _, path = pattern.partition("/")
    return not host.startswith("*"), len(host.lstrip("*")), len(path.rstrip("*")), not path.endswith("*")


@given(st.lists(_PATTERNS, max_size=6, unique=True), _HOSTS, _PATHS)
def test_the_table_agrees_with_a_naive_search(patterns: list[str], host: str, path: str) -> None:
    """The model tries every pattern and takes the most specific of those that match."""
    table = build_routes(
        [a_worker(f"w{n}", pattern) for n, pattern in enumerate(patterns)] + [a_worker("x"), a_worker("y")]
    )
    found = [pattern for pattern in patterns if _matches(pattern, host, path)]
    expected = f"w{patterns.index(max(found, key=_specificity))}" if found else None
    assert table.match(host, path) == expected


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_our_error_and_prints_as_itself(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ConfigError:
        return
    assert parse_pattern(str(pattern)) == pattern


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_host_and_path_find_a_worker_or_none(host: str, path: str) -> None:
    assert build_routes([a_worker("a", "*.x/*"), a_worker("b")]).match(host, path) in ("a", None)


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "w7.localhost:8787", "w7.localhost"])
def test_a_match_costs_less_than_a_microsecond_and_does_not_grow_with_the_number_of_workers(host: str) -> None:
    """The bound is loose (best of many rounds, five times the budget) so that a busy machine does not fail it."""
    table = build_routes([a_worker(f"w{n}", f"w{n}.example/*", default=n == 0) for n in range(500)])
    rounds = timeit.repeat(lambda: table.match(host, "/api"), number=1_000, repeat=20)
    assert min(rounds) / 1_000 < 5e-6
