"""What the finished arms and seeds measured, and on how many patients.

A quantity is an array [s, 1 + b] here: a row for each seed of an arm; first what was observed, then
one value for each replicate. A replicate of a site is the same draw in every arm and seed, so
differences of quantities are paired; replicates say how a quantity varies with the site's patients,
by their variances and covariances alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from fedrad.config import POOLED
from fedrad.metrics.base import Array, Metric
from fedrad.metrics.scales import SCALES, Basis
from fedrad.report.estimates import Estimate, estimate
from fedrad.runs import Counts

__all__ = [
    "LEAST_PATIENTS",
    "ArmRun",
    "Evidence",
    "Models",
    "SiteMetrics",
    "View",
    "model_used_by",
]

SiteMetrics = dict[str, Array]  # metric -> [1 + b]: observed, then replicates
Models = Literal["global", "personal", "both"]
View = Literal["global", "personal"]

LEAST_PATIENTS = 10  # of either class, for an interval


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
        bounds: model -> metric -> how far its pooled value can be from that of all scores, where
            that is above 0.005.
        one_class: every test image was given the same class.
        counts: test site -> "images", "patients", and by output "positives" and "negatives"
            (images), "positive_patients" and "negative_patients" (one with both in both).
    """

    arm: str
    seed: int
    cells: Mapping[tuple[str, str], SiteMetrics]
    reasons: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    share_in_fullest_bin: float = 0.0
    bounds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
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
            site in training and model not in ("global", model_used_by("personal", site))
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
        return self.cell(arm, model_used_by(self.view(arm), site), site, metric, seeds)

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

        Of several findings or classes, the one with the fewest patients counts: it is the least
        sure. Images count where a site does not tell its patients.
        """
        counts = [self.counts.get(site, {}) for site in sites]
        for word in ("positive", "negative"):
            known = [each for count in counts if (each := _of_class(count, word))]
            what = "patients" if all(f"{word}_patients" in count for count in counts) else "images"
            least = min(map(sum, zip(*known, strict=True)), default=LEAST_PATIENTS)
            if least < LEAST_PATIENTS:
                found = f"{least} {word} test {what}"
                return f"no interval: {found}; needs {LEAST_PATIENTS} of each class"
        return None

    def basis(self, sites: Sequence[str], metric: str, weights: Sequence[float] = ()) -> Basis:
        """Return what a metric's mean over these sites rests on beside its replicates.

        Args:
            sites: whose mean it is; "pooled" for all training sites taken as one.
            metric: its name.
            weights: of the sites; alike if there are none.
        """
        scale = SCALES.get(metric)
        if list(sites) == [POOLED]:
            counts = [_added([self.counts.get(site, {}) for site in self.sites])]
        else:
            counts = [self.counts.get(site, {}) for site in sites]
        words = ("positive", "negative")
        classes = [[_of_class(count, word) for count in counts] for word in words]
        if not counts or not all(found for each in classes for found in each):
            return Basis(scale)
        share = np.asarray(weights or np.ones(len(counts)), np.float64)
        ill, well = (np.asarray(each, np.float64) for each in classes)
        return Basis(scale, ill, well, share / share.sum())

    def of_cell(self, arm: str, model: str, site: str, metric: str) -> Estimate:
        """Return the estimate of a model at a site (or "pooled")."""
        values = self.cell(arm, model, site, metric, self.seeds(arm))
        refusal = self.refusal(self.sites if site == POOLED else [site])
        return estimate(
            values,
            level=self.level,
            basis=self.basis([site], metric),
            undefined=self.reason(arm, model, site, metric),
            refusal=refusal,
            remark=self._bound(arm, model, metric) if site == POOLED else None,
        )

    def _bound(self, arm: str, model: str, metric: str) -> str | None:
        """Return how far a pooled value can be from that of all scores, in words, if it is far."""
        runs = self.by_arm[arm].values()
        most = max((run.bounds.get(model, {}).get(metric, 0.0) for run in runs), default=0.0)
        if not most:
            return None
        return f"within {most:.3f} of that of all scores, of which sites tell cells of patients"


def model_used_by(view: View, site: str) -> str:
    """Return the name of the model that a site uses.

    >>> model_used_by("personal", "nord"), model_used_by("global", "nord")
    ('personal:nord', 'global')
    """
    return "global" if view == "global" else f"personal:{site}"


def _of_class(count: Counts, word: str) -> list[int]:
    """Return a site's patients of a class by output; its images where patients are not told."""
    return list(count.get(f"{word}_patients", count.get(f"{word}s", [])))


def _added(counts: Sequence[Counts]) -> Counts:
    """Return the counts of several test sets taken as one; without those not told by all."""
    keys = [f"{word}{what}" for word in ("positive", "negative") for what in ("_patients", "s")]
    return {
        key: [sum(each) for each in zip(*(count[key] for count in counts), strict=True)]
        for key in keys
        if all(key in count for count in counts)
    }
