"""Personalisation by fine-tuning: the common model, then a few rounds at home.

Yu, Bagdasaryan, Shmatikov: "Salvaging Federated Learning by Local Adaptation", 2020,
https://arxiv.org/abs/2002.04758 (fine-tuning); a strong baseline in Collins et al., ICML 2021.
"""

from dataclasses import replace

from fedrad.algorithms.base import PERSONAL, Algorithm, Reply, Request, Sites, fitted_numbers
from fedrad.core.state import Bundle

__all__ = ["finetune"]


def finetune(federated: Algorithm, *, rounds: int = 1) -> Algorithm:
    """Return an algorithm whose last rounds each site spends on the common model alone, at home.

    The rounds are taken from the run's own, so that the arm spends no more gradient steps than the
    others. The common model is left as the last federated round made it, and both are evaluated.

    Args:
        federated: what makes the common model.
        rounds: how many of the run's rounds are fine-tuning; at least one is left to federate.

    >>> from fedrad.algorithms.fedavg import fedavg
    >>> sorted(finetune(fedavg(), rounds=2).handlers)
    ['finetune', 'fit']
    """

    def play(state: Bundle, number: int, sites: Sites) -> Bundle:
        if number <= max(1, sites.rounds - rounds):
            return federated.round(state, number, sites)
        sites.mean("finetune", {"model": state["model"]})
        return state

    return replace(
        federated,
        round=play,
        handlers={**federated.handlers, "finetune": _finetune},
        personal=True,
        # A site that trains alone needs the whole network, and then tests it at home, too.
        cut=None,
    )


def _finetune(request: Request) -> tuple[Reply, Bundle]:
    start = request.memory.get(PERSONAL) or request.arrays["model"]
    fitted = request.local.fit(start, round=request.round)
    return Reply(numbers=fitted_numbers(fitted)), request.memory | {PERSONAL: fitted.state}
