"""What the finished arms and seeds measured, and how it becomes an estimate with an interval.

A quantity is an array [s, 1 + b] here: a row for each seed of an arm; first what was observed, then
one value for each bootstrap replicate. Replicate b has the same patients in every arm and seed, so
differences of quantities are paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypedDict

import numpy as np

from fedrad.core.seeds import seed
from fedrad.metrics.base import Array, Metric
from fedrad.metrics.intervals import percentile
from fedrad.runs import Counts

__all__ = [
    "POOLED",
    "ArmRun",
    "Cell",
    "Estimate",
    "Evidence",
    "Models",
    "View",
    "estimate",
    "missing",
    "model_of",
    "over_seeds",
    "summary",
]

Cell = dict[str, Array]  # metric -> [1 + b]: observed, then bootstrap replicates
Models = Literal["global", "personal", "both"]
View = Literal["global", "personal"]

POOLED = "pooled"  # the "site" whose sums are those of all training sites' test sets
LEAST_IMAGES = 10  # of either class, for an interval
LEAST_REPLICATES = 100  # with fewer, the ends of a 95 % interval are one or two chance resamples


class Estimate(TypedDict):
    """A number for results.json; `None` where undefined, and then the reason says why."""

    value: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    reason: str | None


@dataclass(frozen=True, eq=False)
class ArmRun:
    """One arm and seed that finished.

    Attributes:
        arm, seed: which.
        cells: (model, site) -> what was measured. A model is "global" or "personal:<owner>"; a site
            is a test site's name or "pooled": the training sites' test sets, sums added. There
            "personal:pooled" is each site's own model on its own test set, sums added.
        reasons: (model, site) -> metric -> why it is nan.
        share_in_fullest_bin: largest share of the test images' scores in one bin.
        one_class: every test image was given the same class.
        counts: test site -> "images", "patients", and by output "positives" and "negatives".
    """

    arm: str
    seed: int
    cells: Mapping[tuple[str, str], Cell]
    reasons: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    share_in_fullest_bin: float = 0.0
    one_class: bool = False
    counts: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All runs of an experiment, by arm.

    Attributes:
        runs: in any order.
        arms: every arm that was asked for, in the order of reports -> the models it makes.
        sites: training sites.
        held_out: sites that no arm trained on.
        metrics: in the order of reports.
        unfinished: arm -> why it has no run.
        level: of the intervals.
    """

    runs: Sequence[ArmRun]
    arms: Mapping[str, Models]
    sites: Sequence[str]
    held_out: Sequence[str]
    metrics: Sequence[Metric]
    unfinished: Mapping[str, str]
    level: float

    @cached_property
    def by_arm(self) -> dict[str, dict[int, ArmRun]]:
        """Return arm -> seed -> run, seeds sorted."""
        ordered = sorted(self.runs, key=lambda run: run.seed)
        return {arm: {run.seed: run for run in ordered if run.arm == arm} for arm in self.arms}

    @cached_property
    def counts(self) -> Mapping[str, Counts]:
        """Return test site -> counts; they are those of every run."""
        return {site: counts for run in self.runs for site, counts in run.counts.items()}

    @cached_property
    def crossed(self) -> bool:
        """Return whether any site's own model met the test set of another training site."""
        places = (place for run in self.runs for place in run.cells)
        training = set(self.sites)
        return any(
            site in training and model not in ("global", model_of("personal", site))
            for model, site in places
        )

    @cached_property
    def replicates(self) -> int:
        """Return b."""
        lengths = (
            len(v) for run in self.runs for cell in run.cells.values() for v in cell.values()
        )
        return next(lengths, 1) - 1

    def seeds(self, *arms: str) -> list[int]:
        """Return the seeds that all these arms have finished, sorted."""
        common = [set(self.by_arm[arm]) for arm in arms]
        return sorted(set.intersection(*common))

    def view(self, arm: str) -> View:
        """Return which models of an arm stand for it at its sites: their own, where it has them."""
        return "global" if self.arms[arm] == "global" else "personal"

    def cell(self, arm: str, model: str, site: str, metric: str, seeds: Iterable[int]) -> Array:
        """Return the quantity [s, 1 + b] that a model has at a site; nan where not measured."""
        unknown = np.full(1 + self.replicates, np.nan)
        runs = [self.by_arm[arm][number] for number in seeds]
        rows = [run.cells.get((model, site), {}).get(metric, unknown) for run in runs]
        return np.array(rows, np.float64).reshape(len(rows), 1 + self.replicates)

    def own(self, arm: str, site: str, metric: str, seeds: Iterable[int]) -> Array:
        """Return the quantity at a site of the model that the arm gives to this site."""
        return self.cell(arm, model_of(self.view(arm), site), site, metric, seeds)

    def reason(self, arm: str, model: str, site: str, metric: str) -> str:
        """Return why a metric is nan there, in words."""
        if not self.by_arm[arm]:
            return self.unfinished.get(arm, "this arm did not finish")
        for run in self.by_arm[arm].values():
            if metric in run.reasons.get((model, site), {}):
                return run.reasons[model, site][metric]
            if (model, site) not in run.cells:
                return "not evaluated"
        return "undefined"

    def refusal(self, sites: Iterable[str]) -> str | None:
        """Return why the test sets of these sites, together, are too small for an interval.

        Of several findings or classes, the one with the fewest images counts: it is the least sure.
        """
        counts = [self.counts.get(site, {}) for site in sites]
        for key, word in (("positives", "positive"), ("negatives", "negative")):
            known = [count[key] for count in counts if key in count]
            least = min(map(sum, zip(*known, strict=True)), default=LEAST_IMAGES)
            if least < LEAST_IMAGES:
                found = f"{least} {word} test images"
                return f"no interval: {found}; needs {LEAST_IMAGES} of each class"
        return None

    def of_cell(self, arm: str, model: str, site: str, metric: str) -> Estimate:
        """Return the estimate of a model at a site (or "pooled")."""
        values = self.cell(arm, model, site, metric, self.seeds(arm))
        refusal = self.refusal(self.sites if site == POOLED else [site])
        why = self.reason(arm, model, site, metric)
        return estimate(values, level=self.level, undefined=why, refusal=refusal)


def model_of(view: View, site: str) -> str:
    """Return the name of the model that a site uses.

    >>> model_of("personal", "nord"), model_of("global", "nord")
    ('personal:nord', 'global')
    """
    return "global" if view == "global" else f"personal:{site}"


def over_seeds(values: Array) -> Array:
    """Return the mean over seeds; replicates take the mean over resampled seeds.

    Args:
        values: [s, 1 + b].

    Returns:
        [1 + b]. Replicate b has the same resample of seeds in all quantities of s seeds, so that
        differences stay paired. With one seed nothing is resampled.

    >>> over_seeds(np.array([[1.0, 1.0, 2.0]])).tolist()
    [1.0, 1.0, 2.0]
    """
    count, replicates = len(values), values.shape[1] - 1
    draw = np.random.default_rng(seed(0, "", 0, f"seeds-{count}"))
    drawn = draw.integers(0, count, (count, replicates))
    # Draw i of replicate b takes the value of seed drawn[i, b].
    resampled = np.take_along_axis(values[:, 1:], drawn, axis=0)
    return np.asarray(np.concatenate([values[:, :1], resampled], axis=1).mean(axis=0))


def missing(reason: str) -> Estimate:
    """Return an estimate without a value.

    >>> missing("not evaluated")["reason"]
    'not evaluated'
    """
    return Estimate(value=None, low=None, high=None, seed_sd=None, reason=reason)


def estimate(
    values: Array,
    *,
    level: float,
    undefined: str = "undefined",
    refusal: str | None = None,
    remark: str | None = None,
) -> Estimate:
    """Return the estimate of a quantity.

    Args:
        values: [s, 1 + b].
        level: of the percentile interval over replicates.
        undefined: the reason if the value is nan.
        refusal: the reason if there must be no interval.
        remark: what else to say of the value.

    >>> values = np.concatenate([[50.0], np.arange(101.0)])[None]
    >>> estimate(values, level=0.5, remark="over 2 of 3 sites")
    {'value': 50.0, 'low': 25.0, 'high': 75.0, 'seed_sd': None, 'reason': 'over 2 of 3 sites'}
    """
    if not len(values) or np.isnan(values[:, 0]).any():
        return missing(undefined)
    return summary(over_seeds(values), values[:, 0], level=level, refusal=refusal, remark=remark)


def summary(
    mean: Array, by_seed: Array, *, level: float, refusal: str | None, remark: str | None
) -> Estimate:
    """Return the estimate of what was computed from means over seeds, such as a ratio.

    Args:
        mean: [1 + b], the first no nan.
        by_seed: [s] the same from each seed alone; its SD is left out if one is nan.
        level: as for `estimate`.
        refusal: as for `estimate`.
        remark: as for `estimate`.
    """
    low, high = percentile(mean[1:], level)
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
    why = refusal
    if why is None and len(mean) == 1:
        why = "no interval: no bootstrap replicates were asked for"
    elif why is None and len(mean) <= LEAST_REPLICATES:
        why = f"no interval: {len(mean) - 1} replicates; needs {LEAST_REPLICATES}"
    elif why is None and np.isnan(low):
        why = f"no interval: undefined in {np.isnan(mean[1:]).mean():.0%} of the resamples"
    return Estimate(
        value=float(mean[0]),
        low=None if why else low,
        high=None if why else high,
        seed_sd=None if np.isnan(spread) else spread,
        reason="; ".join(part for part in (remark, why) if part) or None,
    )
