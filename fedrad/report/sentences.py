"""The comparison in words: headlines first, then what a careful reader should know."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedrad.core.names import listed
from fedrad.metrics.base import Metric
from fedrad.report.differences import difference, verdict
from fedrad.report.evidence import LEAST_IMAGES, Estimate, Evidence

__all__ = ["headline", "notes", "sentence"]

Told = Mapping[str, Any]


def sentence(told: Told, metric: Metric, way: str, level: float) -> str:
    """Return one comparison as a sentence.

    Args:
        told: an entry of "comparisons" without its sentence.
        metric: the one compared.
        way: the verdict on the difference.
        level: of its interval.
    """
    arm, against, found = told["arm"], told["against"], told["difference"]
    if found["value"] is None:
        return f"{arm} against {against}: no comparison; {found['reason']}."
    partly = found["low"] is not None and found["reason"]
    scope = f"mean {found['reason']}" if partly else "mean over sites"
    size = f"{metric.title} {_bounds(found, level)}, {scope}"
    if told["p_adjusted"] is not None:
        size += f"; p = {told['p_adjusted']:.2g}{'' if told['primary'] else ' after Holm'}"
    if told["supported"]:
        return f"{arm} is {way} than {against}: {size}."
    return f"{arm} against {against}: no difference is shown; {size}."


def headline(
    evidence: Evidence,
    metric: Metric,
    arm: str,
    told: Sequence[Told],
    comparisons: Sequence[Told],
) -> list[str]:
    """Return the sentences a reader should meet first, the primary comparison before all.

    Args:
        evidence: of all arms.
        metric: the primary one.
        arm: the primary one.
        told: entries of "arms".
        comparisons: the primary first.
    """
    main = next(each for each in told if each["name"] == arm)
    lines = [comparisons[0]["sentence"]]
    if main["beats_own_model"]:
        lines.append(_who_gains(arm, metric, main["beats_own_model"]))
    if main["triple"]:
        lines.append(_gap(arm, main["triple"]["gap_closed"], evidence.level))
    lines += _others(comparisons[1:], metric)
    lines += [f"{each['name']} collapsed: {each['collapse']}." for each in told if each["collapse"]]
    unfinished = [name for name in evidence.arms if not evidence.by_arm[name]]
    return lines + [
        f"{name} has no result: {evidence.reason(name, '', '', '')}." for name in unfinished
    ]


def _bounds(found: Estimate, level: float) -> str:
    """Return a difference with its interval in words."""
    value, low, high = found["value"], found["low"], found["high"]
    if low is None or high is None:
        return f"{value:+.3f} ({found['reason']})"
    return f"{value:+.3f} ({level:.0%} interval {low:+.3f} to {high:+.3f})"


def _who_gains(arm: str, metric: Metric, verdicts: Sequence[Told]) -> str:
    def named(verdict: str) -> str:
        found = [entry["site"] for entry in verdicts if entry["verdict"] == verdict]
        return f"{len(found)} ({listed(found)})" if found else "none"

    return (
        f"{arm} against the model a site trains alone, {metric.title} at {len(verdicts)} sites: "
        f"better at {named('better')}, worse at {named('worse')}, "
        f"not shown at {named('not shown')}."
    )


def _gap(arm: str, found: Estimate, level: float) -> str:
    if found["value"] is None:
        return f"Share of the gap between local and pooled that {arm} closes: {found['reason']}."
    bounds = f" ({found['reason']})"
    if found["low"] is not None and found["high"] is not None:
        bounds = f" ({level:.0%} interval {found['low']:.0%} to {found['high']:.0%})"
    return f"{arm} closes {found['value']:.0%}{bounds} of the gap between local and pooled."


def _others(comparisons: Sequence[Told], metric: Metric) -> list[str]:
    """Return one sentence on all comparisons beside the primary one."""
    if not comparisons:
        return []
    groups: dict[str, list[str]] = {"better": [], "worse": [], "not shown": []}
    for told in comparisons:
        way = verdict(told["difference"], metric.higher_is_better)
        groups[way if told["supported"] else "not shown"].append(told["arm"])
    said = [f"{way}: {', '.join(groups[way]) or 'none'}" for way in groups]
    return [f"Other arms against {comparisons[0]['against']}, after Holm: {'; '.join(said)}."]


def notes(
    evidence: Evidence, metric: Metric, told: Sequence[Told], comparisons: Sequence[Told]
) -> list[str]:
    """Return what limits the results.

    Args:
        evidence: of all arms.
        metric: the primary one.
        told: entries of "arms".
        comparisons: the primary first.
    """
    return [
        *_on_seeds(evidence),
        *_on_resamples(evidence, comparisons),
        *_on_sizes(evidence),
        *_on_arms(evidence),
        *_on_gains(evidence, metric, told),
    ]


def _on_seeds(evidence: Evidence) -> list[str]:
    seeds = {arm: evidence.seeds(arm) for arm in evidence.arms if evidence.by_arm[arm]}
    lines = []
    counts = {len(found) for found in seeds.values()}
    if counts == {1}:
        lines.append(
            "One seed: the intervals hold the noise of the test patients, not that of training; "
            "another seed could reorder the arms."
        )
    elif counts:
        lines.append(
            f"Intervals resample test patients and the {max(counts)} seeds together; from so few "
            "seeds the noise of training is only roughly known."
        )
    every = set().union(*seeds.values())
    for arm, found in seeds.items():
        if set(found) != every:
            lines.append(f"{arm} finished {len(found)} of {len(every)} seeds: {found}.")
    return lines


def _on_resamples(evidence: Evidence, comparisons: Sequence[Told]) -> list[str]:
    b, others = evidence.replicates, len(comparisons) - 1
    lines = [f"Intervals are percentiles of {b} bootstrap resamples of patients within each site."]
    # The smallest p that b replicates can give, times Holm's first factor.
    if b and others > 0 and others * 2 / (b + 1) >= 1 - evidence.level:
        lines.append(f"{b} resamples are too few for {others} comparisons: none can be supported.")
    lines.append("Verdicts for single sites are not adjusted for their number.")
    return lines


def _on_sizes(evidence: Evidence) -> list[str]:
    small = [site for site in evidence.sites if evidence.refusal([site])]
    if not small or evidence.refusal(evidence.sites):
        return []
    return [
        f"Fewer than {LEAST_IMAGES} test images of a class at {listed(small)}: no interval "
        "there, and their share of the intervals of means is rough."
    ]


def _on_arms(evidence: Evidence) -> list[str]:
    both = [arm for arm, models in evidence.arms.items() if models == "both"]
    personal = [arm for arm, models in evidence.arms.items() if models == "personal"]
    lines = []
    if both:
        lines.append(
            f"{', '.join(both)}: compared by each site's own model; at held-out sites by the "
            "global one, as it was before the sites went on alone."
        )
    if (both or personal) and len(evidence.sites) > 1 and not evidence.crossed:
        lines.append(
            f"{', '.join(both + personal)}: with {len(evidence.sites)} sites, each site's own "
            "model was tested at home only, so nothing is known of it at the others."
        )
    if any(metric.name.startswith("sensitivity") for metric in evidence.metrics) and (
        both or personal
    ):
        lines.append(
            f"{', '.join(both + personal)}: on all test images pooled, the models of all sites "
            "share one threshold, chosen on all validation images; site by site each has its own."
        )
    if personal and evidence.held_out:
        lines.append(
            f"{', '.join(personal)}: no global model; figures at held-out sites are the mean over "
            "the sites' models."
        )
    return lines


def _on_gains(evidence: Evidence, metric: Metric, told: Sequence[Told]) -> list[str]:
    """Return how far the two best arms are apart, beside the noise."""
    means = {each["name"]: each["columns"][metric.name]["mean"]["value"] for each in told}
    known = [arm for arm in means if means[arm] is not None]
    known.sort(key=lambda arm: means[arm], reverse=metric.higher_is_better)
    if len(known) < 2:
        return []
    first, second = known[:2]
    found, _ = difference(evidence, metric.name, (first, second), evidence.sites)
    if found["value"] is None:
        return []
    shown = verdict(found, metric.higher_is_better) != "not shown"
    noise = "beyond the noise, though picked afterwards" if shown else "within the noise"
    size = _bounds(found, evidence.level)
    return [f"The two best means are those of {first} and {second}, {size} apart: {noise}."]
