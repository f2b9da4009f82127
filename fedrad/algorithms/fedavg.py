"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas: "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, https://arxiv.org/abs/1602.05629, Algorithm 1, with all
sites in every round unless `sites_per_round` says otherwise. Sites are weighted by their training
images.
"""

from fedrad.algorithms.base import Algorithm, Reply, Request, Sites, fitted_numbers
from fedrad.core.state import Bundle, State

__all__ = ["fedavg"]


def fedavg() -> Algorithm:
    """Return federated averaging: sites train the common model, the server averages.

    >>> sorted(fedavg().handlers)
    ['fit']
    """
    return Algorithm(init=_init, round=_round, handlers={"fit": _fit})


def _init(model: State) -> Bundle:
    return {"model": model}


def _round(state: Bundle, number: int, sites: Sites) -> Bundle:
    reply = sites.mean("fit", {"model": state["model"]})
    return {"model": reply.arrays["model"]}


def _fit(request: Request) -> tuple[Reply, Bundle]:
    fitted = request.local.fit(request.arrays["model"], round=request.round)
    return Reply({"model": fitted.state}, fitted_numbers(fitted)), request.memory
