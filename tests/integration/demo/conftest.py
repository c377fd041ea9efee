"""The example's modules for its tests: it is no package, and several Workers have modules of the same names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

PIPELINE = Path(__file__).resolve().parents[3] / "examples" / "order-pipeline"

Load = Callable[[str], ModuleType]


@pytest.fixture
def pipeline() -> Path:
    return PIPELINE


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """``load("workers/validate/src/rules.py")``: imported as its own program would, and forgotten afterwards."""
    before = set(sys.modules)

    def load_file(path: str) -> ModuleType:
        file = PIPELINE / path
        monkeypatch.syspath_prepend(str(file.parent))
        return importlib.import_module(file.stem)

    yield load_file
    for name, module in list(sys.modules.items()):
        if name not in before and str(PIPELINE) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]
