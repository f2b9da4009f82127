"""Training that a site's half asked for, as a value: it can be kept, cut short and put together.

A site's half of an algorithm is a function without other effects. So it can be run until it asks
for training, and once more when the answer is known; meanwhile others' training joins its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedrad.core.state import State
from fedrad.training.fit import Fitted, Penalty
from fedrad.training.local import LocalTask

__all__ = ["TrainingCall", "TrainingRequested", "one_by_one", "shortened"]


@dataclass(frozen=True, eq=False)
class TrainingCall:
    """What `LocalTask.fit` was called with, and on what."""

    task: LocalTask
    start: State
    round: int
    rounds: int = 1
    penalty: Penalty | None = None
    correction: State | None = None

    def fit(self) -> Fitted:
        """Train now, as `LocalTask.fit`."""
        return self.task.fit(
            self.start,
            round=self.round,
            rounds=self.rounds,
            penalty=self.penalty,
            correction=self.correction,
        )


class TrainingRequested(BaseException):
    """Training was asked for, and whoever runs the site's half does it first.

    No Exception: what catches a site's errors must let it through.
    """

    def __init__(self, training: TrainingCall) -> None:
        self.training = training


def one_by_one(asked: Sequence[TrainingCall]) -> list[Fitted]:
    """Train one site after the other."""
    return [one.fit() for one in asked]


def shortened(asked: Sequence[TrainingCall], most: int) -> list[TrainingCall]:
    """Return the same with few steps: so many where most were asked for, elsewhere in proportion.

    Sites without a step to take are left out.
    """
    steps = [one.task.steps_per_round() for one in asked]
    return [
        replace(one, task=one.task.varied(steps=-(-n * most // max(steps)), epochs=None))
        if max(steps) > most
        else one
        for one, n in zip(asked, steps, strict=True)
        if n
    ]
