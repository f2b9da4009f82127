"""What several sites have together, from what each of them tells.

Shares and errors are the sites' own, weighted by the images that they are of. Metrics of ranks come
from all sites' cells put together, each cell at its mean; how far that can be from the metric of
all scores is bounded by moving each class to the ends of its cells. What comes from tables of
counts is that of the added tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedrad.core.seeds import seed
from fedrad.metrics.base import Array, Metric, Sample
from fedrad.metrics.cells import Cells
from fedrad.metrics.intervals import UNDEFINED_SHARE
from fedrad.metrics.site_result import Disclosed, SiteResult

__all__ = ["Pooled", "pooled_metric", "sensitivity_bound"]

_ROWS = 256


@dataclass(frozen=True, eq=False)
class Pooled:
    """A metric of several sites' images together.

    Attributes:
        values: [1 + b] observed, then draws; nan where undefined.
        bound: how far the value can be from that of all scores; 0 where it is exact.
        withheld: positions of the sites that keep back what it needs.
    """

    values: Array
    bound: float = 0.0
    withheld: tuple[int, ...] = ()


def pooled_metric(metric: Metric, results: Sequence[SiteResult], *, draws: int) -> Pooled:
    """Return a metric of all sites' images together.

    Args:
        metric: which.
        results: of one model, or of each site's own, at least one.
        draws: b; of metrics of ranks and of tables of counts they are made here, as if images of
            one patient were one image that counts for several, and are paired with nothing.
    """
    kept = tuple(at for at, one in enumerate(results) if _withheld(metric, one))
    if kept:
        return Pooled(np.full(1 + draws, np.nan), withheld=kept)
    if metric.denominators is not None:
        return Pooled(_weighted(metric, results))
    if metric.table is not None:
        return Pooled(_of_tables(metric, results, draws))
    return _of_cells(metric, results, draws)


def sensitivity_bound(
    metric: Metric, results: Sequence[SiteResult], value: float, low: Array, high: Array
) -> float:
    """Return how far a sensitivity can be from that at the threshold on all validation scores.

    Args:
        metric: with a specificity.
        results: of one model; their cells of positives say who is called positive at either end.
        value: of the metric at the threshold that was used, all sites together.
        low: [outputs] log-odds above which that threshold lies (`threshold_range`).
        high: [outputs] log-odds below which it lies.

    Returns:
        0 where scores are told; nan where the value or a threshold is.
    """
    most, least = (
        np.array(
            [
                _share_called([one.cells[k][1] for one in results], float(edge), end)
                for k, edge in enumerate(edges)
            ]
        )
        for edges, end in ((low, "upper"), (high, "lower"))
    )
    reached = [float(metric.combine(part[None])[0]) for part in (least, most)]
    return max(value - reached[0], reached[1] - value, 0.0)


def _share_called(positives: Sequence[Cells], edge: float, end: str) -> float:
    """Return the share of images that are called positive if each is at this end of its cell."""
    images = np.concatenate([one.images for one in positives])
    called = np.concatenate([getattr(one, end) >= edge for one in positives])
    return float(images @ called / images.sum()) if len(images) else float("nan")


def _withheld(metric: Metric, result: SiteResult) -> bool:
    if metric.table is not None:
        return bool(np.isnan(result.tables[metric.table.name]).any())
    if metric.denominators is None and _lacks_cells(result):
        return True
    return bool((result.told[metric.name] == Disclosed.WITHHELD).any())


def _lacks_cells(result: SiteResult) -> bool:
    """Return whether a class has images and no cells: most of them are of one patient."""
    cells = np.array([[len(one) for one in pair] for pair in result.cells])
    return bool(((cells == 0) & (result.counts[:, :2] > 0)).any())


def _weighted(metric: Metric, results: Sequence[SiteResult]) -> Array:
    weights = np.stack([one.denominators[metric.name] for one in results])
    total = weights.sum(axis=0)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    # Where few images lack draws, because a site has one such patient, they stay as observed.
    lacking = [
        (one.told[metric.name] == Disclosed.NO_DRAWS) * w
        for one, w in zip(results, share, strict=True)
    ]
    few = np.sum(lacking, axis=0) <= UNDEFINED_SHARE
    found = np.zeros(results[0].parts[metric.name].shape)
    for one, weight in zip(results, share, strict=True):
        values = one.parts[metric.name]
        values = np.where(np.isnan(values) & few, values[:1], values)
        found += np.where(weight > 0, values * weight, 0.0)
    found[:, total == 0] = np.nan
    return metric.combine(found)


def _of_tables(metric: Metric, results: Sequence[SiteResult], draws: int) -> Array:
    assert metric.table is not None
    sums = np.sum([one.tables[metric.table.name] for one in results], axis=0)
    value = metric.table.parts(sums[None])
    if not metric.table.counts:
        return metric.combine(np.concatenate([value, np.full((draws, value.shape[1]), np.nan)]))
    # One image less in each cell that has one: its influence, alike for all images of the cell.
    places = np.flatnonzero(sums > 0)
    psi = value - metric.table.parts(sums - np.eye(len(sums))[places])
    clusters = sum(one.images for one in results) / max(sum(one.patients for one in results), 1)
    return _drawn(metric, value[0], psi, sums[places] * clusters, draws)


def _of_cells(metric: Metric, results: Sequence[SiteResult], draws: int) -> Pooled:
    middle, clusters = _sample(results, "mean", "mean")
    value = metric.parts(middle)[0]
    bound = 0.0
    if any((one.upper > one.lower).any() for r in results for pair in r.cells for one in pair):
        # Positives as high and negatives as low as their cells allow, and the other way round.
        ends = [("lower", "upper"), ("upper", "lower")]
        reached = [metric.value(_sample(results, *end)[0])[0] for end in ends]
        bound = float(np.max(np.abs(np.array(reached) - metric.combine(value[None])[0])))
    psi, variance = np.zeros((0, len(value))), np.zeros(0)
    if draws:
        middle, clusters = _coarse(middle, clusters)
        times = middle.weights[0]
        less = replace(middle, weights=times - np.eye(len(times)))
        psi, variance = metric.parts(middle)[0] - metric.parts(less), times * clusters
    return Pooled(_drawn(metric, value, psi, variance, draws), bound)


def _coarse(sample: Sample, clusters: Array) -> tuple[Sample, Array]:
    """Return at most 256 rows for each class of an output, each the mean of neighbours.

    For influences, which change slowly with the score, and of which each row costs one more.
    """
    rows: list[tuple[Array, Array, Array, Array]] = []
    for output in range(sample.scores.shape[1]):
        for truth in (0.0, 1.0):
            of = np.flatnonzero(sample.truth[:, output] == truth)
            of = of[np.argsort(sample.scores[of, output], kind="stable")]
            for part in np.array_split(of, min(len(of), _ROWS)) if len(of) else ():
                times = sample.weights[0, part]
                mean = (sample.scores[part] * times[:, None]).sum(axis=0) / times.sum()
                several = (clusters[part] * times).sum() / times.sum()
                rows.append((mean, sample.truth[part[0]], times.sum(), several))
    scores, labels, times, several = (np.array(part) for part in zip(*rows, strict=True))
    return Sample(scores, labels, labels, times[None], {}), several


def _drawn(metric: Metric, value: Array, psi: Array, variance: Array, draws: int) -> Array:
    """Return draws in which each cell moves the value by its images' influence."""
    generator = np.random.default_rng(seed(0, "", 0, f"pooled-{metric.name}"))
    normal = generator.standard_normal((draws, len(psi))) * np.sqrt(variance)
    return metric.combine(np.concatenate([value[None], value + normal @ np.nan_to_num(psi)]))


def _sample(results: Sequence[SiteResult], negative: str, positive: str) -> tuple[Sample, Array]:
    """Return the sites' cells as a sample, a row each, and the images that a patient has there.

    Args:
        results: of the sites.
        negative: which number of a cell stands for its negatives' scores.
        positive: the same for positives.
    """
    outputs = len(results[0].cells)
    rows: list[tuple[Array, Array, Array, Array]] = []
    for one in results:
        several = one.images / max(one.patients, 1)
        for output, pair in enumerate(one.cells):
            for truth, name, cells in ((0.0, negative, pair[0]), (1.0, positive, pair[1])):
                scores = np.zeros((len(cells), outputs))
                scores[:, output] = getattr(cells, name)
                labels = np.full((len(cells), outputs), np.nan)
                labels[:, output] = truth
                rows.append((scores, labels, cells.images, np.full(len(cells), several)))
    scores, truths, images, clusters = (np.concatenate(part) for part in zip(*rows, strict=True))
    return Sample(scores, truths, truths, images[None], {}), clusters
