"""The federation of processes that the tests of a file share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import SITES, Deployed


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A coordinator and three hospitals that run."""
    deployed = Deployed(tmp_path_factory.mktemp("deployed"))
    for name in SITES:
        deployed.allow_split(name)
    try:
        deployed.start()
        yield deployed
    finally:
        deployed.stop()


@pytest.fixture(scope="module")
def undisturbed(federation: Deployed) -> Path:
    """The same experiment in one process."""
    return federation.local("undisturbed")
