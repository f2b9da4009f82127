"""Several sites' small networks trained as one: weights stacked over sites, one kernel for all.

`torch.func` maps a step over the stack. Sites may have different numbers of images: a batch that is
short is filled up with images of weight 0, and a site that has taken all its steps keeps its
weights. Each site's batches, draws and optimiser are those of `LocalTask.fit`; results are equal
within rounding (`tests/training/test_stacked.py` says how far).

Axis letters: s sites, b images of a batch.
"""

from collections.abc import Iterator, Sequence
from math import isfinite

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedrad.core.state import State, all_finite, clone
from fedrad.errors import ConfigError, TrainingDivergedError
from fedrad.training.devices.cuda_graph import draws_at_random
from fedrad.training.fit import Penalty
from fedrad.training.local import Fitted, LocalTask

__all__ = ["check_stackable", "fit_stacked"]

Weights = tuple[Tensor, ...]


def check_stackable(model: nn.Module) -> None:
    """Refuse a network whose images are not independent of each other and of chance.

    Raises:
        ConfigError: it has BatchNorm, draws random numbers, or has arrays that are not trained.
    """
    if any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in model.modules()):
        raise ConfigError("model: sites with BatchNorm cannot be stacked; say norm: group")
    if draws_at_random(model):
        raise ConfigError("model: sites with dropout cannot be stacked")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if model.state_dict().keys() != trained:
        raise ConfigError("model: sites with arrays that are not trained cannot be stacked")


def fit_stacked(
    tasks: Sequence[LocalTask],
    starts: Sequence[State],
    *,
    round: int,
    penalty: Penalty | None = None,
) -> list[Fitted]:
    """Train sites for a round, all at once.

    Args:
        tasks: of the sites, made of one another by `LocalTask.at`.
        starts: each site's weights before; are not changed.
        round: as for `LocalTask.fit`.
        penalty: as for `LocalTask.fit`.

    Returns:
        What came of each site, in their order.

    Raises:
        ConfigError: the network cannot be stacked.
        TrainingDivergedError: a site's loss or weight is no finite number.
    """
    first = tasks[0]
    check_stackable(first.model)
    first.model.to(first.device).train()
    steps = [task.steps_per_round() for task in tasks]
    names = [name for name, p in first.model.named_parameters() if p.requires_grad]
    params = [
        torch.stack([start[name] for start in starts]).to(first.device).contiguous()
        for name in names
    ]
    totals = torch.zeros(len(tasks), dtype=torch.float64, device=first.device)
    if any(steps):
        with first.meter.spent("training"):
            _train(tasks, steps, names, params, totals, round, penalty)
    losses = (totals.cpu() / torch.tensor(steps).clamp(min=1)).tolist()
    found = []
    for k, task in enumerate(tasks):
        state = clone(starts[k]) | {
            name: value[k].clone() for name, value in zip(names, params, strict=True)
        }
        if not (isfinite(losses[k]) and all_finite({"model": state})):
            raise TrainingDivergedError(
                f"{task.site}: round {round}: no finite number after training"
            )
        found.append(Fitted(state, task.examples, steps[k], losses[k]))
    return found


def _train(
    tasks: Sequence[LocalTask],
    steps: Sequence[int],
    names: Sequence[str],
    params: list[Tensor],
    totals: Tensor,
    round: int,
    penalty: Penalty | None,
) -> None:
    """Take all steps, changing the stacked parameters and the sums of losses in place."""
    first = tasks[0]
    mapped = vmap(_slope(first, names, penalty))
    starts = tuple(p.clone() for p in params)
    move = first.stepper(params)
    left = torch.tensor(steps, device=first.device)
    streams = [
        task.meter.each("data", task.batches(round, n))
        for task, n in zip(tasks, steps, strict=True)
    ]
    for number in range(max(steps)):
        x, y, weight = _stack(streams, first)
        grads, losses = mapped(tuple(params), starts, x, y, weight)
        done = min(steps) <= number
        before = [p.clone() for p in params] if done else []
        move(grads)
        active = left > number
        if done:
            for p, old in zip(params, before, strict=True):
                p.copy_(torch.where(active.view(-1, *[1] * (p.dim() - 1)), p, old))
        totals += torch.where(active, losses, torch.zeros_like(losses))


def _slope(task: LocalTask, names: Sequence[str], penalty: Penalty | None):  # type: ignore[no-untyped-def]
    """Return (a site's parameters, the same at the start, x, y, weight) -> (gradients, loss)."""
    objective, model, clip = task.objective, task.model, task.clip

    def goal(
        params: Weights, start: Weights, x: Tensor, y: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, dict(zip(names, params, strict=True)), (x,)).float()
        losses = objective.losses(logits, y)
        per_image = weight.view(-1, *[1] * (losses.dim() - 1))
        read = ((y == y) * weight[:, None]).sum().clamp(min=1)
        loss = (losses * per_image).sum() / read
        return (loss + penalty(params, start) if penalty else loss), loss

    def slope(
        params: Weights, start: Weights, x: Tensor, y: Tensor, weight: Tensor
    ) -> tuple[Weights, Tensor]:
        grads, (_, loss) = grad_and_value(goal, has_aux=True)(params, start, x, y, weight)
        if clip is not None:
            norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
            grads = tuple(g * (clip / (norm + 1e-6)).clamp(max=1.0) for g in grads)
        return grads, loss

    return slope


def _stack(
    streams: Sequence[Iterator[tuple[Tensor, Tensor]]], task: LocalTask
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sites' next batches: x [s, b, ...], y [s, b, columns], weight [s, b] of 0 and 1.

    A site without a next batch gets one of weight 0.
    """
    batches = [next(stream, None) for stream in streams]
    shape = next(batch for batch in batches if batch is not None)
    size = max(len(batch[0]) for batch in batches if batch is not None)
    x = shape[0].new_zeros(len(batches), size, *shape[0].shape[1:])
    y = shape[1].new_zeros(len(batches), size, *shape[1].shape[1:])
    weight = torch.zeros(len(batches), size)
    for k, batch in enumerate(batches):
        if batch is not None:
            n = len(batch[0])
            x[k, :n], y[k, :n], weight[k, :n] = batch[0], batch[1], 1.0
    return x, y, weight.to(task.device, non_blocking=True)
