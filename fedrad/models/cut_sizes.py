"""What a cut costs: the size of what crosses it, and the work and weights on either side.

Floating-point operations are torch's count (`torch.utils.flop_counter`): convolutions and matrix
products of one image's forward pass, an addition and a multiplication as two. Norms, activations
and pooling are left out; a training step takes about three times as much, on both sides alike.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedrad.models.cut import chain, parts

__all__ = ["CutSizes", "Side", "cut_sizes"]


@dataclass(frozen=True)
class Side:
    """A part of a network.

    Args:
        parameters: numbers in its arrays that are trained.
        tensors: how many such arrays.
        bytes: of its whole state.
        flops: of a forward pass of one image.
    """

    parameters: int
    tensors: int
    bytes: int
    flops: int


@dataclass(frozen=True)
class CutSizes:
    """A cut and what it costs.

    Args:
        cut, tail: as for `cut.parts`.
        activation: shape of the front's output for one image, [c, ...].
        features: shape of the body's output for one image; without a tail, the logits.
        front, body, tail_side: the parts.
    """

    cut: str
    tail: str | None
    activation: tuple[int, ...]
    features: tuple[int, ...]
    front: Side
    body: Side
    tail_side: Side

    @property
    def share(self) -> float:
        """Return the share of the operations that the site does."""
        at_site = self.front.flops + self.tail_side.flops
        return at_site / (at_site + self.body.flops)


def cut_sizes(
    model: nn.Module,
    shape: Sequence[int],
    cuts: Sequence[str],
    tail: str | None = None,
    *,
    flops: bool = True,
) -> list[CutSizes]:
    """Return what each of some cuts costs.

    Args:
        model: is not changed.
        shape: of one image, [c, h, w], or row, [f].
        cuts: names, as for `cut.parts`.
        tail: as for `cut.parts`.
        flops: whether operations are counted, for which nothing is computed but shapes. If not,
            they are 0 and one blank image is computed: to count them costs a process seconds of
            imports when it is first done.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> found = cut_sizes(net, [4], ["1"])[0]
    >>> found.activation, found.front.parameters, found.front.flops, round(found.share, 2)
    ((8,), 40, 64, 0.8)
    """
    net = deepcopy(model).to("meta" if flops else "cpu").eval()
    shapes, counted = _walked(net, shape, flops)
    names = list(shapes)
    found = []
    for cut in cuts:
        split = parts(net, cut, tail)
        leaves = [list(chain(part)) for part in (split.front, split.body, split.tail)]
        sides = [
            _side(part, sum(counted[name] for name in own))
            for part, own in zip((split.front, split.body, split.tail), leaves, strict=True)
        ]
        end = len(leaves[0]) + len(leaves[1])
        found.append(CutSizes(cut, tail, shapes[leaves[0][-1]], shapes[names[end - 1]], *sides))
    return found


def _walked(
    net: nn.Module, shape: Sequence[int], count: bool
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Return each leaf's output shape for one image, and its operations."""
    x = torch.zeros(1, *shape, device="meta" if count else "cpu")
    shapes: dict[str, tuple[int, ...]] = {}
    flops: dict[str, int] = {}
    for name, leaf in chain(net).items():
        counter = FlopCounterMode(display=False) if count else None
        with counter or nullcontext(), torch.no_grad():
            x = leaf(x)
        shapes[name] = tuple(x.shape[1:])
        flops[name] = int(counter.get_total_flops()) if counter else 0
    return shapes, flops


def _side(part: nn.Module, flops: int) -> Side:
    trained = [p.numel() for p in part.parameters()]
    size = sum(v.numel() * v.element_size() for v in part.state_dict().values())
    return Side(sum(trained), len(trained), size, flops)
