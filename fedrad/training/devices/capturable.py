"""Optimisers whose whole state is tensors, so that a CUDA graph can hold their step.

A captured step repeats its kernels with the same numbers; what changes from step to step (Adam's
count of steps) must therefore lie on the device. Equal to `optimizers.py` within rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CAPTURABLE", "Capturable"]


@dataclass(frozen=True)
class Capturable:
    """An optimiser: its step takes gradients, and `state` is what a new round sets to zero."""

    step: Callable[[Sequence[Tensor]], None]
    state: Sequence[Tensor]

    def reset(self) -> None:
        """Begin a round: no momentum, no steps taken."""
        if self.state:
            torch._foreach_zero_(list(self.state))


def _sgd(params: Sequence[Tensor], **options: Any) -> Capturable:
    params, lr = list(params), options["lr"]
    momentum, decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    momenta = [torch.zeros_like(p) for p in params] if momentum else []

    @torch.no_grad()
    def step(gradients: Sequence[Tensor]) -> None:
        grads = list(gradients)
        if decay:
            grads = list(torch._foreach_add(grads, params, alpha=decay))
        if momentum:
            # From zero, the first step's momentum is its gradient, as torch.optim has it.
            torch._foreach_mul_(momenta, momentum)
            torch._foreach_add_(momenta, grads)
            ahead = options.get("nesterov", False)
            grads = list(torch._foreach_add(grads, momenta, alpha=momentum)) if ahead else momenta
        torch._foreach_add_(params, grads, alpha=-lr)

    return Capturable(step, momenta)


def _adam(params: Sequence[Tensor], *, coupled: bool = True, **options: Any) -> Capturable:
    params, lr = list(params), options.get("lr", 0.001)
    one, two = options.get("betas", (0.9, 0.999))
    eps, decay = options.get("eps", 1e-8), options.get("weight_decay", 0.0 if coupled else 0.01)
    first, second = ([torch.zeros_like(p) for p in params] for _ in range(2))
    count = torch.zeros((), dtype=torch.float64, device=params[0].device)

    @torch.no_grad()
    def step(gradients: Sequence[Tensor]) -> None:
        count.add_(1)
        grads = list(gradients)
        if decay and coupled:
            grads = list(torch._foreach_add(grads, params, alpha=decay))
        elif decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_lerp_(first, grads, 1 - one)
        torch._foreach_mul_(second, two)
        torch._foreach_addcmul_(second, grads, grads, 1 - two)
        roots = torch._foreach_sqrt(second)
        torch._foreach_mul_(roots, (1 - two**count).rsqrt().float())
        torch._foreach_add_(roots, eps)
        moves = torch._foreach_div(first, roots)
        torch._foreach_mul_(moves, (-lr / (1 - one**count)).float())
        torch._foreach_add_(params, moves)

    return Capturable(step, [*first, *second, count])


def _adamw(params: Sequence[Tensor], **options: Any) -> Capturable:
    return _adam(params, coupled=False, **options)


CAPTURABLE: Mapping[str, Callable[..., Capturable]] = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}
"""By the names of `OPTIMIZERS`, with the same options."""
