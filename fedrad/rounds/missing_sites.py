"""What a results table says of a site that did not answer the final evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedrad.algorithms.base import Algorithm
from fedrad.rounds.refusals import is_refusal
from fedrad.runs import Evaluation

__all__ = ["fill_missing_sites"]


def fill_missing_sites(
    found: Evaluation, gone: Mapping[str, str], algorithm: Algorithm, metrics: Sequence[str]
) -> Evaluation:
    """Return an evaluation in which each absent site has its cells, undefined and with the reason.

    Args:
        found: over the sites that answered.
        gone: absent site -> why, in the words of its last failure.
        algorithm: says whether a site has a model of its own beside, or instead of, the common one.
        metrics: their names.

    >>> found = Evaluation({("global", "nord"): {"auroc": np.array([0.8, 0.7])}}, {}, {})
    >>> from fedrad.algorithms.fedavg import fedavg
    >>> told = fill_missing_sites(found, {"ost": "no answer within 60 s"}, fedavg(), ["auroc"])
    >>> told.cells["global", "ost"]["auroc"], told.reasons["global", "ost"]["auroc"]
    (array([nan, nan]), 'the site did not answer the final evaluation (no answer within 60 s)')
    """
    if not gone:
        return found
    length = next(len(value) for cell in found.cells.values() for value in cell.values())
    models = {
        site: ["global"] * algorithm.shared + [f"personal:{site}"] * algorithm.personal
        for site in gone
    }
    places = [(model, site) for site, names in models.items() for model in names]
    why = {
        s: f"the site {r}"
        if is_refusal(r)
        else f"the site did not answer the final evaluation ({r})"
        for s, r in gone.items()
    }
    return replace(
        found,
        cells={
            **found.cells,
            **{place: {metric: np.full(length, np.nan) for metric in metrics} for place in places},
        },
        reasons={
            **found.reasons,
            **{place: dict.fromkeys(metrics, why[place[1]]) for place in places},
        },
        facts={**found.facts, "absent": dict(gone)},
    )
