"""The one training loop, with an opening for a penalty and one for a correction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from fedrad.core.state import State
from fedrad.errors import ConfigError
from fedrad.training.objective import Objective
from fedrad.training.optimizers import Step

__all__ = ["Fitted", "Gradient", "Penalty", "clipped", "clipping", "fit", "load_into"]

Gradient = Callable[[Any], Sequence[Tensor]]
"""(what a step sees) -> the gradients of its loss, in the order of the parameters."""

Penalty = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(parameters, the same before the first step) -> scalar that is added to the loss."""


@dataclass(frozen=True)
class Fitted:
    """What came of training.

    Args:
        state: the model after the last step; shares no memory with anything.
        examples: the site's training images.
        steps: gradient steps taken.
        loss: mean over the steps, without a penalty; 0 without a step, nan where it is private.
    """

    state: State
    examples: int
    steps: int
    loss: float


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
    precision: torch.dtype = torch.float32,
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
        precision: bfloat16 for a forward pass by autocast; the loss is taken in float32.
        gradient: makes the gradients in place of the loss, which is then not known; DP-SGD.

    Returns:
        The number of steps, and the mean of their losses (0 without a step, nan if not known).
    """
    # Walking through all modules costs as much as a layer's step.
    if not model.training:
        model.train()
    start = [p.detach().clone() for p in params] if penalty else []
    logits_of = model if precision == torch.float32 else _autocast(model, precision)
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
            loss = objective.loss(logits_of(x), y)
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
        # The next step's gradients take the memory of these.
        del grads
    return steps, 0.0 if total is None else total.item() / steps


def _autocast(model: nn.Module, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
    def logits(x: Tensor) -> Tensor:
        # Not around the backward pass, which takes each operation's kind from the forward pass.
        with torch.autocast(x.device.type, precision):
            found: Tensor = model(x)
        return found.float()

    return logits


def clipped(grads: Sequence[Tensor], norm: float) -> Sequence[Tensor]:
    """Return the gradients, scaled so that their L2 norm is not above a limit.

    Equal to `torch.nn.utils.clip_grad_norm_`.

    >>> [round(g.item(), 3) for g in clipped([torch.tensor(3.0), torch.tensor(4.0)], 1.0)]
    [0.6, 0.8]
    """
    scale = clipping(torch._foreach_norm(list(grads)), norm)
    return torch._foreach_mul(list(grads), scale)


def clipping(norms: Sequence[Tensor], limit: float) -> Tensor:
    """Return by what gradients are multiplied, so that their norm is not above a limit.

    Args:
        norms: L2 norm of each gradient, scalars, in the order of the parameters.
        limit: of the norm of all together.

    >>> round(clipping([torch.tensor(3.0), torch.tensor(4.0)], 1.0).item(), 3)
    0.2
    """
    total = torch.linalg.vector_norm(torch.stack(list(norms)))
    scale: Tensor = limit / (total + 1e-6)
    return scale.clamp(max=1.0)


def load_into(own: State, state: State) -> None:
    """Copy a state into a model, every array of it.

    Args:
        own: the model's `state_dict()`, whose arrays are the model's own.
        state: what they become; is not changed.

    Raises:
        ConfigError: the names or shapes are not the model's.

    >>> model = nn.Linear(2, 1)
    >>> load_into(model.state_dict(), {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
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
    # A part of a cut network may have no arrays.
    if own:
        torch._foreach_copy_(list(own.values()), [state[name] for name in own])
