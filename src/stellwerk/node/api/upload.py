"""An upload: the multipart form that wrangler, the Python SDK and our own CLI send, to a manifest and files.

Our CLI puts the parsed manifest under ``metadata.stellwerk`` and everything else is ignored; wrangler's metadata is
translated here. A module's name is its part's *filename*: wrangler writes it into name and filename, the Python SDK
names every part ``files``. A binding that this release cannot honour is refused by name, never dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from stellwerk.core import limits
from stellwerk.core.deployment.manifest import Manifest, ServiceBinding, WorkflowBinding
from stellwerk.core.errors import BundleError, InvalidRequestError
from stellwerk.node.api.requests import BodyTooLargeError

_KEPT_BY_DEFAULT = ("secret_text", "secret_key")
"""wrangler leaves ``keep_bindings`` out of a plain deploy and expects the secrets to survive it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Upload:
    """A parsed upload. ``files`` are relative to the bundle's root."""

    manifest: Manifest
    files: dict[str, bytes]
    message: str


async def parse_upload(request: Request, name: str, previous: Manifest | None) -> Upload:
    """Reads the form. ``previous`` is the serving version's manifest: secrets and inherited bindings come from it.

    Raises ``InvalidRequestError`` for a form or metadata that cannot be used, ``BundleError`` for files that cannot,
    ``BodyTooLargeError`` (413) past ``CONTROL_BODY_BYTES_MAX``.
    """
    metadata, files = await _read_form(request)
    declared = metadata.get("stellwerk")
    manifest = _parse_own(declared, name) if declared is not None else _translate(metadata, name, previous)
    manifest = _keep(manifest, previous, metadata.get("keep_bindings"))
    if manifest.main not in files:
        raise BundleError(
            f'The main module "{manifest.main}" is not among the {len(files)} uploaded files.',
            cure="Upload it under exactly that name.",
        )
    annotations = metadata.get("annotations")
    message = annotations.get("workers/message") if isinstance(annotations, dict) else None
    return Upload(manifest=manifest, files=files, message=message if isinstance(message, str) else "")


async def _read_form(request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    metadata: dict[str, Any] | None = None
    files: dict[str, bytes] = {}
    limited = Request(request.scope, _limited(request.receive))
    try:
        async with limited.form(
            max_files=limits.BUNDLE_FILES_MAX, max_fields=16, max_part_size=limits.UPLOAD_FIELD_BYTES_MAX
        ) as form:
            for name, value in form.multi_items():
                if name == "metadata":
                    text = await value.read() if isinstance(value, UploadFile) else value
                    metadata = _parse_metadata(text)
                elif isinstance(value, UploadFile):
                    _add_file(files, value.filename or name, await value.read())
    except HTTPException as error:
        raise InvalidRequestError(f"The upload is not a usable multipart form: {error.detail}") from error
    if metadata is None:
        raise InvalidRequestError(
            'The upload has no part "metadata".', cure="Send multipart/form-data as wrangler does."
        )
    return metadata, files


def _limited(receive: Callable[[], Any]) -> Callable[[], Any]:
    """The form parser bounds parts, not their sum; this bounds the sum."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message: Message = await receive()
        size += len(message.get("body", b""))
        if size > limits.CONTROL_BODY_BYTES_MAX:
            raise BodyTooLargeError(f"The upload is larger than {limits.CONTROL_BODY_BYTES_MAX} bytes.")
        return message

    return bounded


def _parse_metadata(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f'The part "metadata" is not JSON: {error}.') from error
    if not isinstance(value, dict):
        raise InvalidRequestError('The part "metadata" is not a JSON object.')
    return value


def _add_file(files: dict[str, bytes], escaped: str, data: bytes) -> None:
    name = escaped.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")  # as browsers escape a filename
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{name!r} is not a path inside a bundle.", cure="Use relative paths without '..'.")
    if name in files:
        raise BundleError(f"{name!r} was uploaded twice.")
    files[name] = data


def _parse_own(declared: object, name: str) -> Manifest:
    try:
        manifest = msgspec.convert(declared, Manifest)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f'"metadata.stellwerk" is not a manifest: {error}.') from error
    if manifest.name != name:
        raise InvalidRequestError(f'The manifest is of "{manifest.name}", the address of "{name}".')
    return manifest


def _translate(metadata: dict[str, Any], name: str, previous: Manifest | None) -> Manifest:
    main = metadata.get("main_module")
    if not isinstance(main, str) or not main.endswith(".py"):
        raise BundleError(
            f'"main_module" is {main!r}: Stellwerk runs Python Workers.',
            cure='Name a module that ends in ".py"; a JavaScript Worker cannot run here.',
        )
    flags = metadata.get("compatibility_flags") or []
    date = metadata.get("compatibility_date") or ""
    if not isinstance(date, str) or not isinstance(flags, list) or not all(isinstance(f, str) for f in flags):
        raise InvalidRequestError('"compatibility_date" must be a string and "compatibility_flags" a list of strings.')
    found = _Bindings(previous)
    bindings = metadata.get("bindings") or []
    if not isinstance(bindings, list):
        raise InvalidRequestError('"bindings" is not a list.')
    for binding in bindings:
        found.add(binding)
    return Manifest(
        name=name,
        main=main,
        compatibility_date=date,
        compatibility_flags=tuple(flags),
        vars=found.vars,
        secrets=found.secrets,
        services=tuple(found.services),
        workflows=tuple(found.workflows),
        routes=previous.routes if previous else (),  # wrangler sends routes by a call of their own
        settings=previous.settings if previous else Manifest(name=name, main=main, compatibility_date=date).settings,
        default=previous.default if previous else False,
    )


class _Bindings:
    """Collects wrangler's bindings by kind."""

    def __init__(self, previous: Manifest | None) -> None:
        self.vars: dict[str, Any] = {}
        self.secrets: dict[str, str] = {}
        self.services: list[ServiceBinding] = []
        self.workflows: list[WorkflowBinding] = []
        self._previous = previous

    def add(self, binding: object) -> None:
        if not isinstance(binding, dict) or not isinstance(binding.get("name"), str):
            raise InvalidRequestError('Each of "bindings" must be an object with a "name".')
        name, kind = binding["name"], binding.get("type")
        match kind:
            case "plain_text":
                self.vars[name] = _text(binding, "text")
            case "json":
                self.vars[name] = binding.get("json")
            case "secret_text":
                self.secrets[name] = _text(binding, "text")
            case "service":
                self.services.append(_service(name, binding))
            case "workflow":
                self.workflows.append(_workflow(name, binding))
            case "inherit":
                self._inherit(name)
            case _:
                raise InvalidRequestError(
                    f'The binding "{name}" is of type {kind!r}, which this release does not have.',
                    cure="Remove the binding, or run this Worker on Cloudflare until it is built.",
                )

    def _inherit(self, name: str) -> None:
        before = self._previous
        if before is not None:
            services = [s for s in before.services if s.binding == name]
            workflows = [w for w in before.workflows if w.binding == name]
            self.services += services
            self.workflows += workflows
            if name in before.vars:
                self.vars[name] = before.vars[name]
            if name in before.secrets:
                self.secrets[name] = before.secrets[name]
            if services or workflows or name in before.vars or name in before.secrets:
                return
        error = InvalidRequestError(f"inherit binding '{name}' is invalid: the serving version has none of that name")
        error.cloudflare_code = 10057
        raise error


def _text(binding: dict[str, Any], key: str) -> str:
    value = binding.get(key)
    if not isinstance(value, str):
        raise InvalidRequestError(f'The binding "{binding["name"]}" needs "{key}" as a string.')
    return value


def _service(name: str, binding: dict[str, Any]) -> ServiceBinding:
    props = binding.get("props")
    return ServiceBinding(
        binding=name,
        service=_text(binding, "service"),
        entrypoint=_text(binding, "entrypoint") if binding.get("entrypoint") else "Default",
        props=props if isinstance(props, dict) else None,
    )


def _workflow(name: str, binding: dict[str, Any]) -> WorkflowBinding:
    return WorkflowBinding(
        name=_text(binding, "workflow_name"),
        binding=name,
        class_name=_text(binding, "class_name"),
        script_name=_text(binding, "script_name") if binding.get("script_name") else None,
    )


def _keep(manifest: Manifest, previous: Manifest | None, kinds: object) -> Manifest:
    """Carries over from the serving version what the upload does not mention but wants to keep."""
    if previous is None:
        return manifest
    kept = kinds if isinstance(kinds, list) else _KEPT_BY_DEFAULT
    named = {*manifest.vars, *manifest.secrets, *(s.binding for s in manifest.services)}
    named |= {w.binding for w in manifest.workflows}
    secrets, variables = dict(manifest.secrets), dict(manifest.vars)
    if "secret_text" in kept:
        secrets |= {name: value for name, value in previous.secrets.items() if name not in named}
    variables |= {
        name: value
        for name, value in previous.vars.items()
        if name not in named and ("plain_text" if isinstance(value, str) else "json") in kept
    }
    return msgspec.structs.replace(manifest, secrets=secrets, vars=variables)


def render_bindings(manifest: Manifest) -> list[dict[str, Any]]:
    """A manifest's bindings in wrangler's shape, as read back: a secret's text is never in it."""
    rendered: list[dict[str, Any]] = []
    for name, value in manifest.vars.items():
        kind, key = ("plain_text", "text") if isinstance(value, str) else ("json", "json")
        rendered.append({"name": name, "type": kind, key: value})
    rendered += [{"name": name, "type": "secret_text"} for name in manifest.secrets]
    for service in manifest.services:
        shown = {"name": service.binding, "type": "service", "service": service.service}
        rendered.append(shown if service.entrypoint == "Default" else {**shown, "entrypoint": service.entrypoint})
    for flow in manifest.workflows:
        bound = {"name": flow.binding, "type": "workflow", "workflow_name": flow.name, "class_name": flow.class_name}
        rendered.append({**bound, "script_name": flow.script_name} if flow.script_name else bound)
    return rendered
