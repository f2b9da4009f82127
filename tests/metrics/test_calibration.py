"""Brier score, cross-entropy and calibration error, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, sample
from fedrad.metrics.calibration import brier, ece, loss

BINARY = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
GRADES = Task(name="multiclass", labels=("none", "mild", "severe"), input=(1, 8, 8))
FINDINGS = Task(name="multilabel", labels=("oedema", "effusion"), input=(1, 8, 8))


def grades(n: int = 300) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.choice(3, (n, 1), p=[0.5, 0.3, 0.2]).astype(float)
    logits = rng.normal(size=(n, 3)) + (y == np.arange(3))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


def value(metric: Metric, scores: Array, y: Array) -> float:
    task = {1: BINARY, 2: FINDINGS, 3: GRADES}[scores.shape[1]]
    return float(metric.value(sample(task, scores, y))[0])


def test_brier_and_cross_entropy_are_those_of_scikit_learn():
    """Sums of errors over counts: equal to rounding."""
    scores, y = grades()
    assert value(loss(GRADES), scores, y) == pytest.approx(log_loss(y[:, 0], scores))
    expected = brier_score_loss(y[:, 0], scores, scale_by_half=False)
    assert value(brier(GRADES), scores, y) == pytest.approx(expected)
    sick, truth = 1 - scores[:, :1], (y > 0).astype(float)
    assert value(loss(BINARY), sick, truth) == pytest.approx(log_loss(truth, sick[:, 0]))
    assert value(brier(BINARY), sick, truth) == pytest.approx(brier_score_loss(truth, sick[:, 0]))


def test_cross_entropy_averages_labels_and_brier_averages_findings():
    """Two labels of one finding and one of the other: 3 terms, against the mean of 2 means."""
    scores = np.array([[0.5, 0.8], [0.9, 0.3]])
    y = np.array([[1.0, 1.0], [0.0, np.nan]])
    expected = -(np.log(0.5) + np.log(0.8) + np.log(0.1)) / 3
    assert value(loss(FINDINGS), scores, y) == pytest.approx(expected)
    expected = ((0.25 + 0.81) / 2 + 0.04) / 2
    assert value(brier(FINDINGS), scores, y) == pytest.approx(expected)


def test_a_certain_mistake_costs_a_finite_loss():
    """36.04 = -log of the smallest step below 1, as in scikit-learn."""
    wrong = value(loss(BINARY), np.array([[1.0]]), np.array([[0.0]]))
    assert wrong == pytest.approx(36.04, abs=0.01)
    assert value(loss(BINARY), np.array([[0.0]]), np.array([[0.0]])) == pytest.approx(0, abs=1e-15)


def test_calibration_error_by_hand():
    """Two bins. Below 0.5: 0.1, 0.3 with 1 of 2 sick, gap |0.4 - 1| = 0.6; above: 0.9 right, 0.1.

    (0.6 + 0.1) / 3 images.
    """
    scores, y = np.array([[0.1], [0.3], [0.9]]), np.array([[0.0], [1.0], [1.0]])
    assert value(ece(BINARY, bins=2), scores, y) == pytest.approx(0.7 / 3)
    assert value(ece(BINARY, bins=1), scores, y) == pytest.approx(abs(1.3 - 2) / 3)


def test_calibration_error_of_classes_looks_at_the_decided_one():
    """Decided with 0.6 and 0.8, right once: one bin, |1.4 - 1| / 2."""
    scores, y = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]), np.array([[0.0], [0.0]])
    assert value(ece(GRADES, bins=1), scores, y) == pytest.approx(0.2)


def test_a_calibrated_model_has_a_small_calibration_error():
    """Labels drawn with the probabilities themselves; always sure at prevalence 0.5 is 0.5 off."""
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 1))
    y = (rng.random((20_000, 1)) < scores).astype(float)
    assert value(ece(BINARY), scores, y) < 0.02
    assert value(ece(BINARY), np.ones_like(scores), y) == pytest.approx(0.5, abs=0.01)


def test_no_bins_are_refused():
    """A builder's own check, besides the type."""
    with pytest.raises(ConfigError, match="bins is 0; needs at least 1"):
        ece(BINARY, bins=0)
