"""The one training loop, with an opening for a penalty and one for a correction."""

from collections.abc import Callable, Iterable, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from fedrad.core.state import State
from fedrad.errors import ConfigError
from fedrad.training.objective import Objective
from fedrad.training.optimizers import Step

__all__ = ["Gradient", "Penalty", "clipped", "fit", "load"]

Gradient = Callable[[Any], Sequence[Tensor]]
"""(what a step sees) -> the gradients of its loss, in the order of the parameters."""

Penalty = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(parameters, the same before the first step) -> scalar that is added to the loss."""


def fit(
    model: nn.Module,
    params: Sequence[Tensor],
    batches: Iterable[Any],
    objective: Objective,
    step: Step,
    *,
    penalty: Penalty | None = None,
    correction: Sequence[Tensor] | None = None,
    clip: float | None = None,
    gradient: Gradient | None = None,
) -> tuple[int, float]:
    """Take one step a batch, changing the parameters in place.

    Args:
        model: [n, ...] -> logits [n, k]; is put into training mode.
        params: the parameters to train; others stay as they are.
        batches: (x, y) as the model and the objective take them, on the model's device; or what
            `gradient` takes.
        objective: its loss is the mean over a batch's labels.
        step: an optimiser's step over the same parameters.
        penalty: FedProx, Ditto; no part of the loss that is returned.
        correction: added to the gradients after clipping, in the order of params; SCAFFOLD.
        clip: the largest L2 norm of all gradients together.
        gradient: makes the gradients in place of the loss, which is then not known; DP-SGD.

    Returns:
        The number of steps, and the mean of their losses (0 without a step, nan if not known).
    """
    # Walking through all modules costs as much as a layer's step.
    if not model.training:
        model.train()
    start = [p.detach().clone() for p in params] if penalty else []
    total: Tensor | None = None
    unknown = torch.tensor(nan)
    steps = 0
    for batch in batches:
        grads: Sequence[Tensor]
        if gradient is not None:
            loss, grads = unknown, gradient(batch)
            if penalty:
                pull = torch.autograd.grad(penalty(params, start), params)
                grads = torch._foreach_add(list(grads), list(pull))
        else:
            x, y = batch
            loss = objective.loss(model(x), y)
            # autograd.grad: gradients are values, no `.grad` is left over for the next caller.
            goal = loss + penalty(params, start) if penalty else loss
            grads = torch.autograd.grad(goal, params)
        if clip is not None:
            grads = clipped(grads, clip)
        if correction is not None:
            grads = torch._foreach_add(list(grads), list(correction))
        step(grads)
        # A sum on the device: reading it here would make a GPU wait at every step.
        total = loss.detach().double() if total is None else total + loss.detach()
        steps += 1
    return steps, 0.0 if total is None else total.item() / steps


def clipped(grads: Sequence[Tensor], norm: float) -> Sequence[Tensor]:
    """Return the gradients, scaled so that their L2 norm is not above a limit.

    Equal to `torch.nn.utils.clip_grad_norm_`.

    >>> [round(g.item(), 3) for g in clipped([torch.tensor(3.0), torch.tensor(4.0)], 1.0)]
    [0.6, 0.8]
    """
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(grads))))
    scale = (norm / (total + 1e-6)).clamp(max=1.0)
    return torch._foreach_mul(list(grads), scale)


def load(own: State, state: State) -> None:
    """Copy a state into a model, every array of it.

    Args:
        own: the model's `state_dict()`, whose arrays are the model's own.
        state: what they become; is not changed.

    Raises:
        ConfigError: the names or shapes are not the model's.

    >>> model = nn.Linear(2, 1)
    >>> load(model.state_dict(), {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> model(torch.ones(1, 2)).item()
    2.0
    """
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())
        raise ConfigError(
            f"a state does not fit the model: {odd[0]} is in one only ({len(odd)} such)"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)}, the model's {tuple(value.shape)}"
            raise ConfigError(f"a state does not fit the model: {name} is {shapes}")
    torch._foreach_copy_(list(own.values()), [state[name] for name in own])
