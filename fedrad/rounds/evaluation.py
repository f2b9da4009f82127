"""Models on the sites' validation and test sets: from what sites tell to cells of a table.

A test set is read once, after the last round. Thresholds come from validation images alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedrad.algorithms.base import Algorithm, Reply
from fedrad.algorithms.evaluation import RESULT, THRESHOLDS, as_state
from fedrad.algorithms.split.server import evaluate_with
from fedrad.config import POOLED, Task
from fedrad.core.names import listed
from fedrad.core.state import Bundle, State
from fedrad.metrics.base import Metric
from fedrad.metrics.calibration import loss
from fedrad.metrics.cells import Cells, cells_of, threshold, threshold_range
from fedrad.metrics.pooling import pooled_metric, sensitivity_bound
from fedrad.metrics.site_result import SiteResult
from fedrad.rounds.flower_sites import FlowerSites
from fedrad.rounds.undefined import reason, undefined_pooled
from fedrad.runs import Counts, Evaluation

__all__ = ["evaluate_arm", "validate", "validation_of"]

NO_MODEL = "the site trained nothing, so it has no model of its own"
MATRIX_LIMIT = 16
"""With more training sites than this, personal models are tested at home only."""
_TELLING = 0.005
"""A bound on the error of a pooled metric from which on it is told."""


def validate(
    algorithm: Algorithm,
    state: Bundle,
    sites: FlowerSites,
    metrics: tuple[Metric, ...],
    task: Task,
) -> dict[str, dict[str, float | None]]:
    """Return site -> metric -> value of the model in use, on each site's validation images.

    The loss is always among them; None stands for what is undefined.
    """
    return validation_of(_ask(algorithm, state, sites, "validate"), metrics, task)


def validation_of(
    replies: Iterable[tuple[str, Reply]], metrics: tuple[Metric, ...], task: Task
) -> dict[str, dict[str, float | None]]:
    """Return site -> metric -> value, from the sites' answers to a validation."""
    wanted = {metric.name: metric for metric in (*metrics, loss(task))}
    found = ((site, _result(reply)) for site, reply in replies)
    return {
        site: {name: _plain(_value(metric, result)[0]) for name, metric in wanted.items()}
        for site, result in found
        if result
    }


def evaluate_arm(
    algorithm: Algorithm,
    state: Bundle,
    metrics: tuple[Metric, ...],
    task: Task,
    *,
    training: FlowerSites,
    testing: FlowerSites,
) -> Evaluation:
    """Return an arm's cells: its common model, its personal models, or both, at every test site."""
    table = _Table(task, metrics)
    if algorithm.shared:
        _test_common(table, algorithm, state, training, testing)
    if algorithm.personal:
        _test_personal(table, algorithm, state, training, testing)
    return Evaluation(table.cells, table.reasons, table.counts, table.facts)


def _test_common(
    table: "_Table",
    algorithm: Algorithm,
    state: Bundle,
    training: FlowerSites,
    testing: FlowerSites,
) -> None:
    edges: State = {}
    if _thresholded(table.metrics):
        tuned = [_result(reply) for _, reply in _ask(algorithm, state, training, "tune")]
        edges = _thresholds(table, [one for one in tuned if one])
    found: dict[str, SiteResult] = {}
    asked = dict.fromkeys(testing.names, edges)
    for site, reply in _ask(algorithm, state, testing, "test", asked):
        result = _result(reply)
        table.add("global", site, result)
        if result and site in training.nodes:
            found[site] = result
    table.pool("global", found, table.ranges)


def _test_personal(
    table: "_Table",
    algorithm: Algorithm,
    state: Bundle,
    training: FlowerSites,
    testing: FlowerSites,
) -> None:
    own = replace(algorithm, shared=False)
    edges: dict[str, State] = {}
    if algorithm.cut and _thresholded(table.metrics):
        # Whoever has a whole network finds its threshold alone.
        for site, reply in _ask(own, state, training, "tune"):
            result = _result(reply)
            edges[site] = _thresholds(table, [result] if result else [])
    found: dict[str, SiteResult] = {}
    for site, reply in _ask(own, state, training, "test", edges):
        result = _result(reply)
        table.add(f"personal:{site}", site, result)
        if result:
            found[site] = result
    table.pool(f"personal:{POOLED}", found)
    # A site's part of a cut network does not leave it, so only its owner can test it.
    if len(training.nodes) > MATRIX_LIMIT or algorithm.cut:
        return
    for owner in training.names:
        others = testing.only(*(name for name in testing.names if name != owner))
        if owner not in found:
            for site in testing.names:
                table.add(f"personal:{owner}", site, None)
            continue
        send = dict(next(iter(training.only(owner).gather("share", {})))[1].arrays)
        for site, reply in others.gather("test", send):
            table.add(f"personal:{owner}", site, _result(reply))


def _ask(
    algorithm: Algorithm,
    state: Bundle,
    sites: FlowerSites,
    action: str,
    thresholds: Mapping[str, State] | None = None,
) -> Iterator[tuple[str, Reply]]:
    """Yield what each site tells of the model in use: sent whole, its own, or over streams."""
    edges = thresholds or {}
    if algorithm.cut:
        yield from evaluate_with(algorithm.cut, state["model"], sites, action, edges)
        return
    send: Bundle = {"model": state["model"]} if algorithm.shared else {}
    common = next(iter(edges.values()), {})
    yield from sites.gather(action, {**send, THRESHOLDS: common} if common else send)


def _result(reply: Reply) -> SiteResult | None:
    """Return what a site told; None of one that has no model."""
    found = reply.arrays.get(RESULT)
    return SiteResult.from_state(found) if found else None


def _thresholded(metrics: Sequence[Metric]) -> bool:
    return any(metric.specificity is not None for metric in metrics)


def _thresholds(table: "_Table", tuned: Sequence[SiteResult]) -> State:
    """Return each metric's threshold for each output, on all these sites' validation images."""
    outputs = range(table.task.outputs)
    none = cells_of(np.zeros(0), np.zeros(0))
    negatives = [_together([none, *(one.cells[k][0] for one in tuned)]) for k in outputs]
    wanted = {m.name: m.specificity for m in table.metrics if m.specificity is not None}
    table.ranges = {
        name: np.array([threshold_range(one, asked) for one in negatives])
        for name, asked in wanted.items()
    }
    return as_state(
        {
            name: np.array([threshold(one, asked) for one in negatives])
            for name, asked in wanted.items()
        }
    )


def _together(cells: Sequence[Cells]) -> Cells:
    """Return several sites' cells, in no order."""
    return Cells(
        *(
            np.concatenate([getattr(one, name) for one in cells])
            for name in ("lower", "upper", "mean", "images")
        )
    )


def _value(metric: Metric, result: SiteResult) -> np.ndarray:
    return metric.combine(result.parts[metric.name])


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass
class _Table:
    """The cells of one arm as they come in."""

    task: Task
    metrics: tuple[Metric, ...]
    cells: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    ranges: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Metric -> [outputs, 2]: between which log-odds the last thresholds that were chosen lie."""

    def add(self, model: str, site: str, result: SiteResult | None) -> None:
        """Add the cell of one model on one test set; without a result there was no model."""
        if result is None:
            self.cells[model, site] = {}
            self.reasons[model, site] = {m.name: NO_MODEL for m in self.metrics}
            return
        self.cells[model, site] = {m.name: _value(m, result) for m in self.metrics}
        found = {m.name: reason(m, self.task, result) for m in self.metrics}
        lacking = [name for name, v in self.cells[model, site].items() if np.isnan(v[0])]
        self.reasons[model, site] = {name: found[name] for name in lacking}
        self.counts[site] = _counts(result)

    def pool(
        self,
        model: str,
        found: Mapping[str, SiteResult],
        ranges: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Add the cell of the training sites' test sets together, and the signs of a collapse.

        Args:
            model: whose it is.
            found: site -> what it told.
            ranges: of thresholds that all sites share; None where each has its own.
        """
        results, names = list(found.values()), list(found)
        if not results:
            self.cells[model, POOLED] = {}
            self.reasons[model, POOLED] = {m.name: NO_MODEL for m in self.metrics}
            return
        draws = len(next(iter(results[0].parts.values()))) - 1
        each = {m.name: pooled_metric(m, results, draws=draws) for m in self.metrics}
        self.cells[model, POOLED] = {name: one.values for name, one in each.items()}
        self.reasons[model, POOLED] = {
            m.name: _withheld([names[at] for at in each[m.name].withheld])
            if each[m.name].withheld
            else undefined_pooled(m, self.task, results)
            for m in self.metrics
            if np.isnan(each[m.name].values[0])
        }
        reach = {name: one.bound for name, one in each.items()}
        for metric in self.metrics:
            if ranges and metric.name in ranges:
                ends, value = ranges[metric.name], float(each[metric.name].values[0])
                reach[metric.name] = sensitivity_bound(metric, results, value, *ends.T)
        bounds = {name: bound for name, bound in reach.items() if bound > _TELLING}
        if bounds:
            self.bounds[model] = {name: round(bound, 4) for name, bound in bounds.items()}
            self.facts["pooled_bounds"] = self.bounds
        self.facts["share_in_fullest_bin"] = _share_in_fullest_bin(results)
        self.facts["one_class"] = _one_class(results)


def _withheld(names: Sequence[str]) -> str:
    return (
        f"kept back by {listed(names)}: fewer patients of a class than the sites' min_cell, or one "
        "patient with most of its images"
    )


def _counts(result: SiteResult) -> Counts:
    """Return how many images a test set has, and how many with and without each label."""
    found: dict[str, object] = {"images": result.images, "patients": result.patients}
    if (result.counts >= 0).all():
        keys = ("negatives", "positives", "negative_patients", "positive_patients")
        found |= {
            key: [int(n) for n in column] for key, column in zip(keys, result.counts.T, strict=True)
        }
    return found


def _share_in_fullest_bin(results: Sequence[SiteResult]) -> float:
    """Return the largest share of images, over all sites, in one bin; of outputs the smallest."""
    images = np.array([one.images for one in results], np.float64)
    shares = []
    for bins in np.stack([one.fullest for one in results], axis=1):
        inside = np.bincount(bins[:, 0].astype(int), weights=bins[:, 1] * images)
        shares.append(inside.max() / max(images.sum(), 1.0))
    return float(min(shares))


def _one_class(results: Sequence[SiteResult]) -> bool:
    """Return whether every image was given one and the same class; of all findings, if several."""
    given = (np.sum([one.decided for one in results], axis=0) > 0).sum(axis=-1)
    return bool((given == 1).any() and (given <= 1).all())
