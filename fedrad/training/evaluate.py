"""What a model says of a site's images, and what the site tells of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.data.base import SiteData
from fedrad.metrics.base import Array, Metric, sample
from fedrad.metrics.cells import threshold
from fedrad.metrics.site_result import Disclosure, SiteResult, class_cells, result_of
from fedrad.privacy.noise import SecureGenerator
from fedrad.training.batches import model_input, reader
from fedrad.training.objective import Objective

__all__ = ["BATCH", "predict", "result", "thresholds_of"]

BATCH = 128
"""Images that a model sees at once where nothing is learnt."""


def predict(
    model: nn.Module,
    data: SiteData,
    split: str,
    objective: Objective,
    *,
    device: torch.device,
) -> tuple[Array, Array]:
    """Return a model's probabilities for a split, and what was read there.

    Args:
        model: on the device; is put into evaluation mode.
        data: the site's.
        split: "train", "val" or "test".
        objective: its probabilities; from logits in double, so that sure scores stay apart.
        device: where to compute.

    Returns:
        Probabilities float64 [n, outputs] and y float64 [n, columns], in the order of the rows.
    """
    model.eval()
    places = torch.arange(data.images(split))
    found: list[Tensor] = []
    with torch.inference_mode():
        for x, _ in reader(data, split, device)(places, BATCH):
            found.append(objective.probabilities(model(model_input(x)).double()))
    y = np.asarray(data.y[data.rows[split]], np.float64)
    # Without images there is one empty batch, from which the model itself says how many outputs.
    return torch.cat(found).cpu().numpy(), y


def result(
    scores: Array,
    data: SiteData,
    split: str,
    task: Task,
    metrics: Sequence[Metric],
    *,
    thresholds: Mapping[str, Array],
    draws: int,
    key: bytes,
    disclosure: Disclosure,
) -> SiteResult:
    """Return what a site tells of a model's scores for a split.

    Args:
        scores: probabilities float64 [n, outputs], in the order of the split's rows.
        data: the site's.
        split: "train", "val" or "test".
        task: of the model.
        metrics: that are asked for.
        thresholds: metric -> [outputs] log-odds.
        draws: of the influence of the split's patients on each metric.
        key: 32 bytes, of the draws; of a hospital it is secret.
        disclosure: what may be told.
    """
    y = np.asarray(data.y[data.rows[split]], np.float64)
    return result_of(
        task,
        metrics,
        sample(task, scores, y, thresholds=thresholds),
        data.patient[data.rows[split]],
        draws=draws,
        normal=lambda purpose, count: SecureGenerator(key, f"{split} {purpose}").normal(count),
        disclosure=disclosure,
    )


def thresholds_of(
    scores: Array,
    data: SiteData,
    split: str,
    task: Task,
    metrics: Sequence[Metric],
    disclosure: Disclosure,
) -> dict[str, Array]:
    """Return metric -> [outputs] the log-odds at which it has its specificity on a split.

    From the cells that the site would tell, so that others, who have no more, find the same.
    """
    wanted = [metric for metric in metrics if metric.specificity is not None]
    if not wanted:
        return {}
    y = np.asarray(data.y[data.rows[split]], np.float64)
    cells = class_cells(sample(task, scores, y), data.patient[data.rows[split]], disclosure)
    return {
        metric.name: np.array([threshold(pair[0], metric.specificity or 1.0) for pair in cells])
        for metric in wanted
    }
