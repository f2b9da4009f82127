"""One layer's part in the gradients of single images: in full, only their norms, or a weighted sum.

Axis letters: n images, u units, t positions, i inputs, o outputs of the layer, m pairs of images.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

__all__ = ["Layer", "layer_of"]

LayerParts = dict[nn.Parameter, Tensor]


class Layer:
    """A layer of any kind, by differentiating it again for every image.

    Args:
        module: what was called, once, on images that do not see each other.
        x: what it was given, [n, ...].
        gradient: of the loss's sum at its output, [n, ...].
    """

    def __init__(self, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        self.module, self.x, self.gradient = module, x, gradient

    def per_image(self) -> LayerParts:
        """Return each own parameter's gradient of every image, [n, *shape]."""
        own = dict(self.module.named_parameters(recurse=False))

        def one(x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
            def call(values: Mapping[str, Tensor]) -> Tensor:
                out: Tensor = torch.func.functional_call(self.module, dict(values), (x[None],))
                return out

            detached = {name: p.detach() for name, p in own.items()}
            found: dict[str, Tensor] = torch.func.vjp(call, detached)[1](gradient[None])[0]
            return found

        found = torch.func.vmap(one, randomness="different")(self.x, self.gradient)
        return {own[name]: value for name, value in found.items() if own[name].requires_grad}

    def squared_norms(self, unit: Tensor, count: int, *, ghost: bool) -> Tensor:
        """Return float32 [u], the squared norm of each unit's gradient.

        Args:
            unit: int64 [n].
            count: of units, u.
            ghost: whether norms may be found without the gradients.
        """
        squares = self.gradient.new_zeros(count)
        for gradients in self._per_unit(unit, count).values():
            squares = squares + gradients.flatten(1).square().sum(1)
        return squares

    def weighted_sum(self, scale: Tensor, unit: Tensor) -> LayerParts:
        """Return the sum over units of their gradients times `scale` [u]."""
        kept = self._per_unit(unit, len(scale))
        return {p: torch.tensordot(scale, g, dims=1) for p, g in kept.items()}

    def _per_unit(self, unit: Tensor, count: int) -> LayerParts:
        if "_kept" not in self.__dict__:
            self._kept = {
                p: g.new_zeros(count, *g.shape[1:]).index_add(0, unit, g)
                for p, g in self.per_image().items()
            }
        return self._kept


class NormLayer(Layer):
    """GroupNorm: its gradient is a product, summed over positions."""

    def per_image(self) -> LayerParts:
        """Return the gradients of weight and bias, [n, channels]."""
        module = self.module
        assert isinstance(module, nn.GroupNorm)
        normal = functional.group_norm(self.x, module.num_groups, eps=module.eps)
        return _known(
            (module.weight, lambda: (normal * self.gradient).flatten(2).sum(2)),
            (module.bias, lambda: self.gradient.flatten(2).sum(2)),
        )


class AffineLayer(Layer):
    """A convolution or a linear layer: at each position a sum of products."""

    @cached_property
    def inputs(self) -> Tensor:
        """Return what each position sees, [n, i, t]."""
        module = self.module
        if isinstance(module, nn.Linear):
            return self.x.flatten(1, -2).transpose(1, 2) if self.x.dim() > 2 else self.x[:, :, None]
        assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
        if module.kernel_size == (1, 1) and module.padding == (0, 0):
            return self.x[:, :, :: module.stride[0], :: module.stride[1]].flatten(2)
        return functional.unfold(
            self.x, module.kernel_size, module.dilation, module.padding, module.stride
        )

    @cached_property
    def outputs(self) -> Tensor:
        """Return the gradient at each position, [n, o, t]."""
        if isinstance(self.module, nn.Linear):
            wide = self.gradient.dim() > 2
            return (
                self.gradient.flatten(1, -2).transpose(1, 2) if wide else self.gradient[:, :, None]
            )
        return self.gradient.flatten(2)

    def per_image(self) -> LayerParts:
        """Return the gradients of weight, [n, *shape], and bias, [n, o]."""
        weight, bias = _weights(self.module)
        return _known(
            (weight, lambda: (self.outputs @ self.inputs.mT).view(-1, *weight.shape)),
            (bias, lambda: self.outputs.sum(2)),
        )

    def squared_norms(self, unit: Tensor, count: int, *, ghost: bool) -> Tensor:
        """Return [u]; by inner products of positions where those cost less than the gradients."""
        weight, bias = _weights(self.module)
        first, second = _pairs(unit)
        n, i, t = self.inputs.shape
        o = self.outputs.shape[1]
        self._ghost = (
            ghost and weight.requires_grad and len(first) * t * t * (i + o) < n * t * i * o
        )
        if not self._ghost:
            return super().squared_norms(unit, count, ghost=False)
        # |sum of b a'|^2 over a unit's images = sum over pairs of images of <a'a, b'b>.
        alone = len(first) == n
        squares = self.gradient.new_zeros(count)
        products = _inner(self.inputs, first, second, alone) * _inner(
            self.outputs, first, second, alone
        )
        squares.index_add_(0, unit[first], products.flatten(1).sum(1))
        if bias is not None and bias.requires_grad:
            summed = self.outputs.new_zeros(count, o).index_add(0, unit, self.outputs.sum(2))
            squares = squares + summed.square().sum(1)
        return squares.clamp(min=0)

    def weighted_sum(self, scale: Tensor, unit: Tensor) -> LayerParts:
        """Return the gradient of the loss in which each image counts `scale` of its unit."""
        if not self._ghost:
            return super().weighted_sum(scale, unit)
        weight, bias = _weights(self.module)
        factor = scale[unit]
        return _known(
            (weight, lambda: self._weight_sum(factor, weight)),
            (bias, lambda: torch.tensordot(factor, self.outputs.sum(2), dims=1)),
        )

    def _weight_sum(self, factor: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.module, nn.Linear):
            scaled = self.outputs * factor[:, None, None]
            return torch.einsum("not,nit->oi", scaled, self.inputs)
        module = self.module
        assert isinstance(module, nn.Conv2d)
        scaled = self.gradient * factor[:, None, None, None]
        summed: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            self.x, weight.shape, scaled, module.stride, module.padding, module.dilation
        )
        return summed


def layer_of(module: nn.Module, x: Tensor, gradient: Tensor) -> Layer:
    """Return a layer's part in the gradients, by the fastest way that fits it."""
    if isinstance(module, nn.GroupNorm):
        return NormLayer(module, x, gradient)
    if isinstance(module, nn.Linear) or _plain_convolution(module):
        return AffineLayer(module, x, gradient)
    return Layer(module, x, gradient)


def _plain_convolution(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _weights(module: nn.Module) -> tuple[nn.Parameter, nn.Parameter | None]:
    own = dict(module.named_parameters(recurse=False))
    return own["weight"], own.get("bias")


def _known(*found: tuple[nn.Parameter | None, Callable[[], Tensor]]) -> LayerParts:
    """Return the gradients of those parameters that are there and are trained."""
    return {p: gradient() for p, gradient in found if p is not None and p.requires_grad}


def _pairs(unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return all ordered pairs of images of one unit, an image with itself among them."""
    same = unit[:, None] == unit[None]
    first, second = same.nonzero(as_tuple=True)
    return first, second


def _inner(values: Tensor, first: Tensor, second: Tensor, alone: bool) -> Tensor:
    """Return the inner products of positions of pairs of images, [m, t, t]."""
    if alone:
        return values.mT @ values
    return values[first].mT @ values[second]
