"""Why a metric is undefined at a site, or not told, in words for a report."""

from collections.abc import Sequence

import numpy as np

from fedrad.config import Task
from fedrad.metrics.base import Metric
from fedrad.metrics.site_result import Disclosed, SiteResult

__all__ = ["reason", "undefined_pooled"]


def reason(metric: Metric, task: Task, result: SiteResult) -> str:
    """Return why a site has no number of a metric."""
    told = result.told[metric.name]
    if (told == Disclosed.WITHHELD).any():
        return (
            f"kept back: fewer than {result.min_cell} patients of a class, or in all "
            "(the site's min_cell)"
        )
    if (told == Disclosed.NO_THRESHOLD).any():
        return "no validation images without the finding to choose the threshold on"
    return _of_counts(metric, task, result.counts)


def undefined_pooled(metric: Metric, task: Task, results: Sequence[SiteResult]) -> str:
    """Return why several sites together have no number of a metric."""
    told = np.concatenate([one.told[metric.name] for one in results])
    if (told == Disclosed.NO_THRESHOLD).any():
        return "no validation images without the finding to choose the threshold on"
    return _of_counts(metric, task, np.sum([one.counts for one in results], axis=0))


def _of_counts(metric: Metric, task: Task, counts: np.ndarray) -> str:
    """Return the reason that lies in the numbers of images [outputs, 2 or more]."""
    negative, positive = counts[:, 0].tolist(), counts[:, 1].tolist()
    if not any(positive) and not any(negative):
        return "no label of the test set was read"
    if metric.specificity is not None:
        return "test set has no positive image"
    if not metric.classwise:
        return "undefined"
    if task.name == "multiclass":
        found = [f"{n} {name}" for n, name in zip(positive, task.labels, strict=True)]
        return f"test set has one class only: {', '.join(found)}"
    if len(positive) == 1:
        return f"test set has one class only: {positive[0]} positive, {negative[0]} negative"
    pairs = [f"{name} {p}/{n}" for name, p, n in zip(task.labels, positive, negative, strict=True)]
    return f"no finding has both positive and negative test images: {', '.join(pairs)}"
