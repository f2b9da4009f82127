"""What a server hands arms and seeds to, when several of them run at a time."""

from collections.abc import Callable, Sequence
from typing import Protocol

from flwr.serverapp import Grid

from fedrad.rounds.progress import ProgressCallback
from fedrad.rounds.worker_time import WorkerTime

__all__ = ["Run", "RunArm", "Scheduler"]

Run = tuple[str, int]
"""An arm and a seed."""
RunArm = Callable[[Run, Grid, ProgressCallback], None]
"""Runs an arm and seed on a grid, and reports its progress."""


class Scheduler(Protocol):
    """Runs several arms and seeds at a time."""

    spent: WorkerTime

    def run(
        self,
        runs: Sequence[Run],
        run_arm: RunArm,
        progress: ProgressCallback,
        given_up: Callable[[Run, str], None],
    ) -> None:
        """Run arms and seeds to their ends.

        Args:
            runs: those that cannot be spread over workers first.
            run_arm: runs one of them on a grid, and reports its progress.
            progress: receives the progress of all, in this process.
            given_up: called with a run that killed too many processes, and how.

        Raises:
            Exception: what `run_arm` raises; all other runs are stopped where they are.
        """
