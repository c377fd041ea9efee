"""Loading a workspace from real folders: which Workers are found, which files are theirs, what is said of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core import limits
from stellwerk.node.workspace.loader import Workspace, load_workspace

ENTRY = "from workers import WorkerEntrypoint\n"


def a_worker(folder: Path, name: str, *, main: str | None = "src/entry.py", **config: Any) -> Path:
    """A Worker's folder with its configuration and, unless ``main`` is None, its main module."""
    folder.mkdir(parents=True, exist_ok=True)
    declared = {
        "name": name,
        "main": main or "src/entry.py",
        "compatibility_date": "2026-01-01",
        "compatibility_flags": ["python_workers"],
        **config,
    }
    (folder / "wrangler.jsonc").write_text("// a comment\n" + json.dumps(declared, indent=2))
    if main:
        write(folder / main, ENTRY)
    return folder


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(workspace: Workspace) -> list[str]:
    return [source.manifest.name for source in workspace.workers]


def problem(workspace: Workspace) -> str:
    [found] = workspace.problems
    return str(found)


def test_workers_are_found_at_any_depth_in_order_of_name(tmp_path: Path) -> None:
    a_worker(tmp_path / "one", "charge")
    a_worker(tmp_path / "deep/er/two", "billing")
    found = load_workspace([tmp_path])
    assert names(found) == ["billing", "charge"]
    assert found.problems == ()
    assert found.workers[0].folder == tmp_path / "deep/er/two"
    assert found.workers[0].files == {"src/entry.py": ENTRY.encode()}


@pytest.mark.parametrize("folder", [".hidden", "node_modules", "python_modules", ".venv", "__pycache__"])
def test_folders_that_hold_nobodys_workers_are_not_searched(tmp_path: Path, folder: str) -> None:
    a_worker(tmp_path / "one", "charge")
    a_worker(tmp_path / folder / "two", "billing")
    assert names(load_workspace([tmp_path])) == ["charge"]


def test_a_workspace_may_be_a_list_of_folders_or_a_worker_itself(tmp_path: Path) -> None:
    one, two = a_worker(tmp_path / "one", "charge"), a_worker(tmp_path / "two/inner", "billing")
    assert names(load_workspace([one, tmp_path / "two", two])) == ["billing", "charge"]


def test_everything_below_the_folder_is_in_the_bundle_but_no_secret_no_cache_and_no_configuration(
    tmp_path: Path,
) -> None:
    folder = a_worker(tmp_path / "one", "charge")
    kept = {
        "src/lib/a.py",
        "data/rates.csv",
        "pyproject.toml",
        "tests/test_a.py",
        "python_modules/six.py",
        "data/wrangler.toml.txt",
    }
    for name in kept:
        write(folder / name)
    for name in (
        *(".dev.vars", ".dev.vars.staging", ".env", ".git/config", "src/.secret", "stellwerk.toml"),
        *("node_modules/x.js", ".venv/bin/python", "src/__pycache__/a.pyc", "src/b.pyc"),
    ):
        write(folder / name, "" if name.startswith(".dev") or name == "stellwerk.toml" else "x")
    [source] = load_workspace([tmp_path]).workers
    assert set(source.files) == kept | {"src/entry.py"}


def test_a_worker_below_a_worker_is_not_part_of_it(tmp_path: Path) -> None:
    outer = a_worker(tmp_path / "outer", "outer")
    a_worker(outer / "inner", "inner")
    found = load_workspace([outer])
    assert names(found) == ["inner", "outer"]
    assert set(found.workers[1].files) == {"src/entry.py"}


def test_links_are_followed_within_the_workspace_and_never_to_what_is_hidden(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    folder = a_worker(root / "one", "charge")
    write(root / "shared/money.py", "CENT = 1")
    write(tmp_path / "outside/private.txt")
    write(folder / ".dev.vars", "KEY=secret")
    for name, target in {
        "src/shared": root / "shared",
        "src/outside": tmp_path / "outside",
        "src/secret.txt": folder / ".dev.vars",
        "src/again": folder / "src",
        "src/nothing": root / "none",
    }.items():
        (folder / name).symlink_to(target)
    [source] = load_workspace([root]).workers
    assert set(source.files) == {"src/entry.py", "src/shared/money.py"}
    assert len(source.notices) == 4
    assert any("src/secret.txt is left out" in notice for notice in source.notices)


def test_secrets_of_dev_vars_are_in_the_manifest_and_an_environment_may_have_its_own(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge", env={"staging": {}, "live": {}})
    write(folder / ".dev.vars", "KEY=dev")
    write(folder / ".dev.vars.staging", "KEY=staging")
    secrets = {each: load_workspace([folder], each).workers[0].manifest.secrets for each in (None, "staging", "live")}
    assert secrets == {None: {"KEY": "dev"}, "staging": {"KEY": "staging"}, "live": {"KEY": "dev"}}
    assert names(load_workspace([folder], "staging")) == ["charge-staging"]


def test_the_root_settings_are_defaults_and_the_workers_own_win(tmp_path: Path) -> None:
    write(tmp_path / "stellwerk.toml", "[limits]\nmemory_mb = 256\nisolates_max = 2\n")
    write(a_worker(tmp_path / "one", "charge") / "stellwerk.toml", "[limits]\nmemory_mb = 512\n")
    a_worker(tmp_path / "two", "enrich")
    charge, enrich = (source.manifest.settings for source in load_workspace([tmp_path]).workers)
    assert (charge.memory_mb, charge.isolates_max) == (512, 2)
    assert (enrich.memory_mb, enrich.isolates_max) == (256, 2)


def test_a_main_module_that_is_not_there_names_file_line_key_and_the_nearest(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge", main=None)
    write(folder / "src/enty.py")
    found = load_workspace([tmp_path])
    assert found.workers == ()
    expected = 'main: found "src/entry.py", but the Worker has no such file. Did you mean "src/enty.py"?'
    assert problem(found) == f"{folder}/wrangler.jsonc:4: {expected}"


def test_a_main_module_of_an_environment_is_missed_at_its_own_line(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge", env={"live": {"main": "src/live.py"}})
    lines = (folder / "wrangler.jsonc").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if "src/live.py" in line)
    assert f"wrangler.jsonc:{number}: env.live.main" in problem(load_workspace([folder], "live"))


def test_one_broken_worker_does_not_hide_the_others(tmp_path: Path) -> None:
    a_worker(tmp_path / "good", "charge")
    broken = a_worker(tmp_path / "bad", "enrich")
    write(broken / "wrangler.jsonc", '{"name": "enrich",\n  "main": }')
    found = load_workspace([tmp_path])
    assert names(found) == ["charge"]
    assert f"{broken}/wrangler.jsonc:2" in problem(found)


def test_two_workers_of_one_name_are_both_named_and_neither_is_taken(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        a_worker(tmp_path / folder, "charge")
    a_worker(tmp_path / "three", "enrich")
    found = load_workspace([tmp_path])
    assert names(found) == ["enrich"]
    assert f'the Workers in {tmp_path}/one and {tmp_path}/two are both named "charge"' in problem(found)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe{}", "not UTF-8"), (b"", "wrangler.jsonc:1"), (b'{"name": "x"}', "main: it is missing")],
)
def test_a_configuration_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    (a_worker(tmp_path, "x") / "wrangler.jsonc").write_bytes(content)
    assert words in problem(load_workspace([tmp_path]))


def test_a_folder_without_workers_and_a_missing_folder_are_said(tmp_path: Path) -> None:
    assert "no Worker in this folder or below it" in problem(load_workspace([tmp_path]))
    assert f"{tmp_path}/none: there is no such folder" in problem(load_workspace([tmp_path / "none"]))


def test_a_second_configuration_beside_the_first_is_said_to_be_unread(tmp_path: Path) -> None:
    write(a_worker(tmp_path, "charge") / "wrangler.toml", "")
    [source] = load_workspace([tmp_path]).workers
    assert "wrangler.toml beside it is not read" in source.notices[0]


def test_too_large_a_worker_is_a_problem_of_that_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUNDLE_BYTES_MAX", 100)
    write(a_worker(tmp_path / "one", "charge") / "big.bin", "x" * 101)
    a_worker(tmp_path / "two", "enrich")
    found = load_workspace([tmp_path])
    assert names(found) == ["enrich"]
    assert "the limit was passed at big.bin" in problem(found)


def test_a_search_through_too_many_folders_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKSPACE_FOLDERS_MAX", 10)
    for number in range(11):
        (tmp_path / f"f{number}").mkdir()
    assert "more than 10 folders" in problem(load_workspace([tmp_path]))


def test_two_loadings_of_the_same_folders_are_the_same_also_with_problems(tmp_path: Path) -> None:
    folder = a_worker(tmp_path / "one", "charge")
    a_worker(tmp_path / "two", "enrich", main=None)
    first = load_workspace([tmp_path])
    assert len(first.problems) == 1
    assert first.same_as(load_workspace([tmp_path]))
    write(folder / "src/entry.py", ENTRY + "# changed\n")
    assert not first.same_as(load_workspace([tmp_path]))


def test_a_folder_that_cannot_be_searched_hides_no_other(tmp_path: Path) -> None:
    a_worker(tmp_path / "one", "charge")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "up").symlink_to(tmp_path)
    locked = a_worker(tmp_path / "locked", "locked")
    locked.chmod(0)
    try:
        readable = os.access(locked, os.R_OK)  # root reads everything
        assert names(load_workspace([tmp_path])) == (["charge", "locked"] if readable else ["charge"])
    finally:
        locked.chmod(0o755)
