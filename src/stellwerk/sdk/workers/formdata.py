"""``FormData``: an ordered list of entries in which a name may occur several times, as Cloudflare's SDK has it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from workers._js import JsProxy, js_text, jsnull, revivers
from workers.blob import Blob, File, JsBlob

FormDataValue = Any  # str, Blob or File


def _entry(value: Any, filename: str | None = None) -> Any:
    """A value as an entry holds it: text, or a File."""
    blob = value._blob if isinstance(value, JsBlob) else value
    if not isinstance(blob, Blob):
        return js_text(value)
    if isinstance(blob, File) and filename is None:
        return blob
    if filename is None:
        return File(blob._data, "blob", blob.content_type)
    return File(blob, filename)


class FormData(MutableMapping[str, FormDataValue]):
    """Iterating yields a name once per entry. A missing name reads as null, not as ``KeyError``: as on Cloudflare."""

    def __init__(self, form_data: Any = None) -> None:
        self._entries: list[tuple[str, Any]] = []
        if isinstance(form_data, JsFormData):
            form_data = form_data._form
        if isinstance(form_data, FormData):
            self._entries = list(form_data._entries)
        elif isinstance(form_data, dict):
            for name, value in form_data.items():
                self._entries.append((js_text(name), _entry(value)))
        elif form_data is not None:
            raise TypeError("Expected form_data to be a dict or an instance of FormData")

    @classmethod
    def _of(cls, entries: list[tuple[str, Any]]) -> FormData:
        made = cls()
        made._entries = entries
        return made

    @property
    def js_object(self) -> JsFormData:
        return JsFormData(self)

    def __getitem__(self, key: str) -> FormDataValue:
        return next((value for name, value in self._entries if name == key), jsnull)

    def __setitem__(self, key: str, value: FormDataValue) -> None:
        if isinstance(value, list):
            raise TypeError("Expected single item in arguments to FormData.__setitem__")
        self._replace(key, _entry(value))

    def _replace(self, key: str, value: Any) -> None:
        for index, (name, _) in enumerate(self._entries):
            if name == key:
                rest = [entry for entry in self._entries[index + 1 :] if entry[0] != key]
                self._entries[index:] = [(key, value), *rest]
                return
        self._entries.append((key, value))

    def append(self, key: str, value: FormDataValue, filename: str | None = None) -> None:
        self._entries.append((js_text(key), _entry(value, filename)))

    def delete(self, key: str) -> None:
        self._entries = [entry for entry in self._entries if entry[0] != key]

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self._entries)

    def get(self, key: str, default: Any = None) -> Any:
        return next((value for name, value in self._entries if name == key), default)

    def get_all(self, key: str) -> list[FormDataValue]:
        return [value for name, value in self._entries if name == key]

    getAll = get_all

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._entries])

    def keys(self) -> Any:
        return iter([name for name, _ in self._entries])

    def values(self) -> Any:
        return iter([value for _, value in self._entries])

    def items(self) -> Any:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"FormData({self._entries!r})"

    def __rpc_value__(self) -> tuple[str, Any]:
        return "FormData", [[name, value] for name, value in self._entries]


class JsFormData(JsProxy):
    """JavaScript's view of a ``FormData``; changes go through."""

    def __init__(self, form: FormData | None = None) -> None:
        self._form = form if form is not None else FormData()

    def append(self, name: str, value: Any, filename: str | None = None) -> None:
        self._form.append(name, value, filename)

    def set(self, name: str, value: Any, filename: str | None = None) -> None:
        self._form._replace(js_text(name), _entry(value, filename))

    def get(self, name: str) -> Any:
        return _js(self._form[name])

    def getAll(self, name: str) -> list[Any]:
        return [_js(value) for value in self._form.get_all(name)]

    def has(self, name: str) -> bool:
        return name in self._form

    def delete(self, name: str) -> None:
        self._form.delete(name)

    def entries(self) -> Iterator[list[Any]]:
        return iter([[name, _js(value)] for name, value in self._form._entries])

    def keys(self) -> Iterator[str]:
        return iter(self._form)

    def values(self) -> Iterator[Any]:
        return iter([_js(value) for _, value in self._form._entries])

    __iter__ = entries

    def __rpc_value__(self) -> tuple[str, Any]:
        return self._form.__rpc_value__()


def _js(value: Any) -> Any:
    return JsBlob(value) if isinstance(value, Blob) else value


revivers["FormData"] = lambda entries: FormData._of([(name, value) for name, value in entries])
