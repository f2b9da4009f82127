"""The comparison in words: headlines first, then what a careful reader should know."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedrad.core.names import by_reason, listed
from fedrad.metrics.base import Metric
from fedrad.metrics.scales import uninformative
from fedrad.report.differences import NO_COMPARISON, ONE_TRAINING, difference, verdict
from fedrad.report.estimates import Estimate
from fedrad.report.evidence import LEAST_PATIENTS, Evidence
from fedrad.report.formatting import interval, number, percent

__all__ = ["headline", "notes", "sentence"]

ComparisonJson = Mapping[str, Any]

NO_VERDICT = "one training of each: no verdict beyond it"


def sentence(told: ComparisonJson, metric: Metric, way: str, level: float) -> str:
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
    size = f"{metric.title} {_bounds(found, level)}, {scope}{_hardly(found, metric)}"
    if told["p_adjusted"] is not None:
        size += f"; p = {told['p_adjusted']:.2g}{'' if told['primary'] else ' after Holm'}"
        size += _close(told["p_adjusted"], 1 - level)
    beside = f" {told['chance']}" if told["chance"] else ""
    if way == ONE_TRAINING:
        return f"{arm} against {against}: {NO_VERDICT}; {size}.{beside}"
    if told["supported"]:
        return f"{arm} is {way} than {against}: {size}.{beside}"
    return f"{arm} against {against}: no difference is shown; {size}.{beside}"


def headline(
    evidence: Evidence,
    metric: Metric,
    arm: str,
    told: Sequence[ComparisonJson],
    comparisons: Sequence[ComparisonJson],
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
    value = found["value"]
    if found["low"] is None or found["high"] is None:
        return f"{number(value, signed=True)} ({found['reason']})"
    ends = interval(found, signed=True)
    return f"{number(value, signed=True)} ({level:.0%} interval {ends}{_only_these(found)})"


def _only_these(found: Estimate) -> str:
    return " over patients, for these trained models only" if found["seeds"] == 1 else ""


def _hardly(found: Estimate, metric: Metric) -> str:
    """Return a warning where few seeds leave nearly all differences possible."""
    low, high, seeds = found["low"], found["high"], found["seeds"]
    if seeds < 2 or low is None or high is None:
        return ""
    if not uninformative(metric.name, (high - low) / 2):
        return ""
    return f"; {seeds} seeds say next to nothing of it"


def _close(p: float, limit: float) -> str:
    """Return a warning where a p value is so near the limit that little would turn the verdict."""
    if not limit / 2 < p < 2 * limit:
        return ""
    return f", near the limit of {limit:.2g}: other seeds or another machine could turn it"


def _who_gains(arm: str, metric: Metric, verdicts: Sequence[ComparisonJson]) -> str:
    """Return at which sites an arm is better than the site's own model, of those compared."""
    against = f"{arm} against the model a site trains alone"
    missed = {
        entry["site"]: entry["difference"]["reason"]
        for entry in verdicts
        if entry["verdict"] == NO_COMPARISON
    }
    if len(missed) == len(verdicts):
        return f"{against}: no comparison; {_why(missed)}."
    compared = f"{len(verdicts) - len(missed)} of {len(verdicts)}" if missed else len(verdicts)
    where = f"{against}, {metric.title} at {compared} sites"
    rest = f"; no comparison at {by_reason(missed)}" if missed else ""
    if any(entry["verdict"] == ONE_TRAINING for entry in verdicts):
        return f"{where}: {NO_VERDICT}{rest}."

    def named(verdict: str) -> str:
        found = [entry["site"] for entry in verdicts if entry["verdict"] == verdict]
        return f"{len(found)} ({listed(found)})" if found else "none"

    return (
        f"{where}: better at {named('better')}, worse at {named('worse')}, "
        f"not shown at {named('not shown')}{rest}."
    )


def _why(reasons: Mapping[str, str]) -> str:
    """Return why nothing is known at any site: once where it is the same everywhere."""
    different = set(reasons.values())
    return different.pop() if len(different) == 1 else by_reason(reasons)


def _gap(arm: str, found: Estimate, level: float) -> str:
    if found["value"] is None:
        return f"Share of the gap between local and pooled that {arm} closes: {found['reason']}."
    bounds = f" ({found['reason']})"
    if found["low"] is not None and found["high"] is not None:
        ends = f"{percent(found['low'], digits=0)} to {percent(found['high'], digits=0)}"
        bounds = f" ({level:.0%} interval {ends}{_only_these(found)})"
    share = percent(found["value"], digits=0)
    return f"{arm} closes {share}{bounds} of the gap between local and pooled."


def _others(comparisons: Sequence[ComparisonJson], metric: Metric) -> list[str]:
    """Return one sentence on all comparisons beside the primary one."""
    if not comparisons:
        return []
    against = f"Other arms against {comparisons[0]['against']}"
    missed = {
        told["arm"]: told["difference"]["reason"]
        for told in comparisons
        if told["difference"]["value"] is None
    }
    if len(missed) == len(comparisons):
        return [f"{against}: no comparison; {_why(missed)}."]
    rest = f"; no comparison: {', '.join(missed)}" if missed else ""
    if any(told["difference"]["seeds"] == 1 for told in comparisons):
        return [f"{against}: {NO_VERDICT}{rest}."]
    groups: dict[str, list[str]] = {"better": [], "worse": [], "not shown": []}
    for told in comparisons:
        way = verdict(told["difference"], metric.higher_is_better)
        if way != NO_COMPARISON:
            groups[way if told["supported"] else "not shown"].append(told["arm"])
    said = [f"{way}: {', '.join(groups[way]) or 'none'}" for way in groups]
    return [f"{against}, after Holm: {'; '.join(said)}{rest}."]


def notes(evidence: Evidence, metric: Metric, told: Sequence[ComparisonJson]) -> list[str]:
    """Return what limits the results.

    Args:
        evidence: of all arms.
        metric: the primary one.
        told: entries of "arms".
    """
    return [
        *_on_seeds(evidence),
        *_on_sites(evidence),
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
            "One training of each arm: the intervals hold the noise of the test patients, not that "
            "of training, and no verdict is given; another seed could reorder the arms."
        )
    elif counts:
        lines.append(
            f"Intervals and p values hold the noise of the test patients and that of training, "
            f"from {max(counts)} seeds, as a study of {max(counts)} readers would (Obuchowski and "
            "Rockette; docs/statistics.md); they are about these sites, not about others."
        )
    every = set().union(*seeds.values())
    for arm, found in seeds.items():
        if set(found) != every:
            lines.append(f"{arm} finished {len(found)} of {len(every)} seeds: {found}.")
    return lines


def _on_sites(evidence: Evidence) -> list[str]:
    """Return that verdicts site by site are many, and how many would be wrong by chance."""
    count = len(evidence.sites)
    wrong = (1 - evidence.level) * count
    return [
        f"Verdicts for single sites are not adjusted for their number: with nothing to be found, "
        f"each arm would still be called better or worse at about {wrong:.2g} of {count} sites."
    ]


def _on_sizes(evidence: Evidence) -> list[str]:
    small = [site for site in evidence.sites if evidence.refusal([site])]
    if not small or evidence.refusal(evidence.sites):
        return []
    return [
        f"Fewer than {LEAST_PATIENTS} test patients of a class at {listed(small)}: no interval "
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


def _on_gains(evidence: Evidence, metric: Metric, told: Sequence[ComparisonJson]) -> list[str]:
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
    way = verdict(found, metric.higher_is_better)
    noise = {"not shown": "within the noise", ONE_TRAINING: NO_VERDICT}.get(
        way, "beyond the noise, though picked afterwards"
    )
    size = _bounds(found, evidence.level)
    return [f"The two best means are those of {first} and {second}, {size} apart: {noise}."]
