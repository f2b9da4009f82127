"""FedProx: FedAvg with a proximal term that holds each site near the common model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: "Federated Optimization in Heterogeneous Networks",
MLSys 2020, https://arxiv.org/abs/1812.06127, Algorithm 2 with an exact number of local steps. The
term covers trainable parameters only, never buffers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedrad.algorithms.base import Algorithm, Reply, Request, fitted_numbers
from fedrad.algorithms.fedavg import fedavg
from fedrad.core.state import Bundle

__all__ = ["fedprox", "proximal"]


def fedprox(*, mu: Annotated[float, Field(ge=0)] = 0.01) -> Algorithm:
    """Return FedProx; `mu=0` is `fedavg` bit for bit.

    Args:
        mu: weight of the proximal term, 0.001 to 1 in the literature.

    >>> sorted(fedprox(mu=0.1).handlers)
    ['fit']
    """

    def penalty(parameters: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
        return proximal(parameters, start, mu=mu)

    def fit(request: Request) -> tuple[Reply, Bundle]:
        fitted = request.local.fit(request.arrays["model"], round=request.round, penalty=penalty)
        return Reply({"model": fitted.state}, fitted_numbers(fitted)), request.memory

    return replace(fedavg(), handlers={"fit": fit})


def proximal(parameters: Sequence[Tensor], start: Sequence[Tensor], *, mu: float) -> Tensor:
    """Return mu / 2 * ||w - w_t||^2, the squared distance to where the round started.

    >>> proximal([torch.tensor([3.0, 4.0])], [torch.zeros(2)], mu=0.1).item()
    1.25
    """
    squares = [(now - before).square().sum() for now, before in zip(parameters, start, strict=True)]
    return mu / 2 * torch.stack(squares).sum()
