"""What a model says of a site's images, and the sums of its errors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.metrics.base import Array, Statistic, sums
from fedrad.metrics.intervals import patient_weights
from fedrad.training.batches import model_input, reader
from fedrad.training.objective import Objective

__all__ = ["BATCH", "evaluate", "predict", "summed"]

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


def evaluate(
    model: nn.Module,
    data: SiteData,
    split: str,
    objective: Objective,
    statistics: Sequence[Statistic],
    *,
    device: torch.device,
    replicates: int = 0,
    seed: int = 0,
) -> State:
    """Return the sums of statistics over a split, and over resamples of its patients.

    Args:
        model: as for `predict`.
        data: as for `predict`.
        split: as for `predict`.
        objective: as for `predict`.
        statistics: as for `summed`.
        device: as for `predict`.
        replicates: as for `summed`.
        seed: as for `summed`.
    """
    scores, _ = predict(model, data, split, objective, device=device)
    return summed(scores, data, split, statistics, replicates=replicates, seed=seed)


def summed(
    scores: Array,
    data: SiteData,
    split: str,
    statistics: Sequence[Statistic],
    *,
    replicates: int = 0,
    seed: int = 0,
) -> State:
    """Return the sums of statistics over a split, and over resamples of its patients.

    Args:
        scores: probabilities float64 [n, outputs], in the order of the split's rows.
        data: the site's.
        split: "train", "val" or "test".
        statistics: what is summed.
        replicates: bootstrap resamples of the split's patients, with all images of each.
        seed: of the resampling.

    Returns:
        Statistic's name -> float64 [1 + replicates, m], on the CPU; row 0 is what was observed.
    """
    y = np.asarray(data.y[data.rows[split]], np.float64)
    weights = None
    if replicates:
        weights = patient_weights(data.patient[data.rows[split]], replicates, seed)
    return {
        name: torch.from_numpy(value)
        for name, value in sums(statistics, scores, y, weights).items()
    }
