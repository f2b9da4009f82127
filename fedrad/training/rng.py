"""Random numbers that torch draws by itself, from a seed of ours for the while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(number: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, and put it back afterwards.

    >>> with seeded(3, torch.device("cpu")):
    ...     one = torch.rand(2)
    >>> with seeded(3, torch.device("cpu")):
    ...     torch.equal(one, torch.rand(2))
    True
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []):
        # Not torch.manual_seed: it formats a stack trace for each kind of device it has not met.
        torch.default_generator.manual_seed(number)
        if cuda:
            torch.cuda.manual_seed(number)
        yield
