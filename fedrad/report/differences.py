"""Paired differences between arms: the same patients, seeds and sites on both sides."""

from collections.abc import Sequence
from itertools import compress

import numpy as np

from fedrad.metrics.base import Array
from fedrad.metrics.mrmc import p_value, variance_of
from fedrad.metrics.scales import of_difference
from fedrad.report.arm_statistics import defined, mean_over, over_sites
from fedrad.report.estimates import Estimate, estimate, missing
from fedrad.report.evidence import Evidence, model_used_by

__all__ = ["NO_COMPARISON", "ONE_TRAINING", "Pair", "common", "difference", "verdict", "why_not"]

NO_COMPARISON = "no comparison"
"""In place of a verdict where an arm has no value: not run, stopped, or undefined there."""
ONE_TRAINING = "one training"
"""The verdict on two arms that were trained once each: there is none."""

Pair = tuple[str, str]  # the site that owns the model, the site whose test set it meets


def verdict(difference: Estimate, higher_is_better: bool) -> str:
    """Return "better" or "worse" if the interval of a difference excludes zero, else "not shown".

    Where nothing could be compared it is "no comparison". With one seed the interval holds for
    these two trained models, not for the arms, and the verdict is "one training".

    >>> found = {**missing(""), "value": -0.2, "low": -0.3, "high": -0.1, "seeds": 3}
    >>> verdict(found, higher_is_better=True), verdict(found, higher_is_better=False)
    ('worse', 'better')
    >>> verdict({**found, "seeds": 1}, higher_is_better=True)
    'one training'
    >>> verdict(missing("fedavg: not run yet"), higher_is_better=True)
    'no comparison'
    """
    low, high = difference["low"], difference["high"]
    if difference["value"] is None:
        return NO_COMPARISON
    if difference["seeds"] == 1:
        return ONE_TRAINING
    if low is None or high is None or low <= 0 <= high:
        return "not shown"
    return "better" if (low > 0) == higher_is_better else "worse"


def difference(
    evidence: Evidence, metric: str, arms: tuple[str, str], sites: Sequence[str]
) -> tuple[Estimate, float]:
    """Return the first arm minus the second, mean over sites, and the p value of no difference.

    Each arm is there with the model that it gives to the site, on the site's own test set; over the
    seeds that both have finished and the sites where both are defined. Interval and p value are of
    one t statistic (`metrics.mrmc`); p is nan where there is no interval, and with one seed.
    """
    own = [(site, site) for site in sites]
    used, parts = common(evidence, metric, arms, own)
    if not used:
        return missing(why_not(evidence, metric, arms, own)), float("nan")
    values = mean_over(parts[0]) - mean_over(parts[1])
    names = [site for site, _ in used]
    found = estimate(
        values,
        level=evidence.level,
        basis=of_difference(metric),
        refusal=evidence.refusal(names),
        remark=over_sites(len(sites), names),
    )
    if found["low"] is None or found["value"] is None:
        return found, float("nan")
    return found, p_value(found["value"], variance_of(values))


def common(
    evidence: Evidence, metric: str, arms: Sequence[str], pairs: Sequence[Pair]
) -> tuple[list[Pair], list[list[Array]]]:
    """Return the pairs where all arms are defined, and each arm's quantities there.

    Args:
        evidence: of all arms.
        metric: its name.
        arms: each with the models that it gives to its sites; over the seeds that all finished.
        pairs: (owner of the model, test site).

    Returns:
        The pairs that are left, and for each arm as many quantities [s, 1 + b]; a resample that
        is undefined in one arm is so in all, so that means over sites stay paired.
    """
    seeds = evidence.seeds(*arms)
    each = [[_at(evidence, metric, arm, pair, seeds) for pair in pairs] for arm in arms]
    keep = [all(map(defined, at_pair)) for at_pair in zip(*each, strict=True)]
    used, parts = list(compress(pairs, keep)), [list(compress(one, keep)) for one in each]
    gaps = [np.isnan(at_pair).any(axis=0) for at_pair in zip(*parts, strict=True)]
    return used, [
        [np.where(gap, np.nan, values) if gap.any() else values
         for values, gap in zip(one, gaps, strict=True)] for one in parts
    ]  # fmt: skip


def _at(evidence: Evidence, metric: str, arm: str, pair: Pair, seeds: Sequence[int]) -> Array:
    owner, site = pair
    return evidence.cell(arm, model_used_by(evidence.view(arm), owner), site, metric, seeds)


def why_not(evidence: Evidence, metric: str, arms: Sequence[str], pairs: Sequence[Pair]) -> str:
    """Return why there is no pair where all arms are defined."""
    if not pairs:
        return "undefined: there is one training site only"
    for arm in arms:
        if not evidence.by_arm[arm]:
            return f"{arm}: {evidence.reason(arm, '', '', metric)}"
    if not evidence.seeds(*arms):
        return f"{' and '.join(arms)} have no seed in common"
    for arm in arms:
        for pair in pairs:
            if not defined(_at(evidence, metric, arm, pair, evidence.seeds(*arms))):
                model = model_used_by(evidence.view(arm), pair[0])
                return f"{arm}: {evidence.reason(arm, model, pair[1], metric)}"
    return "undefined"
