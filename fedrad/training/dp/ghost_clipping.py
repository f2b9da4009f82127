"""Gradients of single units (patients, or images), clipped and summed, without keeping each one.

One forward pass, and one backward pass that stops at every layer's output. From a layer's input and
the gradient at its output follow each unit's norm ("ghost norm": Li, Tramèr, Liang, Hashimoto,
ICLR 2022, https://arxiv.org/abs/2110.05679; per layer the cheaper way, as Bu, Mao, Xu, NeurIPS
2022, https://arxiv.org/abs/2205.10683) and then, with outputs' gradients scaled, the clipped sum
(book-keeping: Bu, Wang, Zha, Karypis, ICML 2023, https://arxiv.org/abs/2210.00038). A unit's
gradient is the sum over its images, and is clipped as one.

Axis letters: n images, u units, t positions, i inputs, o outputs of a layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrad.errors import ConfigError
from fedrad.training.dp.grad_sample import layer_of

__all__ = ["PerImageLosses", "check_per_sample", "clipped_sum", "unit_gradients"]

PerImageLosses = Callable[[Tensor, Tensor], Tensor]
"""(logits, y) -> the loss of each image, [n, ...], which depends on that image alone."""


@dataclass(frozen=True)
class _Call:
    """A layer's input and the gradient at its output."""

    module: nn.Module
    x: Tensor
    gradient: Tensor


def check_per_sample(model: nn.Module) -> None:
    """Refuse a model in which an image's gradient depends on the other images of its batch.

    Raises:
        ConfigError: a layer normalises over the batch; names it.
    """
    for name, part in model.named_modules():
        batch = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if batch or getattr(part, "track_running_stats", False):
            raise ConfigError(
                f"privacy: the model's layer {name} is {type(part).__name__}, which mixes the "
                "patients of a batch, so no patient's share can be bounded; say norm: group"
            )


def unit_gradients(
    model: nn.Module,
    params: Sequence[Tensor],
    losses: PerImageLosses,
    x: Tensor,
    y: Tensor,
    unit: Tensor,
) -> list[Tensor]:
    """Return every unit's gradient by itself, [u, *shape] for each parameter.

    Args:
        model: in training mode.
        params: those to differentiate.
        losses: of each image.
        x: [n, ...].
        y: [n, columns].
        unit: int64 [n], from 0; of which unit an image is.
    """
    found: dict[int, Tensor] = {}
    for call in _calls(model, params, losses, x, y):
        layer = layer_of(call.module, call.x, call.gradient)
        found |= {id(p): _per_unit(g, unit) for p, g in layer.per_image().items()}
    return [found[id(p)] for p in params]


def clipped_sum(
    model: nn.Module,
    params: Sequence[Tensor],
    losses: PerImageLosses,
    x: Tensor,
    y: Tensor,
    unit: Tensor,
    *,
    clip: float,
    ghost: bool = True,
) -> list[Tensor]:
    """Return the sum over units of their gradients, each scaled to a norm of `clip` at most.

    A unit whose gradient is not finite is left out: its share is then 0, which is within the clip.

    Args:
        model: as for `unit_gradients`.
        params: as for `unit_gradients`.
        losses: as for `unit_gradients`.
        x: as for `unit_gradients`.
        y: as for `unit_gradients`.
        unit: as for `unit_gradients`.
        clip: the largest L2 norm over all parameters together.
        ghost: take norms without the gradients where that is cheaper; same result but by rounding.
    """
    if not len(x):
        return [torch.zeros_like(p) for p in params]
    squares = torch.zeros(int(unit.max()) + 1, device=x.device)
    layers = []
    for call in _calls(model, params, losses, x, y):
        layer = layer_of(call.module, call.x, call.gradient)
        squares = squares + layer.squared_norms(unit, len(squares), ghost=ghost)
        layers.append(layer)
    norms = squares.sqrt()
    sound = norms.isfinite()
    if not bool(sound.all()):
        keep = sound[unit]
        left = torch.unique(unit[keep], return_inverse=True)[1]
        return clipped_sum(model, params, losses, x[keep], y[keep], left, clip=clip, ghost=ghost)
    scale = (clip / norms).clamp(max=1.0)
    found: dict[int, Tensor] = {}
    for layer in layers:
        found |= {id(p): g for p, g in layer.weighted_sum(scale, unit).items()}
    return [found[id(p)] for p in params]


def _calls(
    model: nn.Module, params: Sequence[Tensor], losses: PerImageLosses, x: Tensor, y: Tensor
) -> list[_Call]:
    wanted = {id(p) for p in params}
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        part.register_forward_hook(
            lambda module, given, output: seen.append((module, given[0].detach(), output))
        )
        for part in model.modules()
        if any(id(p) in wanted for p in part.parameters(recurse=False))
    ]
    try:
        total = losses(model(x), y).sum()
    finally:
        for hook in hooks:
            hook.remove()
    _check_calls(model, [module for module, _, _ in seen], wanted)
    gradients = torch.autograd.grad(total, [output for _, _, output in seen])
    return [_Call(m, a, g) for (m, a, _), g in zip(seen, gradients, strict=True)]


def _check_calls(model: nn.Module, called: Sequence[nn.Module], wanted: set[int]) -> None:
    covered = [id(p) for part in called for p in part.parameters(recurse=False)]
    names = {id(p): name for name, p in model.named_parameters()}
    for key in wanted:
        if covered.count(key) != 1:
            raise ConfigError(
                f"privacy: the model's {names.get(key, 'parameter')} is used by "
                f"{covered.count(key)} layers in a pass; a patient's gradient needs exactly one"
            )


def _per_unit(gradients: Tensor, unit: Tensor) -> Tensor:
    count = int(unit.max()) + 1 if len(unit) else 0
    summed = gradients.new_zeros(count, *gradients.shape[1:])
    return summed.index_add(0, unit, gradients)
