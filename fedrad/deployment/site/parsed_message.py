"""What a message asks of a site, as far as the guard could read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedrad.config import Experiment
from fedrad.core.state import Bundle
from fedrad.deployment.reply_spec import ReplySpec

__all__ = ["LONGEST", "RoundKey", "TaskRequest", "message_number", "round_of"]

LONGEST = 100
"""Letters of a name from outside that the log keeps."""

RoundKey = tuple[int, str, str, int, int]
"""Run, experiment's digest, arm, seed, round."""


@dataclass(frozen=True)
class TaskRequest:
    """What a message asks for, as far as it could be read.

    Of a description, `arms` and `seeds` are those that are going to run; none named is all.
    """

    run: int
    bytes_in: int
    experiment: Experiment | None
    digest: str
    arm: str
    seed: int
    round: int
    action: str
    sent: Bundle
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    look: ReplySpec | None = None
    updates: frozenset[str] = frozenset()

    @staticmethod
    def unread(run: int) -> "TaskRequest":
        """Return what is known of a message before it is read: its run."""
        return TaskRequest(run, 0, None, "", "", 0, 0, "", {})

    @property
    def actions(self) -> list[str]:
        """Return what is asked for: several may be in one message, as "fit+validate"."""
        return self.action.split("+")

    @property
    def key(self) -> RoundKey:
        """Return the round that the message belongs to."""
        return self.run, self.digest, self.arm, self.seed, self.round


def message_number(value: Any) -> int:
    """Return a whole number of a message, or 0 of what is none that the log can keep."""
    return value if isinstance(value, int) and abs(value) < 1 << 63 else 0


def round_of(line: Mapping[str, Any]) -> RoundKey:
    """Return the round that a line of the log is about."""
    return line["run"], line["experiment"], line["arm"], line["seed"], line["round"]
