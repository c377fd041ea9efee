"""What the suite needs: a back end that opens stores on one state, and one builder per noun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from stellwerk.core.workflow.status import Status
from stellwerk.store.base import (
    Decision,
    DeploymentRow,
    InstanceRow,
    InstanceUpdate,
    JournalRow,
    Store,
    VersionRow,
)

ACCOUNT = "local"
WORKFLOW = "orders"
NOW = 1_764_000_000_000


class Backend(Protocol):
    """One state that outlives the stores opened on it."""

    async def open(self, owner: str = "node-1") -> Store: ...


def an_instance(
    instance_id: str = "order-1",
    *,
    account_id: str = ACCOUNT,
    workflow: str = WORKFLOW,
    incarnation: int = 1,
    status: Status = Status.QUEUED,
    created_at: int = NOW,
    ended_at: int | None = None,
    wake_at: int | None = None,
    owner: str = "",
    version_id: str = "version-1",
    versions: tuple[str, ...] = (),
) -> InstanceRow:
    return InstanceRow(
        account_id=account_id,
        workflow=workflow,
        instance_id=instance_id,
        incarnation=incarnation,
        status=status,
        worker="orders-worker",
        version_id=version_id,
        class_name="Orders",
        created_at=created_at,
        modified_at=created_at,
        ended_at=ended_at,
        wake_at=wake_at,
        owner=owner,
        versions=versions,
    )


def an_entry(seq: int, text: str = "", *, instance_id: str = "order-1", incarnation: int = 1) -> JournalRow:
    return (ACCOUNT, WORKFLOW, instance_id, incarnation, seq, NOW + seq, (text or f"entry {seq}").encode())


def an_update(
    status: Status,
    *,
    instance_id: str = "order-1",
    incarnation: int = 1,
    at: int = NOW + 1,
    started_at: int | None = None,
    ended_at: int | None = None,
    wake_at: int | None = None,
) -> InstanceUpdate:
    key = (ACCOUNT, WORKFLOW, instance_id, incarnation)
    return (status.value, at, started_at, ended_at, wake_at, *key)


def a_version(
    version_id: str, content: str, *, worker: str = "orders-worker", account_id: str = ACCOUNT, created_at: int = NOW
) -> VersionRow:
    return VersionRow(
        account_id=account_id,
        worker=worker,
        version_id=version_id,
        number=0,
        created_at=created_at,
        source="api",
        bundle=f"bundle of {content}",
        config=f'{{"content":"{content}"}}'.encode(),
        config_hash=f"hash of {content}",
        message=f"upload of {content}",
    )


def a_deployment(
    deployment_id: str,
    *versions: tuple[str, float],
    worker: str = "orders-worker",
    account_id: str = ACCOUNT,
    created_at: int = NOW,
) -> DeploymentRow:
    return DeploymentRow(
        account_id=account_id,
        worker=worker,
        deployment_id=deployment_id,
        created_at=created_at,
        versions=versions,
        source="api",
        message="",
    )


async def outcomes(store: Store, decisions: Sequence[Decision]) -> list[Exception | None]:
    """Submits them together; what each owner was told, in the order of ``decisions``."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Exception | None]] = []
    for decision in decisions:
        future: asyncio.Future[Exception | None] = loop.create_future()
        decision.done = future.set_result
        futures.append(future)
    store.submit(decisions)
    return list(await asyncio.gather(*futures))


async def record(store: Store, *decisions: Decision) -> None:
    """Submits them together and demands that all are stored."""
    failed = [error for error in await outcomes(store, decisions) if error is not None]
    if failed:
        raise failed[0]
