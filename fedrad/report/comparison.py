"""What an experiment found, in plain numbers and sentences: is one arm better than another, or not?

An interval or a p value decides, never the order of two means; a losing arm is told as plainly as a
winning one, and what could not be computed says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedrad.config import Primary
from fedrad.metrics.base import Metric
from fedrad.metrics.intervals import holm
from fedrad.report.arm_statistics import collapse, columns, external, matrix
from fedrad.report.chance import at_chance
from fedrad.report.differences import difference, verdict
from fedrad.report.estimates import Estimate
from fedrad.report.evidence import ArmRun, Evidence, Models, SiteMetrics
from fedrad.report.federation_gains import beats_own_model, triple
from fedrad.report.sentences import headline, notes, sentence

__all__ = ["ArmRun", "Models", "Primary", "SiteMetrics", "compare"]


def compare(
    runs: Sequence[ArmRun],
    *,
    arms: Mapping[str, Models],
    sites: Sequence[str],
    metrics: Sequence[Metric],
    primary: Primary,
    held_out: Sequence[str] = (),
    local: str | None = "local",
    pooled: str | None = "pooled",
    unfinished: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the parts of results.json that rest on what was measured.

    Args:
        runs: one for each arm and seed that finished; all with the same bootstrap replicates.
        arms: every arm of the experiment -> the models it makes, in the order of the report.
        sites: training sites, at least one.
        metrics: in the order of the report; the primary one is among them.
        primary: arm, against and metric of the declared comparison.
        held_out: sites that no arm trained on.
        local: the arm whose sites train alone, if there is one of this name.
        pooled: the arm trained on all data in one place, if there is one of this name.
        unfinished: arm -> why it has no run.
        level: of the intervals; 1 - level is the error rate of the p values.

    Returns:
        "arms" (name, columns, global_columns, external, triple, beats_own_model, collapse),
        "matrix", "comparisons", "headline", "notes"; ready for JSON, without any nan.

    Intervals hold the noise of patients and, with several seeds, of training (docs/statistics.md).
    None is given where the test sets concerned have fewer than 10 patients of a class, and no
    verdict is given of arms that were trained once each.

    >>> from fedrad.config import Task
    >>> from fedrad.metrics.ranking import auroc
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> def run(arm: str, model: str, value: float, seed: int) -> ArmRun:
    ...     noise = np.linspace(-0.01, 0.01, 101) * (arm == "fedavg")
    ...     cell = {"auroc": np.append(value, value + noise)}
    ...     return ArmRun(arm, seed, {(model, "nord"): cell})
    >>> found = compare(
    ...     [
    ...         run(arm, model, value, seed)
    ...         for seed in (0, 1)
    ...         for arm, model, value in [
    ...             ("local", "personal:nord", 0.75), ("fedavg", "global", 0.875)
    ...         ]
    ...     ],
    ...     arms={"local": "personal", "fedavg": "global"},
    ...     sites=["nord"],
    ...     metrics=[auroc(task)],
    ...     primary=Primary(arm="fedavg", against="local", metric="auroc"),
    ... )
    >>> found["headline"][0].partition(",")[0]
    'fedavg is better than local: AUROC +0.125 (95% interval +0.114 to +0.136)'
    """
    evidence = Evidence(
        tuple(runs),
        dict(arms),
        tuple(sites),
        tuple(held_out),
        tuple(metrics),
        dict(unfinished or {}),
        level,
    )
    metric = next(each for each in metrics if each.name == primary.metric)
    told = [_arm(evidence, arm, metric, local, pooled) for arm in arms]
    compared = _comparisons(evidence, primary, metric)
    return {
        "arms": told,
        "matrix": matrix(evidence, metric.name, local),
        "comparisons": compared,
        "headline": headline(evidence, metric, primary.arm, told, compared),
        "notes": notes(evidence, metric, told),
    }


def _arm(
    evidence: Evidence, arm: str, metric: Metric, local: str | None, pooled: str | None
) -> dict[str, Any]:
    both = evidence.arms[arm] == "both"
    return {
        "name": arm,
        "columns": columns(evidence, arm, evidence.view(arm)),
        "global_columns": columns(evidence, arm, "global") if both else None,
        "external": external(evidence, arm),
        "triple": triple(evidence, arm, metric, local=local, pooled=pooled),
        "beats_own_model": beats_own_model(evidence, arm, metric, local),
        "collapse": collapse(evidence, arm),
    }


def _comparisons(evidence: Evidence, primary: Primary, metric: Metric) -> list[dict[str, Any]]:
    """Return the primary comparison, then all other arms against the same one, after Holm."""
    others = [arm for arm in evidence.arms if arm not in (primary.arm, primary.against)]
    found = {
        arm: difference(evidence, metric.name, (arm, primary.against), evidence.sites)
        for arm in [primary.arm, *others]
    }
    p = {arm: each for arm, (_, each) in found.items()}
    adjusted = dict(zip(others, holm([p[arm] for arm in others]), strict=True))
    # The primary comparison is alone in its family: it was declared beforehand.
    adjusted[primary.arm] = p[primary.arm]
    return [
        _comparison(evidence, primary, metric, arm, found[arm][0], p[arm], adjusted[arm])
        for arm in found
    ]


def _comparison(
    evidence: Evidence,
    primary: Primary,
    metric: Metric,
    arm: str,
    found: Estimate,
    p: float,
    adjusted: float,
) -> dict[str, Any]:
    way = verdict(found, metric.higher_is_better)
    first = arm == primary.arm
    # Interval and p value are of one statistic; beside the primary one Holm has the last word.
    supported = way in ("better", "worse") and adjusted < 1 - evidence.level
    told = {
        "arm": arm,
        "against": primary.against,
        "metric": metric.name,
        "primary": first,
        "difference": found,
        "p": p if p == p else None,
        "p_adjusted": adjusted if adjusted == adjusted else None,
        "supported": supported,
        "chance": at_chance(evidence, metric, (arm, primary.against), evidence.sites),
    }
    return {**told, "sentence": sentence(told, metric, way, evidence.level)}
