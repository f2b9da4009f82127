"""The ways to train several sites on one device, and what each cannot do.

`eager` is one site after the other and can do everything. `graph` replays one captured step for
all sites, `streams` trains a few at once in threads, `stacked` trains many as one network.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import torch

from fedrad.errors import ConfigError
from fedrad.training.devices.cuda_graph import GraphedFit, draws_at_random
from fedrad.training.devices.cuda_streams import StreamTrainer
from fedrad.training.devices.deferred_training import TrainingCall, one_by_one
from fedrad.training.devices.stacked import check_stackable, fit_stacked
from fedrad.training.fit import Fitted
from fedrad.training.local import LocalTask

__all__ = ["SMALL", "ConcurrencyMode", "Train", "mode_refusal", "most_at_once", "trainer_of"]

Train = Callable[[Sequence[TrainingCall]], list[Fitted]]
"""Trains some sites and returns what came of them, in their order."""

SMALL = 2_000_000
"""Parameters of a network for which stacking is tried; larger ones fill a device by themselves."""

_STREAMS = 4
_STACKED = 64


class ConcurrencyMode(StrEnum):
    """How several sites are trained on one device."""

    EAGER = "eager"
    GRAPH = "graph"
    STREAMS = "streams"
    STACKED = "stacked"


def most_at_once(way: ConcurrencyMode) -> int:
    """Return how many sites a way trains at once, whatever the memory."""
    return {ConcurrencyMode.STREAMS: _STREAMS, ConcurrencyMode.STACKED: _STACKED}.get(way, 1)


def trainer_of(way: ConcurrencyMode) -> Train:
    """Return what trains in a way. It keeps what it has captured, so each arm needs its own."""
    made: Mapping[ConcurrencyMode, Callable[[], Train]] = {
        ConcurrencyMode.EAGER: lambda: one_by_one,
        ConcurrencyMode.GRAPH: lambda: _Graph().train,
        ConcurrencyMode.STREAMS: lambda: StreamTrainer().train,
        ConcurrencyMode.STACKED: lambda: _stacked,
    }
    return made[way]()


def mode_refusal(way: ConcurrencyMode, asked: Sequence[TrainingCall]) -> str | None:
    """Return why a way cannot do a training, None if it can."""
    first = asked[0].task
    if way is ConcurrencyMode.EAGER:
        return None
    if way is not ConcurrencyMode.STACKED and first.device.type != "cuda":
        return f"needs a CUDA device, found {first.device}"
    if any(one.task.private is not None for one in asked):
        return "differential privacy trains with a gradient for every image"
    if draws_at_random(first.model):
        return "the network draws random numbers (dropout)"
    if way is ConcurrencyMode.STREAMS:
        return None
    if any(one.correction is not None for one in asked):
        return "the algorithm corrects gradients"
    if any(one.rounds != 1 for one in asked):
        return "several rounds are trained in one go"
    if any(one.penalty is not asked[0].penalty for one in asked):
        return "each site has a penalty of its own"
    if not all(_same_loss(one.task, first) for one in asked):
        return "each site has class weights of its own"
    return _not_stackable(first) if way is ConcurrencyMode.STACKED else None


def _not_stackable(task: LocalTask) -> str | None:
    try:
        check_stackable(task.model)
    except ConfigError as error:
        return str(error).removeprefix("model: ")
    if task.precision != torch.float32:
        return "stacked sites compute in float32"
    return None


def _same_loss(one: LocalTask, other: LocalTask) -> bool:
    if one.weights is None or other.weights is None:
        return one.weights is other.weights
    return torch.equal(one.weights, other.weights)


def _stacked(asked: Sequence[TrainingCall]) -> list[Fitted]:
    return fit_stacked(
        [one.task for one in asked],
        [one.start for one in asked],
        round=asked[0].round,
        penalty=asked[0].penalty,
    )


class _Graph:
    """The step of the first site that comes, for all of them."""

    def __init__(self) -> None:
        self._step: GraphedFit | None = None

    def train(self, asked: Sequence[TrainingCall]) -> list[Fitted]:
        if self._step is None:
            self._step = GraphedFit(asked[0].task, asked[0].penalty)
        return [self._step.fit(one.task, one.start, round=one.round) for one in asked]
