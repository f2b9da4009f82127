"""Three numbers that say whether federating was worth it; and each site's "should I join?".

L is the model that a site trains alone, F the arm's model for this site, P the model trained on all
data in one place; [i][j] is that of site i on the test set of site j. Every test site here also
gave training data, so "off site" means across sites; external testing is for held-out sites.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedrad.metrics.base import Array, Metric
from fedrad.metrics.mrmc import ratio_interval
from fedrad.report.arm_statistics import mean_over, over_sites
from fedrad.report.differences import Pair, common, difference, verdict, why_not
from fedrad.report.estimates import Estimate, estimate, known_estimate, missing, unsure
from fedrad.report.evidence import Evidence

__all__ = ["beats_own_model", "triple"]

AT_HOME = "each site's own model was tested at home only"
NO_GAP = "undefined: pooled minus local is not clearly positive (interval includes 0)"


def triple(
    evidence: Evidence, arm: str, metric: Metric, *, local: str | None, pooled: str | None
) -> dict[str, Estimate] | None:
    """Return on_site, off_site and gap_closed of an arm, or None without an arm to hold it against.

    on_site = (mean_i F[i][i] - mean_i L[i][i]) / mean_i L[i][i]; off_site the same over i != j;
    gap_closed = (mean F[i][i] - mean L[i][i]) / (mean P - mean L[i][i]), only where pooled minus
    local is clearly positive, because it explodes elsewhere. For metrics where lower is better the
    signs are turned, so that more is better in all three.

    Args:
        evidence: of all arms.
        arm: its name.
        metric: of which.
        local: the arm of models that sites train alone.
        pooled: the arm trained on all data in one place.
    """
    if local is None or local not in evidence.arms or arm == local:
        return None
    sites = evidence.sites
    off_site = (
        _relative(evidence, metric, (arm, local), [(i, j) for i in sites for j in sites if i != j])
        # Of many sites there are too many pairs to go through for nothing.
        if evidence.crossed or len(sites) == 1
        else missing(f"{local}: {AT_HOME}")
    )
    return {
        "on_site": _relative(evidence, metric, (arm, local), [(i, i) for i in sites]),
        "off_site": off_site,
        "gap_closed": _gap_closed(evidence, metric, arm, local, pooled),
    }


def beats_own_model(
    evidence: Evidence, arm: str, metric: Metric, local: str | None
) -> list[dict[str, Any]]:
    """Return for each training site whether the arm's model for it beats the one it trains alone.

    The difference is the arm's metric minus that of the site's own model, in the metric's unit.
    """
    if local is None or local not in evidence.arms or arm == local:
        return []
    found = {i: difference(evidence, metric.name, (arm, local), [i]) for i in evidence.sites}
    return [
        {"site": site, "difference": each, "verdict": verdict(each, metric.higher_is_better)}
        for site, (each, _) in found.items()
    ]


def _relative(
    evidence: Evidence, metric: Metric, arms: tuple[str, str], pairs: Sequence[Pair]
) -> Estimate:
    used, parts = common(evidence, metric.name, arms, pairs)
    if not used:
        return missing(why_not(evidence, metric.name, arms, pairs))
    ours, alone = mean_over(parts[0]), mean_over(parts[1])
    if alone[:, 0].mean() <= 0:
        return missing(f"undefined: {arms[1]} has a mean that is not above 0")
    sign = 1 if metric.higher_is_better else -1
    remark = None if len(used) == len(pairs) else f"over {len(used)} of {len(pairs)} pairs"
    sites = sorted({j for _, j in used})
    nothing = f"undefined: {arms[1]} has a mean that is not clearly above 0"
    return _share(evidence, (sign * (ours - alone), alone), sites, remark=remark, nothing=nothing)


def _gap_closed(
    evidence: Evidence, metric: Metric, arm: str, local: str, pooled: str | None
) -> Estimate:
    if pooled is None or pooled not in evidence.arms:
        return missing("undefined: no arm was trained on the pooled data")
    arms, own = (arm, local, pooled), [(i, i) for i in evidence.sites]
    used, parts = common(evidence, metric.name, arms, own)
    if not used:
        return missing(why_not(evidence, metric.name, arms, own))
    names = [site for site, _ in used]
    sign = 1 if metric.higher_is_better else -1
    ours, alone, best = (sign * mean_over(part) for part in parts)
    refusal = evidence.refusal(names)
    gap = estimate(best - alone, level=evidence.level, refusal=refusal)
    if gap["low"] is None:
        return missing(f"undefined: pooled minus local has {gap['reason']}")
    if gap["low"] <= 0:
        return missing(NO_GAP)
    remark = over_sites(len(own), names)
    return _share(evidence, (ours - alone, best - alone), names, remark=remark, nothing=NO_GAP)


def _share(
    evidence: Evidence,
    parts: tuple[Array, Array],
    sites: Sequence[str],
    *,
    remark: str | None,
    nothing: str,
) -> Estimate:
    """Return the ratio of two quantities [s, 1 + b] with Fieller's interval.

    Args:
        evidence: of all arms.
        parts: what is shared out, and the whole, whose mean is above zero.
        sites: whose test sets these rest on.
        remark: as for `estimate`.
        nothing: the reason where the whole may be zero.
    """
    top, bottom = parts
    level, why = evidence.level, unsure(top + bottom, evidence.refusal(sites))
    value = float(top[:, 0].mean() / bottom[:, 0].mean())
    ends = None if why else ratio_interval(top, bottom, level=level)
    if ends is None and why is None:
        return missing(nothing)
    by_seed = top[:, 0] / np.where(bottom[:, 0] > 0, bottom[:, 0], np.nan)
    return known_estimate(value, by_seed, ends, why=why, remark=remark)
