"""Reads a split of a site in batches, as a model takes them."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from fedrad.data.base import SiteData

__all__ = ["Augment", "Reader", "model_input", "orders", "reader"]

Augment = Callable[[Tensor, Generator], Tensor]
"""([n, c, h, w] in [0, 1], random numbers) -> the same shape."""

Reader = Callable[[Tensor, int], Iterator[tuple[Tensor, Tensor]]]
"""(places in the split int64 [n], size of a batch) -> (x as stored, y) of each batch."""

_SHARE = 4
"""A split stays on a GPU if it takes no more than this part of what is free there, one in four."""


def reader(data: SiteData, split: str, device: torch.device) -> Reader:
    """Return what reads a split's images and labels to a device.

    On a CPU nothing is copied but the batch itself, so images may be a memory-mapped file. A GPU
    keeps a small split as it is stored, one byte a pixel, because copying each batch to it would
    cost more than a small step. Batches of a large one go there through pinned memory, while the
    GPU computes.
    """
    rows = data.rows[split]
    size = len(rows) * int(np.prod(data.x.shape[1:])) * data.x.itemsize
    if device.type == "cpu" or size > torch.cuda.mem_get_info(device)[0] // _SHARE:
        parts = (data.x, data.y)

        def read(order: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for index in torch.split(order, batch):
                take = rows[index.numpy()]
                x, y = (_moved(torch.from_numpy(part[take]), device) for part in parts)
                yield x, y

        return read

    kept = torch.from_numpy(data.x[rows]).to(device), torch.from_numpy(data.y[rows]).to(device)

    def pick(order: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.split(order.to(device), batch):
            yield kept[0][index], kept[1][index]

    return pick


def _moved(part: Tensor, device: torch.device) -> Tensor:
    return part if device.type == "cpu" else part.pin_memory().to(device, non_blocking=True)


def model_input(
    x: Tensor, augment: Augment | None = None, generator: Generator | None = None
) -> Tensor:
    """Return what a model sees of stored examples.

    Args:
        x: images uint8 [n, c, h, w], or rows of a table float32 [n, f], which stay as they are.
        augment: changes images, in [0, 1]; needs the generator.
        generator: where the augmentation's random numbers come from.

    Returns:
        float32; pixels 0 to 255 are -2 to 2.

    >>> model_input(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
    [[[[-2.0, 2.0]]]]
    """
    if x.dtype != torch.uint8:
        return x
    x = x.float() / 255
    if augment is not None and generator is not None:
        x = augment(x, generator)
    return (x - 0.5) / 0.25


def orders(images: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield shuffled epochs, the last one cut, that make so many batches.

    Args:
        images: in the split; every epoch names each once.
        batch: images in a batch; an epoch's last one may be smaller.
        steps: batches in all.
        seed: of the shuffling.

    >>> [len(order) for order in orders(images=5, batch=2, steps=5, seed=0)]  # 2 + 2 + 1, 2 + 2
    [5, 4]
    """
    generator = Generator().manual_seed(seed)
    while steps > 0:
        order = torch.randperm(images, generator=generator)[: steps * batch]
        steps -= -(-len(order) // batch)
        yield order
