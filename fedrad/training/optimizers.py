"""The optimisers of local training, as functions; the same steps as torch.optim takes.

They are our own because the first `torch.optim` object of a process imports `torch._dynamo`, about
two seconds in every worker, and because a round's state is then a closure that ends with the round.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from fedrad.errors import ConfigError
from fedrad.registry import check_options, nearest, split

__all__ = ["OPTIMIZERS", "Step", "adam", "adamw", "sgd", "stepper"]

Step = Callable[[Sequence[Tensor]], None]
"""Takes the gradients, in the order of the parameters, and changes the parameters in place."""

NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


def sgd(
    params: Sequence[Tensor],
    *,
    lr: PositiveFloat,
    momentum: Share = 0.0,
    weight_decay: NotNegative = 0.0,
    nesterov: bool = False,
) -> Step:
    """Return the step of `torch.optim.SGD` without dampening.

    >>> w = torch.tensor([1.0])
    >>> sgd([w], lr=0.1)([torch.tensor([2.0])])
    >>> round(w.item(), 6)
    0.8
    """
    params = list(params)
    momenta: list[Tensor] = []

    @torch.no_grad()
    def step(gradients: Sequence[Tensor]) -> None:
        grads = list(gradients)
        if weight_decay:
            grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
        if momentum and not momenta:
            momenta.extend(grad.clone() for grad in grads)
        elif momentum:
            torch._foreach_mul_(momenta, momentum)
            torch._foreach_add_(momenta, grads)
        if momentum:
            ahead = torch._foreach_add(grads, momenta, alpha=momentum) if nesterov else momenta
            grads = list(ahead)
        torch._foreach_add_(params, grads, alpha=-lr)

    return step


def adam(
    params: Sequence[Tensor],
    *,
    lr: PositiveFloat = 0.001,
    betas: tuple[Share, Share] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NotNegative = 0.0,
) -> Step:
    """Return the step of `torch.optim.Adam`; its weight decay is added to the gradients.

    Kingma and Ba, ICLR 2015, https://arxiv.org/abs/1412.6980, Algorithm 1.

    >>> w = torch.tensor([1.0])
    >>> adam([w], lr=0.1)([torch.tensor([2.0])])
    >>> round(w.item(), 6)
    0.9
    """
    params = list(params)
    step = _adam(params, lr, betas, eps)

    def decayed(gradients: Sequence[Tensor]) -> None:
        with torch.no_grad():
            step(torch._foreach_add(list(gradients), params, alpha=weight_decay))

    return decayed if weight_decay else step


def adamw(
    params: Sequence[Tensor],
    *,
    lr: PositiveFloat = 0.001,
    betas: tuple[Share, Share] = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NotNegative = 0.01,
) -> Step:
    """Return the step of `torch.optim.AdamW`; its weight decay shrinks the parameters themselves.

    Loshchilov and Hutter, ICLR 2019, https://arxiv.org/abs/1711.05101, Algorithm 2.

    >>> w = torch.tensor([1.0])
    >>> adamw([w], lr=0.1, weight_decay=0.5)([torch.tensor([2.0])])
    >>> round(w.item(), 6)  # 1 - 0.1 * 0.5 - 0.1
    0.85
    """
    params = list(params)
    step = _adam(params, lr, betas, eps)

    def decayed(gradients: Sequence[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_mul_(params, 1 - lr * weight_decay)
        step(gradients)

    return decayed


def _adam(params: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> Step:
    first = [torch.zeros_like(p) for p in params]
    second = [torch.zeros_like(p) for p in params]
    steps = 0

    @torch.no_grad()
    def step(gradients: Sequence[Tensor]) -> None:
        nonlocal steps
        steps += 1
        grads = list(gradients)
        torch._foreach_lerp_(first, grads, 1 - betas[0])
        torch._foreach_mul_(second, betas[1])
        torch._foreach_addcmul_(second, grads, grads, 1 - betas[1])
        roots = torch._foreach_sqrt(second)
        torch._foreach_div_(roots, (1 - betas[1] ** steps) ** 0.5)
        torch._foreach_add_(roots, eps)
        torch._foreach_addcdiv_(params, first, roots, -lr / (1 - betas[0] ** steps))

    return step


OPTIMIZERS: Mapping[str, Callable[..., Step]] = {"adam": adam, "adamw": adamw, "sgd": sgd}


def stepper(
    spec: str | Mapping[str, Any], *, where: str = "local.optimizer"
) -> Callable[[Sequence[Tensor]], Step]:
    """Return what makes the optimiser that a spec names, over any parameters.

    The options are checked here, once: pydantic takes a millisecond, which is many steps of a small
    model.

    Raises:
        ConfigError: the name or an option does not fit.

    >>> w = torch.tensor([1.0])
    >>> stepper({"name": "sgd", "lr": 0.5})([w])([torch.tensor([1.0])])
    >>> w
    tensor([0.5000])
    """
    name, options = split(spec, where=where)
    builder = OPTIMIZERS.get(name)
    if builder is None:
        known = ", ".join(OPTIMIZERS)
        raise ConfigError(f"{where}: '{name}' is not one of {known}{nearest(name, OPTIMIZERS)}")
    return partial(builder, **check_options(builder, options, where=where, name=name))
