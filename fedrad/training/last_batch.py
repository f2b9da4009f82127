"""A last batch of one image: what batch norm makes of it.

Batch norm takes a mean over the images of a batch. Of a single image it can take one over the
image's own places, which is another network; and where one place is left it can take none.
"""

from collections.abc import Callable

import torch
from torch import nn

from fedrad.config import Task
from fedrad.data.checks.oddities import Oddity
from fedrad.errors import ConfigError

__all__ = ["batch_of_one", "last_of_one"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MEND = (
    "choose another local.batch, local.steps that end before it, or norm: group, which looks at "
    "each image by itself"
)


def batch_of_one(images: int, batch: int, steps: int) -> bool:
    """Say whether a round's steps meet a batch of one image.

    >>> batch_of_one(17, 16, 2), batch_of_one(17, 16, 1), batch_of_one(18, 16, 2)
    (True, False, False)
    """
    first = 1 if batch == 1 else -(-images // batch)  # the step that would see it
    return bool(images and steps >= first and (batch == 1 or images % batch == 1))


def last_of_one(
    build: Callable[[], nn.Module], task: Task, site: str, images: int
) -> Oddity | None:
    """Return that batch norm takes a site's last image by itself, or None without batch norm.

    Args:
        build: makes the model; here by its shapes alone.
        task: the shape of its input.
        site: whose images they are, for messages.
        images: of the site's training split.

    Raises:
        ConfigError: batch norm has one value a channel, and can take no mean.
    """
    told = f"{images:,} training images leave a last batch of one"
    with torch.device("meta"):
        model = build()
        if not any(isinstance(module, _NORMS) for module in model.modules()):
            return None
        try:
            model.train()(torch.zeros(1, *task.input))
        except ValueError:
            raise ConfigError(
                f"{site}: {told}, of which batch norm can take no mean; {_MEND}"
            ) from None
    return Oddity(
        site,
        "batch-of-one",
        f"{told[0].upper()}{told[1:]}, which batch norm makes another network of.",
        f"It trains; to have it otherwise, {_MEND}.",
    )
