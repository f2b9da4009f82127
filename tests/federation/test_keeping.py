"""A round that could not be written is never passed over in silence."""

from pathlib import Path
from typing import Any

import pytest

from fedrad.errors import RunError, SiteFailedError
from fedrad.rounds.checkpoint_writer import AsyncCheckpointWriter
from fedrad.runs import ArmFolder


class Full(ArmFolder):
    """A folder on a disk that is full."""

    def keep(self, number: int, state: Any, line: Any) -> None:
        """Fail as a full disk does."""
        raise RunError(f"round {number} could not be written")


def test_the_next_round_or_the_end_tells_that_a_round_was_not_written(tmp_path: Path) -> None:
    """The error comes a round later, but it comes, and the later round is not written either."""
    with (
        pytest.raises(RunError, match="round 1 could not"),
        AsyncCheckpointWriter(Full(tmp_path)) as keeping,
    ):
        keeping.keep(1, {}, {})
    keeping = AsyncCheckpointWriter(Full(tmp_path))
    keeping.keep(1, {}, {})
    with pytest.raises(RunError, match="round 1 could not"):
        keeping.keep(2, {}, {})


def test_what_else_went_wrong_is_raised_and_the_lost_round_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One error would hide the other."""
    with (
        pytest.raises(SiteFailedError, match="nord"),
        AsyncCheckpointWriter(Full(tmp_path)) as keeping,
    ):
        keeping.keep(1, {}, {})
        raise SiteFailedError("nord does not answer")
    assert "the last round was not kept: round 1 could not" in caplog.text
