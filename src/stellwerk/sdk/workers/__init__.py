"""Cloudflare's SDK for Python Workers, on native CPython: the names that a user's Worker imports.

``env``, ``waitUntil`` and ``wait_until`` are looked up on each access, because they belong to the host of the process.
"""

from __future__ import annotations

from typing import Any

from workers._env import current_env as _current_env
from workers._env import patch_env
from workers._env import wait_until as _wait_until
from workers._headers import Headers
from workers.blob import Blob, BlobEnding, BlobValue, File
from workers.entrypoints import Context, DurableObject, WorkerEntrypoint, WorkflowEntrypoint
from workers.fetch import FetchKwargs, fetch
from workers.formdata import FormData, FormDataValue
from workers.request import Request
from workers.response import FetchResponse, Response
from workers.rpc import RpcTarget as RpcTarget  # JavaScript's name; Cloudflare's own SDK for Python does not list it
from workers.rpc import python_from_rpc, python_to_rpc
from workers.types import Body, JSBody, RequestInitCfProperties
from workers.utils import handler, import_from_javascript

__all__ = [
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "DurableObject",
    "FetchKwargs",
    "FetchResponse",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "JSBody",
    "Request",
    "RequestInitCfProperties",
    "Response",
    "WorkerEntrypoint",
    "WorkflowEntrypoint",
    "env",
    "fetch",
    "handler",
    "import_from_javascript",
    "patch_env",
    "python_from_rpc",
    "python_to_rpc",
    "waitUntil",
    "wait_until",
]


def __getattr__(name: str) -> Any:
    if name == "env":
        return _current_env()
    if name in ("waitUntil", "wait_until"):
        return _wait_until
    raise AttributeError(f"module 'workers' has no attribute '{name}'")
