"""Data: adapters that read a source, partitions that make sites of it, and augmentation.

An adapter is called with the task, the folder of the data and its options, and returns `Records`.
A partition is called with records and the task. A transform's builder has options only.
"""

from collections.abc import Callable, Mapping

from fedrad.data.adapters.images import images
from fedrad.data.adapters.npz import npz
from fedrad.data.adapters.phantom import phantom
from fedrad.data.adapters.table import table
from fedrad.data.base import Records
from fedrad.data.partition import dirichlet, iid, prevalence, quantity
from fedrad.data.transforms import Transform, flip, gamma, noise, rotate, scale, shift

__all__ = ["ADAPTERS", "PARTITIONERS", "TRANSFORMS"]

ADAPTERS: Mapping[str, Callable[..., Records]] = {
    "images": images,
    "npz": npz,
    "phantom": phantom,
    "table": table,
}

PARTITIONERS: Mapping[str, Callable[..., Records]] = {
    "dirichlet": dirichlet,
    "iid": iid,
    "prevalence": prevalence,
    "quantity": quantity,
}

TRANSFORMS: Mapping[str, Callable[..., Transform]] = {
    "flip": flip,
    "gamma": gamma,
    "noise": noise,
    "rotate": rotate,
    "scale": scale,
    "shift": shift,
}
