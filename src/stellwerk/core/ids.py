"""Typed ids. At run time they are strings; to the type checker an instance id is not a version id.

Ids are made by ``node/clock.py`` and come in as arguments; here are only their types and the rules they must obey.
"""

from __future__ import annotations

import re
from typing import NewType

AccountId = NewType("AccountId", str)
WorkerName = NewType("WorkerName", str)
VersionId = NewType("VersionId", str)  # a UUID
WorkflowName = NewType("WorkflowName", str)
InstanceId = NewType("InstanceId", str)
StepKey = NewType("StepKey", str)  # "<kind>:<name>-<count>", unique within one incarnation

LOCAL_ACCOUNT = AccountId("local")
"""The one account of a node that serves a single owner. Multi-tenant nodes get theirs from the token."""

INSTANCE_ID_MAX = 100
_INSTANCE_ID = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9-_]*")
EVENT_TYPE_MAX = 100
STEP_NAME_MAX = 256
_CONTROL = re.compile("[\x00-\x1f]")
WORKFLOW_NAME_MAX = 64
WORKER_NAME_MAX = 63
_WORKER_NAME = re.compile(r"[a-z0-9_][a-z0-9-_]*")


def is_instance_id(text: str) -> bool:
    """Whether ``text`` may name an instance: letters, digits, ``-`` and ``_``, not ``-`` first, at most 100."""
    return len(text) <= INSTANCE_ID_MAX and _INSTANCE_ID.fullmatch(text) is not None


def is_event_type(text: str) -> bool:
    """Whether ``text`` may be the type of an event: the same alphabet as an instance id, at most 100 characters."""
    return len(text) <= EVENT_TYPE_MAX and _INSTANCE_ID.fullmatch(text) is not None


def is_step_name(text: str) -> bool:
    """Whether ``text`` may name a step: at most 256 characters, none of U+0000 to U+001F."""
    return len(text) <= STEP_NAME_MAX and _CONTROL.search(text) is None


def is_workflow_name(text: str) -> bool:
    return len(text) <= WORKFLOW_NAME_MAX and _INSTANCE_ID.fullmatch(text) is not None


def is_worker_name(text: str) -> bool:
    """Whether ``text`` may name a Worker: lower-case letters, digits, ``-`` and ``_``, at most 63 (a DNS label)."""
    return len(text) <= WORKER_NAME_MAX and _WORKER_NAME.fullmatch(text) is not None
