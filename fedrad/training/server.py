"""What a server computes with in split learning: a model, an optimiser, no data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.core.timing import PhaseTimer
from fedrad.training.objective import Objective, objective
from fedrad.training.optimizers import Step, stepper

__all__ = ["ServerTask"]


@dataclass(frozen=True, eq=False)
class ServerTask:
    """The server's half of a `LocalTask`: same optimiser, same clipping, no images.

    Args:
        seed: the run's.
        task: what is learnt.
        build: returns a network, for its parts; its weights are not used.
        optimizer: as the sites'.
        clip: as the sites'.
        device: where to compute.
        meter: is told how long steps and evaluation take.
    """

    seed: int
    task: Task
    build: Callable[[], nn.Module]
    optimizer: str | Mapping[str, Any]
    clip: float | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    meter: PhaseTimer = field(default_factory=PhaseTimer)

    @cached_property
    def model(self) -> nn.Module:
        """Return the whole network, made when it is first asked for: only cut ones are."""
        return self.build()

    @cached_property
    def stepper(self) -> Callable[[Sequence[Tensor]], Step]:
        """Return what makes an optimiser over parameters."""
        return stepper(self.optimizer)

    def objective(self, weights: Tensor | None) -> Objective:
        """Return what is minimised, for labels that come to the server.

        Args:
            weights: the class weights of the site whose labels they are.
        """
        return objective(self.task, None if weights is None else weights.to(self.device))
