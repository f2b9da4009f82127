"""Models on the sites' validation and test sets: from sums that sites send to cells of a table.

A test set is read once, after the last round. Thresholds come from validation images alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedrad.algorithms.base import Algorithm, Reply
from fedrad.algorithms.split_server import evaluate_with
from fedrad.config import POOLED, Task
from fedrad.core.state import Bundle
from fedrad.federation.exchange import FlowerSites
from fedrad.metrics.base import Metric
from fedrad.metrics.calibration import loss
from fedrad.metrics.classification import confusion, one_class
from fedrad.metrics.ranking import histogram, share_in_fullest_bin
from fedrad.runs import Counts, Evaluation

__all__ = ["evaluate_arm", "validate", "validation_of"]

Sums = dict[str, np.ndarray]
NO_MODEL = "the site trained nothing, so it has no model of its own"
MATRIX_LIMIT = 16
"""With more training sites than this, personal models are tested at home only."""


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
    asked = _ask(algorithm, state, sites, "validate")
    return _values(((site, sums) for site, sums, _ in asked), metrics, task)


def validation_of(
    replies: Iterable[tuple[str, Reply]], metrics: tuple[Metric, ...], task: Task
) -> dict[str, dict[str, float | None]]:
    """Return site -> metric -> value, from the sites' answers to a validation."""
    return _values(((site, _sums(reply)) for site, reply in replies), metrics, task)


def _values(
    told: Iterable[tuple[str, Sums]], metrics: tuple[Metric, ...], task: Task
) -> dict[str, dict[str, float | None]]:
    wanted = {metric.name: metric for metric in (*metrics, loss(task))}
    return {
        site: {name: _plain(_compute(metric, sums, sums)[0]) for name, metric in wanted.items()}
        for site, sums in told
        if sums
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
    tuning = _added([sums for _, sums, _ in _ask(algorithm, state, training, "tune")])
    total: Sums = {}
    for site, sums, patients in _ask(algorithm, state, testing, "test"):
        table.add("global", site, sums, tuning)
        table.count(site, sums, patients)
        if site in training.nodes:
            total = _added([total, sums])
    table.add("global", POOLED, total, tuning)
    table.look(total)


def _test_personal(
    table: "_Table",
    algorithm: Algorithm,
    state: Bundle,
    training: FlowerSites,
    testing: FlowerSites,
) -> None:
    own = replace(algorithm, shared=False)
    tuning = {site: sums for site, sums, _ in _ask(own, state, training, "tune")}
    total: Sums = {}
    for site, sums, patients in _ask(own, state, training, "test"):
        table.add(f"personal:{site}", site, sums, tuning[site])
        total = _added([total, sums])
        if sums:
            table.count(site, sums, patients)
    table.add(f"personal:{POOLED}", POOLED, total, _added(list(tuning.values())))
    table.look(total)
    # A site's part of a cut network does not leave it, so only its owner can test it.
    if len(training.nodes) > MATRIX_LIMIT or algorithm.cut:
        return
    for owner in training.names:
        if not tuning[owner]:
            for site in testing.names:
                table.add(f"personal:{owner}", site, {}, {})
            continue
        send = dict(next(iter(training.only(owner).gather("share", {})))[1].arrays)
        others = testing.only(*(name for name in testing.names if name != owner))
        for site, sums, patients in _gather(others, "test", send):
            table.add(f"personal:{owner}", site, sums, tuning[owner])
            table.count(site, sums, patients)


def _ask(
    algorithm: Algorithm, state: Bundle, sites: FlowerSites, action: str
) -> Iterator[tuple[str, Sums, int]]:
    """Yield each site's sums of the model in use: sent whole, its own, or played over streams."""
    if algorithm.cut:
        replies = evaluate_with(algorithm.cut, state["model"], sites, action)
        for site, reply in replies:
            yield site, _sums(reply), int(reply.numbers["patients"])
        return
    yield from _gather(sites, action, {"model": state["model"]} if algorithm.shared else {})


def _gather(sites: FlowerSites, action: str, send: Bundle) -> Iterator[tuple[str, Sums, int]]:
    for site, reply in sites.gather(action, send):
        yield site, _sums(reply), int(reply.numbers["patients"])


def _sums(reply: Reply) -> Sums:
    return {name: tensor.cpu().numpy() for name, tensor in reply.arrays.get("sums", {}).items()}


def _added(parts: list[Sums]) -> Sums:
    known = [part for part in parts if part]
    names = known[0] if known else ()
    return {name: np.sum([part[name] for part in known], axis=0) for name in names}


def _compute(metric: Metric, sums: Sums, tuning: Sums) -> np.ndarray:
    # The threshold that validation images chose holds for every replicate of the test set.
    chosen = tuning[metric.statistic.name][0]
    values: np.ndarray = metric.compute(sums[metric.statistic.name], chosen)
    return values


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
    facts: dict[str, float | bool] = field(default_factory=dict)

    def add(self, model: str, site: str, sums: Sums, tuning: Sums) -> None:
        """Add the cell of one model on one test set; without sums there was no model."""
        if not sums:
            self.cells[model, site] = {}
            self.reasons[model, site] = {m.name: NO_MODEL for m in self.metrics}
            return
        self.cells[model, site] = {m.name: _compute(m, sums, tuning) for m in self.metrics}
        found = {
            m.name: m.undefined(sums[m.statistic.name][0], tuning[m.statistic.name][0])
            for m in self.metrics
        }
        self.reasons[model, site] = {name: why for name, why in found.items() if why}

    def count(self, site: str, sums: Sums, patients: int) -> None:
        """Note how many images a test set has, and how many with and without each label."""
        by_class = sums[histogram(self.task).name][0].reshape(self.task.outputs, 2, -1).sum(-1)
        tables = sums[confusion(self.task).name][0]
        self.counts[site] = {
            "images": int(tables.sum() / self.task.columns),
            "patients": patients,
            "positives": [int(n) for n in by_class[:, 1]],
            "negatives": [int(n) for n in by_class[:, 0]],
        }

    def look(self, total: Sums) -> None:
        """Note the signs of a collapsed model, over all training sites' test images."""
        share = share_in_fullest_bin(total[histogram(self.task).name][0])
        self.facts["share_in_fullest_bin"] = float(np.max(share))
        self.facts["one_class"] = one_class(self.task, total[confusion(self.task).name][0])
