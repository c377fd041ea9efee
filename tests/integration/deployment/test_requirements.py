"""What a Worker's files say about its dependencies, and what they may not say."""

from __future__ import annotations

import pytest

from stellwerk.core.errors import DependencyError
from stellwerk.node.deployment.requirements import read_requirements


def lines_of(**files: str) -> tuple[str, ...]:
    names = {"pyproject": "pyproject.toml", "requirements": "requirements.txt"}
    return read_requirements({names[k]: v.encode() for k, v in files.items()}, python_version="3.11.7").lines


def test_both_files_count_together_each_requirement_once() -> None:
    pyproject = '[project]\ndependencies = ["six", "httpx>=0.28 ; python_version >= \'3.8\'"]'
    assert lines_of(pyproject=pyproject, requirements="six\nhttpx==0.28.1\n") == (
        "httpx==0.28.1",
        'httpx>=0.28; python_version >= "3.8"',
        "six",
    )


def test_comments_blank_lines_continuations_and_hashes_of_a_pinned_file_are_read() -> None:
    digest = "a" * 64
    hashes = f"    --hash=sha256:{digest} \\\n    --hash=sha256:{'b' * 64}\n"
    text = f"# made by a tool\n\nsix==1.17.0 \\\n{hashes}    # via orders\n"
    assert lines_of(requirements=text) == (f"six==1.17.0 --hash=sha256:{digest} --hash=sha256:{'b' * 64}",)


@pytest.mark.parametrize(
    "line",
    ["-e .", "--no-binary :all:", "--index-url https://evil.example", "-r other.txt", "--find-links /", "-c c.txt"],
)
def test_options_for_the_installer_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(DependencyError, match=r"requirements\.txt:2: options are not accepted"):
        lines_of(requirements=f"six\n{line}\n")


@pytest.mark.parametrize(
    "line", ["./local", "six --no-binary six", "git+https://example.com/x.git", "six ==", "a b", "six --hash=md5:12"]
)
def test_what_is_not_a_named_requirement_is_refused(line: str) -> None:
    with pytest.raises(DependencyError, match=r"requirements\.txt:1"):
        lines_of(requirements=line)


@pytest.mark.parametrize(
    "url",
    ["git+https://example.com/x.git", "file:///etc/x.whl", "http://example.com/x.whl", "https://example.com/x.tar.gz"],
)
def test_only_https_links_to_wheels_are_taken(url: str) -> None:
    with pytest.raises(DependencyError, match="not an https link to a wheel"):
        lines_of(pyproject=f'[project]\ndependencies = ["x @ {url}"]')
    good = "x @ https://example.com/x-1-py3-none-any.whl"
    assert lines_of(pyproject=f'[project]\ndependencies = ["{good}"]') == (good,)


def test_the_sdk_and_tools_of_cloudflare_are_left_out_with_a_notice() -> None:
    text = "Workers_Py\nworkers-runtime-sdk>=1\nwebtypy\nsix"
    read = read_requirements({"requirements.txt": text.encode()}, python_version="3.11.7")
    assert read.lines == ("six",)
    assert len(read.notices) == 3 and "Workers_Py" in "".join(read.notices)


def test_a_python_that_does_not_fit_is_a_notice_that_names_both() -> None:
    read = read_requirements({"pyproject.toml": b'[project]\nrequires-python = ">=3.12"'}, python_version="3.11.7")
    assert read.notices == ("pyproject.toml asks for Python >=3.12, but this Worker runs on Python 3.11.7.",)
    assert not read_requirements(
        {"pyproject.toml": b'[project]\nrequires-python = ">=3.11"'}, python_version="3.11.7"
    ).notices


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pyproject.toml": b"[project"}, "not valid TOML"),
        ({"pyproject.toml": b'[project]\ndependencies = "six"'}, "not a list of texts"),
        ({"requirements.txt": b"\xff\xfe"}, "not UTF-8"),
        ({"requirements.txt": b"six\n" * 100_000}, "400,000 bytes"),
        ({"requirements.txt": "\n".join(f"p{n}" for n in range(501)).encode()}, "501 dependencies"),
    ],
)
def test_a_broken_file_is_an_error_that_says_what_is_wrong(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(DependencyError, match=words):
        read_requirements(files, python_version="3.11.7")


@pytest.mark.parametrize(
    "text",
    ["project = 3", '[project]\ndynamic = "dependencies"\n[tool]\nuv = 1', "[tool.uv.sources]\nx = {path = 'x'}"],
)
def test_odd_tables_are_survived(text: str) -> None:
    assert lines_of(pyproject=text) == ()
