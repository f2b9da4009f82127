"""Max pooling that on a CPU takes half the time, to the same bits.

torch's kernel for images with channels innermost works on many channels at a time, the one for
channels first on one number. Turning the image there and back costs less than the difference
(`docs/performance.md`), and a maximum is the same number in any order.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MaxPool2d", "with_fast_pooling"]


class _GradientsChannelsFirst(torch.autograd.Function):
    """Nothing, and backwards the layout that is expected: sums of gradients depend on it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


class MaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` for images with channels first.

    >>> import torch
    >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> MaxPool2d(2)(image).flatten().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h', w'], both with channels first."""
        if input.device.type != "cpu" or input.dim() != 4:
            untouched: Tensor = super().forward(input)
            return untouched
        # Not by `contiguous(memory_format=...)`, which torch.func.vmap does not know.
        image: Tensor = _GradientsChannelsFirst.apply(input)
        inside_out = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        pooled: Tensor = super().forward(inside_out)
        return pooled.contiguous()


def with_fast_pooling(model: nn.Module) -> nn.Module:
    """Return a model with its `torch.nn.MaxPool2d` exchanged for the one here; names stay."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.MaxPool2d and not child.return_indices:
                exchanged = MaxPool2d(
                    child.kernel_size,
                    child.stride,
                    child.padding,
                    child.dilation,
                    ceil_mode=child.ceil_mode,
                )
                setattr(parent, name, exchanged.train(child.training))
    return model
