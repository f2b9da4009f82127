"""What all tests share: names for doctests, the real data's folder, one thread."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch


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
    root = Path(os.environ.get("FEDRAD_DATA", ""))
    if not os.environ.get("FEDRAD_DATA") or not root.is_dir():
        pytest.skip("FEDRAD_DATA names no folder of real data")
    return root
