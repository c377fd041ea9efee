"""What a Worker allows itself: the wall limit of a request, kept for it even when its code does not cooperate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.node.kit import ANode, a_worker, until

WALL_MS = 300


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ANode]:
    workspace = tmp_path_factory.mktemp("workspace")
    a_worker(
        workspace,
        "slow",
        """
        import asyncio, os, time
        from workers import Response, WorkerEntrypoint

        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                if request.url.endswith("/pid"):
                    return Response(str(os.getpid()))
                if request.url.endswith("/block"):
                    time.sleep(60)
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    print("cancelled")
                    raise
        """,
        toml=f"[limits]\nwall_ms = {WALL_MS}\n",
    )
    with ANode(workspace) as running:
        yield running


def test_a_request_that_outlasts_its_wall_limit_is_answered_503_and_its_work_cancelled(node: ANode) -> None:
    pid = node.ask("slow", "/pid").text
    since = len(node.output.lines)

    answer = node.ask("slow", "/wait", headers={"accept": "application/json"})

    assert answer.status_code == 503
    assert answer.json()["code"] == "worker.exceeded_limit"
    node.record(since=since, text="cancelled", worker="slow")
    assert node.ask("slow", "/pid").text == pid  # it obeyed, so it lives on


def test_a_handler_that_blocks_past_its_wall_limit_costs_its_isolate_and_nothing_else(node: ANode) -> None:
    pid = node.ask("slow", "/pid").text

    answer = node.ask("slow", "/block", headers={"accept": "application/json"})

    assert answer.status_code == 503
    assert answer.json()["code"] == "worker.exceeded_limit"

    def fresh() -> str | None:
        found = node.ask("slow", "/pid", headers={"accept": "application/json"})
        return found.text if found.status_code == 200 else None

    assert until(fresh, "an isolate that answers") != pid
