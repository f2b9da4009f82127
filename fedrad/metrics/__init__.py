"""The metrics that a YAML can name; a site computes each on its own scores."""

from collections.abc import Callable

from fedrad.metrics.base import Metric
from fedrad.metrics.calibration import brier, ece, loss
from fedrad.metrics.classification import (
    accuracy,
    balanced_accuracy,
    kappa_linear,
    kappa_quadratic,
)
from fedrad.metrics.ranking import auprc, auroc, sensitivity

__all__ = ["METRICS"]

METRICS: dict[str, Callable[..., Metric]] = {
    "accuracy": accuracy,
    "auprc": auprc,
    "auroc": auroc,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
    "ece": ece,
    "kappa_linear": kappa_linear,
    "kappa_quadratic": kappa_quadratic,
    "loss": loss,
    "sensitivity": sensitivity,
}
