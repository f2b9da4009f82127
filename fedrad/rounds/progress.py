"""What is told while a run goes on."""

import logging
from collections.abc import Callable
from typing import Protocol

from fedrad.core.names import listed

__all__ = ["LoggedProgress", "Notify", "ProgressCallback"]

log = logging.getLogger(__name__)

Notify = Callable[[str], None]
"""Shows a sentence to whoever watches."""


class ProgressCallback(Protocol):
    """What is told while a run goes on; the terminal's and the log's displays look like this."""

    def start(self, arms: list[str], seeds: list[int], rounds: int) -> None:
        """Take note of all that will be run."""

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Take note that an arm begins, or goes on at a round."""

    def round_done(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        loss: float | None,
        value: float | None,
        seconds: float,
        missing: list[str],
        pace: str = "",
    ) -> None:
        """Take note of a finished round; the pace says how busy the workers were."""

    def arm_done(self, arm: str, seed: int, seconds: float) -> None:
        """Take note of a finished arm and seed."""

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Take note of an arm that cannot go on."""

    def skipped(self, arm: str, seed: int) -> None:
        """Take note of an arm that an earlier command has finished."""

    def note(self, text: str) -> None:
        """Take note of something worth a sentence."""


class LoggedProgress:
    """Progress as lines of the log, for runs that nobody watches."""

    def start(self, arms: list[str], seeds: list[int], rounds: int) -> None:
        """Log what will be run."""
        log.info("%d arms x %d seeds x %d rounds", len(arms), len(seeds), rounds)

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Log where an arm begins."""
        log.info("%s seed %d: from round %d", arm, seed, first_round)

    def round_done(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        loss: float | None,
        value: float | None,
        seconds: float,
        missing: list[str],
        pace: str = "",
    ) -> None:
        """Log one line a round."""
        lost = f", without {listed(missing)}" if missing else ""
        more = f"{lost}, {pace}" if pace else lost
        log.info("%s seed %d round %d: loss %s, %.1f s%s", arm, seed, round, loss, seconds, more)

    def arm_done(self, arm: str, seed: int, seconds: float) -> None:
        """Log that an arm is finished."""
        log.info("%s seed %d: finished, %.1f s", arm, seed, seconds)

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Log why an arm cannot go on."""
        log.warning("%s seed %d: stopped: %s", arm, seed, reason)

    def skipped(self, arm: str, seed: int) -> None:
        """Log that an arm was finished before."""
        log.info("%s seed %d: finished before", arm, seed)

    def note(self, text: str) -> None:
        """Log a sentence."""
        log.info("%s", text)
