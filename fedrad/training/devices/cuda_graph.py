"""A training step captured once as a CUDA graph and replayed for every batch of every site.

A small network's step is dozens of short kernels, and starting them from Python takes longer than
they do. A graph starts all of them at once. On a CPU the same code runs without a graph, so that
what it computes is tested there; that a replay computes the same needs a CUDA device.
"""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn

from fedrad.core.state import State, all_finite, clone
from fedrad.errors import ConfigError, TrainingDivergedError
from fedrad.registry import split
from fedrad.training.devices.capturable import CAPTURABLE
from fedrad.training.fit import Penalty, clipped, load_into
from fedrad.training.local import Fitted, LocalTask

__all__ = ["GraphedFit", "draws_at_random"]

_WARM_UP = 3


class GraphedFit:
    """Trains sites one after the other with one captured step.

    Args:
        task: of any of the sites; the others' must be made of it by `at`.
        penalty: as for `LocalTask.fit`.

    Raises:
        ConfigError: the network draws random numbers: a replay would draw the same ones.
    """

    def __init__(self, task: LocalTask, penalty: Penalty | None = None) -> None:
        if draws_at_random(task.model):
            raise ConfigError("model: a captured step cannot draw random numbers (dropout)")
        self._task = task
        self._own = task.model.to(task.device).state_dict()
        self._params: list[Tensor] = [p for p in task.model.parameters() if p.requires_grad]
        self._start = [torch.empty_like(p) for p in self._params]
        name, options = split(task.optimizer, where="local.optimizer")
        self._optimizer = CAPTURABLE[name](self._params, **options)
        self._total = torch.zeros((), dtype=torch.float64, device=task.device)
        self._penalty = penalty
        self._graph: torch.cuda.CUDAGraph | None = None
        self._x, self._y = torch.empty(0), torch.empty(0)

    def fit(self, task: LocalTask, start: State, *, round: int) -> Fitted:
        """Train a site for a round, as `LocalTask.fit` does within rounding.

        Raises:
            TrainingDivergedError: the loss or a weight is no finite number.
        """
        steps = task.steps_per_round()
        if not steps:
            return Fitted(clone(start), task.examples, 0, 0.0)
        task.model.train()
        self._begin(start)
        with task.meter.spent("training"):
            for x, y in task.meter.each("data", task.batches(round, steps)):
                self._take(x, y)
            loss = self._total.item() / steps
        state = clone(self._own)
        if not (isfinite(loss) and all_finite({"model": state})):
            raise TrainingDivergedError(
                f"{task.site}: round {round}: no finite number after training"
            )
        return Fitted(state, task.examples, steps, loss)

    def _begin(self, start: State) -> None:
        load_into(self._own, start)
        self._optimizer.reset()
        self._total.zero_()
        with torch.no_grad():
            torch._foreach_copy_(self._start, self._params)

    def _take(self, x: Tensor, y: Tensor) -> None:
        """Take a step: by the graph, if the batch is as large as those that it was captured for."""
        if self._task.device.type != "cuda" or len(x) != self._task.batch:
            self._step(x, y)
            return
        if self._graph is None:
            done = [one.clone() for one in self._all()]
            self._capture(x, y)
            with torch.no_grad():
                torch._foreach_copy_(self._all(), done)
        self._x.copy_(x)
        self._y.copy_(y)
        assert self._graph is not None
        self._graph.replay()

    def _all(self) -> list[Tensor]:
        """Return all that a step changes."""
        return [*self._params, *self._optimizer.state, self._total]

    def _capture(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x.clone(memory_format=torch.preserve_format), y.clone()
        aside = torch.cuda.Stream(self._task.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self._task.device))
        # Libraries choose their algorithms and take memory in the first steps.
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._step(self._x, self._y)
        torch.cuda.current_stream(self._task.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step(self._x, self._y)

    def _step(self, x: Tensor, y: Tensor) -> None:
        task = self._task
        with torch.autocast(
            task.device.type, task.precision, task.precision != torch.float32, cache_enabled=False
        ):
            logits = task.model(x)
        loss = task.objective.loss(logits.float(), y)
        goal = loss + self._penalty(self._params, self._start) if self._penalty else loss
        grads: Sequence[Tensor] = torch.autograd.grad(goal, self._params)
        if task.clip is not None:
            grads = clipped(grads, task.clip)
        self._optimizer.step(grads)
        self._total += loss.detach()


def draws_at_random(model: nn.Module) -> bool:
    """Return whether a network draws random numbers in training.

    >>> draws_at_random(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    True
    """
    kinds = (nn.modules.dropout._DropoutNd, nn.RReLU)
    return any(isinstance(one, kinds) for one in model.modules())
