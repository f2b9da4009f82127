"""Personalisation by fine-tuning: the common model, then a few rounds at home.

Yu, Bagdasaryan, Shmatikov: "Salvaging Federated Learning by Local Adaptation", 2020,
https://arxiv.org/abs/2002.04758 (fine-tuning); a strong baseline in Collins et al., ICML 2021.
"""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fedrad.algorithms.base import (
    PERSONAL,
    Algorithm,
    Reply,
    Request,
    Sites,
    fitted_numbers,
    own_model,
)
from fedrad.core.state import Bundle

__all__ = ["finetune"]


def finetune(federated: Algorithm, *, rounds: Annotated[int, Field(gt=0)] = 1) -> Algorithm:
    """Return an algorithm whose last rounds each site spends on the common model alone, at home.

    The rounds are taken from the run's own, so that the arm spends no more gradient steps than the
    others. The common model is left as the last federated round made it, and both are evaluated.
    All sites fine-tune, also those that were never drawn for a federated round.

    Args:
        federated: what makes the common model.
        rounds: how many of the run's rounds are fine-tuning; fewer than all of them.

    >>> from fedrad.algorithms.fedavg import fedavg
    >>> sorted(finetune(fedavg(), rounds=2).handlers)
    ['finetune', 'fit']
    """

    def play(state: Bundle, number: int, sites: Sites) -> Bundle:
        if number <= sites.rounds - rounds:
            return federated.round(state, number, sites)
        sites.mean("finetune", {"model": state["model"]})
        return state

    return replace(
        federated,
        round=play,
        handlers={**federated.handlers, "finetune": _finetune},
        personal=True,
        local_rounds=rounds,
        # A site that trains alone needs the whole network, and then tests it at home, too.
        cut=None,
    )


def _finetune(request: Request) -> tuple[Reply, Bundle]:
    start = request.memory.get(PERSONAL) or request.arrays["model"]
    fitted = request.local.fit(start, round=request.round)
    return Reply(numbers=fitted_numbers(fitted)), request.memory | own_model(fitted)
