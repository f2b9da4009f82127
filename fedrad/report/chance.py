"""Whether two arms are told apart from knowing nothing, before they are told apart at all."""

from collections.abc import Sequence

import numpy as np

from fedrad.metrics.base import Metric
from fedrad.metrics.scales import SCALES
from fedrad.report.arm_statistics import mean_over
from fedrad.report.differences import common
from fedrad.report.estimates import estimate
from fedrad.report.evidence import Evidence

__all__ = ["at_chance", "chance_level"]


def at_chance(
    evidence: Evidence, metric: Metric, arms: tuple[str, str], sites: Sequence[str]
) -> str | None:
    """Return a sentence if neither arm's interval lies above chance, else None.

    Both are there as they are compared: own models at home, the seeds and sites of both.
    """
    used, parts = common(evidence, metric.name, arms, [(site, site) for site in sites])
    names = [site for site, _ in used]
    level = chance_level(evidence, metric, names)
    if level is None or not names:
        return None
    found = [
        estimate(
            mean_over(part),
            level=evidence.level,
            basis=evidence.basis(names, metric.name),
            refusal=evidence.refusal(names),
        )
        for part in parts
    ]
    if any(each["low"] is None or each["low"] > level for each in found):
        return None
    values = " and ".join(f"{each['value']:.3f}" for each in found)
    return (
        f"Neither of the two is shown to be above chance: {metric.title} {values}, where a model "
        f"that knows nothing has {level:.3g}."
    )


def chance_level(evidence: Evidence, metric: Metric, sites: Sequence[str]) -> float | None:
    """Return what a model that knows nothing reaches, mean over sites; None where none is known.

    That of the average precision is the prevalence, that of the balanced accuracy 1 / k of k
    classes.
    """
    counts = [evidence.counts.get(site, {}) for site in sites]
    known = all("positives" in count and "negatives" in count for count in counts)
    if metric.name == "auprc":
        if not known or not counts:
            return None
        ill = np.array([count["positives"] for count in counts])
        well = np.array([count["negatives"] for count in counts])
        whole = ill + well
        shares = np.divide(ill, whole, out=np.full(ill.shape, np.nan), where=whole > 0)
        return float(np.nanmean(shares)) if not np.isnan(shares).all() else None
    if metric.name == "balanced_accuracy" and known:
        # Each image of one class, of several: multiclass, where a guess is right once in k.
        exclusive = [sum(count["positives"]) == count.get("images") for count in counts]
        if counts and all(exclusive) and len(counts[0]["positives"]) > 1:
            return 1 / len(counts[0]["positives"])
    scale = SCALES.get(metric.name)
    return scale.chance if scale else None
