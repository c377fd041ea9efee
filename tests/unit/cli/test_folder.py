"""What ``deploy`` uploads is what ``dev`` would run: two readers of a folder, one set of rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from stellwerk.cli.folder import read_folder
from stellwerk.core.errors import ConfigError
from stellwerk.node.workspace.files import collect_files


def a_folder(root: Path) -> Path:
    folder = root / "orders"
    for name in (
        "wrangler.jsonc",
        "stellwerk.toml",
        "entry.py",
        "pkg/inner.py",
        "pkg/data.bin",
        "pkg/wrangler.json",
        ".dev.vars",
        ".git/config",
        "lib/__pycache__/x.pyc",
        "lib/y.pyc",
        "lib/y.py",
        "node_modules/a.js",
        "python_modules/b/c.py",
        "lib/stellwerk.toml",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if name == "wrangler.jsonc" else name)
    (root / "outside.py").write_text("outside")
    (folder / "link.py").symlink_to(folder / "entry.py")
    (folder / "out.py").symlink_to(root / "outside.py")
    (folder / "secret.txt").symlink_to(folder / ".dev.vars")
    (folder / "circle").symlink_to(folder)
    (folder / "dead").symlink_to(folder / "nothing")
    return folder


def test_both_readers_take_the_same_files(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    ours, theirs = read_folder(folder), collect_files(folder, boundary=folder)
    assert ours.files == theirs.files
    assert sorted(ours.files) == ["entry.py", "lib/stellwerk.toml", "lib/y.py", "link.py", "python_modules/b/c.py"]
    assert len(ours.left_out) == len(theirs.notices) == 4


def test_defaults_come_from_the_nearest_settings_above_that_are_no_workers_own(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    assert read_folder(folder).workspace_settings is None
    (tmp_path / "stellwerk.toml").write_text("[limits]\nmemory_mb = 64\n")
    found = read_folder(folder).workspace_settings
    assert found is not None
    assert found.file == str(tmp_path / "stellwerk.toml")


def test_a_folder_without_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a Worker's folder"):
        read_folder(tmp_path)
