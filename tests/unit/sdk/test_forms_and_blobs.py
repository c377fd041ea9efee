"""``FormData``, ``Blob`` and ``File`` as platform-semantics 1.5 has them, and the two encodings of forms."""

from __future__ import annotations

import string
from typing import Any

import js
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyodide.ffi import jsnull
from tests.unit.sdk.a_host import over_the_wire, run
from workers import Blob, BlobEnding, File, FormData, Request, Response, _multipart


def test_a_form_is_a_mapping_in_which_names_repeat() -> None:
    form = FormData({"a": "1"})
    form.append("a", "2")
    form.append("b", 123)
    assert list(form.keys()) == list(form) == ["a", "a", "b"]
    assert list(form.values()) == ["1", "2", "123"]
    assert list(form.items()) == [("a", "1"), ("a", "2"), ("b", "123")]
    assert (form["a"], form.get_all("a"), "b" in form, "c" in form) == ("1", ["1", "2"], True, False)
    form["a"] = "3"
    assert form.get_all("a") == ["3"]
    del form["a"]
    form.delete("b")
    assert list(form) == [] and form


def test_a_missing_name_is_null_and_a_list_is_refused() -> None:
    form = FormData()
    assert form["x"] is jsnull and not form["x"]
    assert form.get("x", "default") == "default"
    with pytest.raises(TypeError, match=r"^Expected single item in arguments to FormData.__setitem__$"):
        form["x"] = ["a"]
    with pytest.raises(TypeError, match=r"^Expected form_data to be a dict or an instance of FormData$"):
        FormData("a=b")


def test_a_form_is_made_of_another_or_of_javascripts() -> None:
    view = js.FormData.new()
    view.append("a", "1")
    view.set("b", js.File.new(["x"], "f.txt", {"type": "text/plain"}))
    form = FormData(view)
    assert isinstance(form["b"], File)
    assert (form["a"], form["b"].name, form["b"].content_type) == ("1", "f.txt", "text/plain")
    assert list(FormData(form)) == ["a", "b"]
    form.js_object.append("c", "2")
    assert form["c"] == "2"
    assert form.js_object.get("b").name == "f.txt"


def test_blobs_in_a_form_become_files() -> None:
    form = FormData({"a": Blob("x", "text/csv")})
    form.append("b", Blob("y"), filename="metadata.json")
    assert (form["a"].name, form["a"].content_type, form["b"].name) == ("blob", "text/csv", "metadata.json")


def test_parts_of_a_blob_are_joined() -> None:
    async def main() -> None:
        inner = File("f", "n")
        blob = Blob(
            ["a", b"b", bytearray(b"c"), memoryview(b"xdx")[1:2], js.Uint8Array.of(101), inner, js.Blob.new(["g"])]
        )
        assert await blob.text() == "abcdefg"
        assert (blob.size, await Blob("grün").bytes(), await Blob(b"x").text()) == (7, "grün".encode(), "x")
        assert await Blob(memoryview(b"mv")).text() == "mv"
        assert await Blob("a\r\nb\rc", endings=BlobEnding.NATIVE).text() == "a\nb\nc"
        assert await blob.js_object.text() == "abcdefg"

    run(main())


def test_a_single_source_passes_its_type_on_and_a_list_does_not() -> None:
    blob = Blob("x", content_type="Text/Plain")
    assert blob.content_type == Blob(blob).content_type == "text/plain"
    assert Blob([blob]).content_type == "" == Blob("x").content_type
    assert Blob(blob, content_type="a/b").content_type == "a/b"
    file = File(blob, "f", last_modified=5)
    assert (file.content_type, file.last_modified) == ("text/plain", 5)
    assert File(file, "g").last_modified == 5
    assert File([file], "g").last_modified > 5


def test_an_unknown_part_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match=r"^Don't know how to handle <class 'int'> for Blob\(\)$"):
        Blob([1])


def test_slices_are_blobs() -> None:
    blob = Blob("hello", "a/b").slice(1, -1, "c/d")
    assert (run(blob.text()), blob.content_type, type(blob)) == ("ell", "c/d", Blob)
    assert File("hello", "f").slice(1).size == 4


def test_files_and_forms_travel_over_rpc() -> None:
    form = FormData({"a": "1", "f": File("x", "n.txt", "a/b", last_modified=7)})
    back = over_the_wire({"form": form, "blob": Blob("y", "c/d")})
    assert isinstance(back.form, FormData)
    file = back.form["f"]
    assert (file.name, file.content_type, file.last_modified, run(file.text())) == ("n.txt", "a/b", 7, "x")
    assert (back.blob.content_type, run(back.blob.text())) == ("c/d", "y")


def test_a_urlencoded_body_is_a_form() -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = Request("http://a/", method="POST", body="a=1&b=c+d%26&a=2&e=", headers=headers)
    assert list(run(request.form_data()).items()) == [("a", "1"), ("b", "c d&"), ("a", "2"), ("e", "")]


MULTIPART = (
    b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    b'--X\r\ncontent-type: image/png\r\ncontent-disposition: form-data; name="f%22"; filename="x;y.png"\r\n\r\n'
    b"\x00\r\n--Y\r\n\r\n--X--\r\n"
)


def test_a_multipart_body_is_a_form() -> None:
    headers = {"Content-Type": 'multipart/form-data; boundary="X"'}
    form = run(Request("http://a/", method="POST", body=MULTIPART, headers=headers).form_data())
    assert form["a"] == "one"
    file = form['f"']
    assert (file.name, file.content_type) == ("x;y.png", "image/png")
    assert run(file.bytes()) == b"\x00\r\n--Y\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"a=b"),
        ("multipart/form-data", MULTIPART),
        ("multipart/form-data; boundary=Y", MULTIPART),
        ("multipart/form-data; boundary=X", MULTIPART[:-7]),
        ("multipart/form-data; boundary=X", b"--X\r\n\r\n\r\nx\r\n--X--"),
        ("multipart/form-data; boundary=X", b"--Xy\r\n"),
        ("multipart/form-data; boundary=X", b"--X"),
        ("multipart/form-data; boundary=X", b""),
    ],
)
def test_what_is_no_form_is_a_type_error(content_type: str, body: bytes) -> None:
    with pytest.raises(TypeError):
        run(Response(body, headers={"content-type": content_type}).form_data())


# A percent sign stands for itself unless it begins one of the three escapes: the format itself is ambiguous there.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="%"), max_size=10)
types = st.text(string.ascii_lowercase + "/", min_size=1, max_size=8)
files = st.builds(lambda data, name, kind: File(data, name, kind), st.binary(max_size=50), names, types)


@given(st.lists(st.tuples(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | files), max_size=6))
def test_every_form_survives_multipart(entries: list[tuple[str, Any]]) -> None:
    if not entries:
        return
    back = _multipart.parse(*_multipart.encode(entries))
    assert [name for name, _ in back] == [name for name, _ in entries]
    for (_, value), (_, again) in zip(entries, back, strict=True):
        if isinstance(value, File):
            assert (again.name, again.content_type, again._data) == (value.name, value.content_type, value._data)
        else:
            assert again == value


@given(st.binary(max_size=100))
def test_garbage_is_a_form_or_a_type_error(body: bytes) -> None:
    try:
        _multipart.parse(b"--X" + body, "multipart/form-data; boundary=X")
    except TypeError:
        return
