"""What all tests and doctests share: names, one thread, a cache of their own, and tiers.

A tier that this machine cannot run is skipped with its reason, never silently.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fedrad.core.gc_tuning import raise_gc_threshold, restore_gc_threshold

# All modules and tests are made before the first one runs, and stay to the end.
raise_gc_threshold()


def missing() -> dict[str, str]:
    """Return marker -> why its tests cannot run here."""
    found = {}
    if not torch.cuda.is_available():
        found["gpu"] = "no CUDA device"
    if shutil.which("chromium") is None:
        found["browser"] = "no chromium on the PATH"
    if find_spec("ray") is None:
        found["ray"] = "ray is not installed"
    if not Path(os.environ.get("FEDRAD_DATA") or "/nonexistent").is_dir():
        found["data"] = "FEDRAD_DATA names no folder of real data"
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tiers that this machine cannot run."""
    reasons = missing()
    for item in items:
        for marker in item.iter_markers():
            if marker.name in reasons:
                item.add_marker(pytest.mark.skip(reason=f"{marker.name}: {reasons[marker.name]}"))


def pytest_collection_finish() -> None:
    """Search for garbage as ever, but no more in what was imported and collected."""
    restore_gc_threshold()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tiers were left out."""
    for marker, reason in missing().items():
        terminalreporter.write_line(f"left out: tests marked {marker} ({reason})")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict) -> None:
    doctest_namespace.update(np=np, torch=torch, Path=Path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images go to a folder of the test run, never to the user's cache."""
    monkeypatch.setenv("FEDRAD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data, or a skip that says why."""
    root = os.environ.get("FEDRAD_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("FEDRAD_DATA names no folder of real data")
    return Path(root)
