"""One node for all cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conformance.cloudflare.kit import Lab, write_lab
from tests.integration.node.kit import ANode


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    workspace = tmp_path_factory.mktemp("conformance")
    write_lab(workspace)
    # Before the flags became the default: errors lose their text, and dependencies are listed.
    write_lab(workspace, "old", compatibility_date="2026-01-01")
    with ANode(workspace) as node:
        yield Lab(node)
