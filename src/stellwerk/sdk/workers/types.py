"""Names for annotations, as Cloudflare's ``workers.types`` has them."""

from __future__ import annotations

from typing import Any

from workers._headers import Headers
from workers.blob import BlobValue
from workers.entrypoints import Context
from workers.fetch import FetchKwargs
from workers.formdata import FormDataValue

JSBody = Any
Body = Any
RequestInitCfProperties = dict[str, Any]

__all__ = [
    "BlobValue",
    "Body",
    "Context",
    "FetchKwargs",
    "FormDataValue",
    "Headers",
    "JSBody",
    "RequestInitCfProperties",
]
