"""All data in one place: the reference for federating, which only a simulation has."""

from dataclasses import replace

from fedrad.algorithms.base import Algorithm
from fedrad.algorithms.fedavg import fedavg

__all__ = ["centralized"]


def centralized() -> Algorithm:
    """Return training on the pooled data of all training sites.

    It is `fedavg` with one site that holds everything; in a round it takes as many gradient steps
    as all sites together, so every arm spends the same budget.

    >>> centralized().pooled
    True
    """
    return replace(fedavg(), pooled=True)
