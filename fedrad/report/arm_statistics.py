"""The figures of one arm: its columns, its held-out sites, its collapse; and the matrix of all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedrad.config import POOLED
from fedrad.core.names import listed
from fedrad.metrics.base import Array, Metric
from fedrad.metrics.intervals import UNDEFINED_SHARE
from fedrad.report.estimates import Estimate, estimate, missing
from fedrad.report.evidence import Evidence, View, model_used_by

__all__ = ["collapse", "columns", "defined", "external", "matrix", "mean_over", "over_sites"]

OWN = "own"
"""In a row of the matrix: at each site the model of its own."""
_FULL = 0.9  # share of scores in one bin from which a model no longer tells images apart


def mean_over(parts: Sequence[Array], weights: Sequence[float] | None = None) -> Array:
    """Return the mean of quantities [s, 1 + b] of sites; each counts once, or by its weight.

    A replicate that sites lack is the mean over the others, as long as at most 5 % of the sites
    lack it: of a site with a single positive patient there is none.

    >>> mean_over([np.array([[0.5, 1.0]]), np.array([[0.7, 0.0]])]).tolist()
    [[0.6, 0.5]]
    >>> mean_over([np.array([[0.5, np.nan]])] + 19 * [np.array([[0.5, 1.0]])]).tolist()
    [[0.5, 1.0]]
    """
    values = np.stack(parts)
    unknown = np.isnan(values)
    whole = np.average(values, axis=0, weights=weights)
    few = (unknown.mean(axis=0) <= UNDEFINED_SHARE) & unknown.any(axis=0)
    # What was observed is never the mean of some.
    few[:, 0] = False
    if not few.any():
        return np.asarray(whole)
    times = np.ones(len(parts)) if weights is None else np.asarray(weights, np.float64)
    known = np.where(unknown, 0.0, times[:, None, None])
    some = (np.where(unknown, 0.0, values) * known).sum(axis=0) / known.sum(axis=0).clip(1e-300)
    return np.asarray(np.where(few, some, whole))


def defined(values: Array) -> bool:
    """Return whether a quantity was observed in every seed.

    >>> defined(np.array([[0.5, np.nan]])), defined(np.array([[np.nan, 0.5]]))
    (True, False)
    """
    return bool(len(values)) and not np.isnan(values[:, 0]).any()


def over_sites(total: int, used: Sequence[str]) -> str | None:
    """Return the remark on a mean over some of the sites, None if it is over all.

    >>> over_sites(3, ["nord", "ost"])
    'over 2 of 3 sites: nord, ost'
    >>> over_sites(300, [f"site-{n}" for n in range(155)])
    'over 155 of 300 sites: site-0, site-1, site-2 and 152 more'
    """
    if len(used) == total:
        return None
    return f"over {len(used)} of {total} sites: {listed(used)}"


def columns(evidence: Evidence, arm: str, view: View) -> dict[str, dict[str, Any]]:
    """Return metric -> how an arm does over the sites' own test sets.

    "mean" counts each site once, "weighted" each by its test images, "pooled" adds the sites' sums;
    then the "worst" and the "best" site, and "site_sd", the standard deviation between sites.

    Args:
        evidence: of all arms.
        arm: its name.
        view: its global model, or each site's own model on its own test set.

    Sites where the metric is undefined are left out of the means, and the estimate says so. Worst
    and best site are those observed as such; their intervals do not know that they were picked.
    """
    return {metric.name: _column_of(evidence, arm, view, metric) for metric in evidence.metrics}


def _column_of(evidence: Evidence, arm: str, view: View, metric: Metric) -> dict[str, Any]:
    alike = dict.fromkeys(evidence.sites, 1.0)
    images = {site: float(evidence.counts.get(site, {}).get("images", 0)) for site in alike}
    ranked = _ranked(evidence, arm, view, metric)
    levels = [found["value"] for found in ranked if found["value"] is not None]
    return {
        "mean": _mean(evidence, arm, view, metric.name, alike),
        "weighted": _mean(evidence, arm, view, metric.name, images),
        "pooled": evidence.of_cell(arm, model_used_by(view, POOLED), POOLED, metric.name),
        "worst": ranked[0],
        "best": ranked[-1],
        "site_sd": float(np.std(levels, ddof=1)) if len(levels) > 1 else None,
    }


def _mean(
    evidence: Evidence, arm: str, view: View, metric: str, weights: Mapping[str, float]
) -> Estimate:
    seeds = evidence.seeds(arm)
    each = {s: evidence.cell(arm, model_used_by(view, s), s, metric, seeds) for s in evidence.sites}
    used = [site for site, values in each.items() if defined(values) and weights[site] > 0]
    if not used:
        first = evidence.sites[0]
        return missing(evidence.reason(arm, model_used_by(view, first), first, metric))
    share = [weights[site] for site in used]
    return estimate(
        mean_over([each[site] for site in used], share),
        level=evidence.level,
        basis=evidence.basis(used, metric, share),
        refusal=evidence.refusal(used),
        remark=over_sites(len(each), used),
    )


def _ranked(evidence: Evidence, arm: str, view: View, metric: Metric) -> list[dict[str, Any]]:
    """Return the sites' estimates from worst to best; one without a site if none is known."""
    each: list[dict[str, Any]] = [
        {**evidence.of_cell(arm, model_used_by(view, site), site, metric.name), "site": site}
        for site in evidence.sites
    ]
    known = [found for found in each if found["value"] is not None]
    sign = 1 if metric.higher_is_better else -1
    known.sort(key=lambda found: (sign * found["value"], found["site"]))
    return known or [{**each[0], "site": None}]


def external(evidence: Evidence, arm: str) -> dict[str, dict[str, Estimate]]:
    """Return metric -> held-out site -> estimate.

    A held-out site has no model of its own: an arm's global model answers there, or, where it has
    none, the mean is taken over the metrics of its personal models.
    """
    return {
        metric.name: {
            site: _external(evidence, arm, site, metric.name) for site in evidence.held_out
        }
        for metric in evidence.metrics
    }


def _external(evidence: Evidence, arm: str, site: str, metric: str) -> Estimate:
    if evidence.arms[arm] != "personal":
        return evidence.of_cell(arm, "global", site, metric)
    seeds, models = (
        evidence.seeds(arm),
        [model_used_by("personal", owner) for owner in evidence.sites],
    )
    why = evidence.reason(arm, models[0], site, metric)
    if not seeds:
        return missing(why)
    return estimate(
        mean_over([evidence.cell(arm, model, site, metric, seeds) for model in models]),
        level=evidence.level,
        basis=evidence.basis([site], metric),
        undefined=why,
        refusal=evidence.refusal([site]),
    )


def collapse(evidence: Evidence, arm: str) -> str | None:
    """Return a sentence if the arm's models stopped telling images apart, else None."""
    runs = list(evidence.by_arm[arm].values())
    same = sum(run.one_class for run in runs)
    fullest = max((run.share_in_fullest_bin for run in runs), default=0.0)
    full = sum(run.share_in_fullest_bin > _FULL for run in runs)
    parts = []
    if full:
        parts.append(f"up to {fullest:.0%} of the scores are all but equal ({_of(full, runs)})")
    if same:
        parts.append(f"every image is given the same class ({_of(same, runs)})")
    return "; ".join(parts) or None


def _of(count: int, runs: Sequence[object]) -> str:
    return f"{count} of {len(runs)} seed{'s' if len(runs) > 1 else ''}"


def matrix(evidence: Evidence, metric: str, local: str | None) -> dict[str, Any]:
    """Return the site x site matrix of a metric: rows are models, columns are test sites.

    The models trained alone come first; an arm with personal and global models has both. Where
    sites' own models were tested at home only, they share a row, "own", of these cells.
    """
    sites = [*evidence.sites, *evidence.held_out]
    order = sorted(evidence.arms, key=lambda arm: arm != local)
    models = [
        (arm, model) for arm in order if evidence.by_arm[arm] for model in _rows(evidence, arm)
    ]
    return {
        "metric": metric,
        "columns": [_column(evidence, site) for site in sites],
        "rows": [
            {
                "arm": arm,
                "model": model.removeprefix("personal:"),
                "cells": [_matrix_cell(evidence, arm, model, site, metric) for site in sites],
            }
            for arm, model in models
        ],
    }


def _rows(evidence: Evidence, arm: str) -> list[str]:
    kind = evidence.arms[arm]
    owners = [model_used_by("personal", site) for site in evidence.sites]
    if len(owners) > 1 and not evidence.crossed:
        owners = [OWN]
    return (owners if kind != "global" else []) + (["global"] if kind != "personal" else [])


def _matrix_cell(evidence: Evidence, arm: str, model: str, site: str, metric: str) -> Estimate:
    if model != OWN:
        return evidence.of_cell(arm, model, site, metric)
    if site in evidence.held_out:
        return _external(evidence, arm, site, metric)
    return evidence.of_cell(arm, model_used_by("personal", site), site, metric)


def _column(evidence: Evidence, site: str) -> dict[str, Any]:
    counts = evidence.counts.get(site, {})
    return {
        "site": site,
        "held_out": site in evidence.held_out,
        "images": counts.get("images"),
        "positives": min(counts["positives"]) if "positives" in counts else None,
    }
