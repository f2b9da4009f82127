"""AUROC, average precision and sensitivity, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, sample
from fedrad.metrics.cells import cells_of, log_odds, threshold
from fedrad.metrics.ranking import auprc, auroc, sensitivity

BINARY = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
GRADES = Task(name="multiclass", labels=("none", "mild", "severe"), input=(1, 8, 8))
FINDINGS = Task(name="multilabel", labels=("oedema", "effusion"), input=(1, 8, 8))


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def binary(n: int = 400, seed: int = 0, spread: float = 1.0) -> tuple[Array, Array]:
    """Return scores and labels of a middling classifier; prevalence 0.3."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 1)) < 0.3).astype(float)
    return sigmoid(spread * (rng.normal(size=(n, 1)) + 1.2 * y - 1)), y


def value(metric: Metric, task: Task, scores: Array, y: Array) -> float:
    return float(metric.value(sample(task, scores, y))[0])


@pytest.mark.parametrize("spread", [1e-6, 0.02, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_rank_metrics_are_those_of_scikit_learn_however_narrow_the_scores(seed, spread):
    """Whatever lies between two scores, they are in order: no bin loses it."""
    scores, y = binary(seed=seed, spread=spread)
    assert value(auroc(BINARY), BINARY, scores, y) == pytest.approx(roc_auc_score(y, scores))
    exact = average_precision_score(y, scores)
    assert value(auprc(BINARY), BINARY, scores, y) == pytest.approx(exact)


def test_ties_count_half():
    """The share of ordered pairs: scikit-learn's number to rounding."""
    rng = np.random.default_rng(0)
    scores = rng.choice(np.linspace(0.05, 0.95, 30), (300, 1))
    y = (rng.random((300, 1)) < scores).astype(float)
    assert value(auroc(BINARY), BINARY, scores, y) == pytest.approx(roc_auc_score(y, scores))
    exact = average_precision_score(y, scores)
    assert value(auprc(BINARY), BINARY, scores, y) == pytest.approx(exact)


def test_a_constant_model_has_auroc_one_half():
    """All pairs are ties."""
    y = binary(n=50)[1]
    assert value(auroc(BINARY), BINARY, np.full((50, 1), 0.3), y) == 0.5


def test_multiclass_is_the_mean_of_each_class_against_the_rest():
    """scikit-learn's multi_class="ovr", average="macro"."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (500, 1)).astype(float)
    logits = rng.normal(size=(500, 3)) + (y == np.arange(3))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = roc_auc_score(y[:, 0], scores, multi_class="ovr", average="macro")
    assert value(auroc(GRADES), GRADES, scores, y) == pytest.approx(exact)
    exact = np.mean([average_precision_score(y[:, 0] == k, scores[:, k]) for k in range(3)])
    assert value(auprc(GRADES), GRADES, scores, y) == pytest.approx(exact)


def test_multilabel_is_the_mean_over_findings_with_both_classes():
    """A finding that no test image shows has no AUROC and is left out of the mean."""
    scores, y = binary()
    two = np.concatenate([scores, scores[::-1]], axis=1)
    absent = np.concatenate([y, np.zeros_like(y)], axis=1)
    alone = value(auroc(BINARY), BINARY, scores, y)
    assert value(auroc(FINDINGS), FINDINGS, two, absent) == alone
    half_read = absent.copy()
    half_read[::2, 0] = np.nan
    expected = value(auroc(BINARY), BINARY, scores[1::2], y[1::2])
    assert value(auroc(FINDINGS), FINDINGS, two, half_read) == expected


@pytest.mark.parametrize("metric", [auroc, auprc])
def test_one_class_has_no_ranking(metric):
    """There is no pair to put in order."""
    assert np.isnan(value(metric(BINARY), BINARY, np.full((44, 1), 0.7), np.ones((44, 1))))


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 0.95])
def test_sensitivity_is_that_of_the_lowest_threshold_with_the_specificity_on_other_images(
    specificity,
):
    """Brute force: just above every validation score is tried as a threshold."""
    (tune, tune_y), (test, test_y) = binary(seed=1), binary(seed=2)
    negatives = tune[tune_y == 0]
    cells = cells_of(log_odds(negatives), np.arange(len(negatives)))
    edges = {"sensitivity": np.array([threshold(cells, specificity)])}
    metric = sensitivity(BINARY, specificity=specificity)
    found = metric.value(sample(BINARY, test, test_y, thresholds=edges))[0]
    candidates = np.nextafter(np.sort(negatives), 1)
    fits = [(negatives < edge).mean() >= specificity - 1e-12 for edge in candidates]
    lowest = candidates[np.argmax(fits)]
    assert found == pytest.approx((test[test_y == 1] >= lowest).mean())
    # On its own validation set it is a point of the exact ROC curve.
    own = metric.value(sample(BINARY, tune, tune_y, thresholds=edges))[0]
    false, true, _ = roc_curve(tune_y, tune)
    assert own == pytest.approx(true[false <= 1 - specificity + 1e-12].max())


def test_a_specificity_met_exactly_is_enough():
    """9 of 10 negatives lie below 0.5, the tenth at 0.9: 0.6 is found at 0.9 and missed above."""
    negatives = log_odds(np.array([0.1] * 9 + [0.9]))
    cells, positive = cells_of(negatives, np.arange(10)), float(log_odds(np.array([0.6]))[0])
    assert threshold(cells, 0.9) <= positive < threshold(cells, 0.91)


def test_without_a_negative_there_is_no_threshold():
    """One that is chosen on the test set would flatter; there is no fallback."""
    assert np.isnan(threshold(cells_of(np.zeros(0), np.zeros(0)), 0.9))
    assert np.isnan(value(sensitivity(BINARY), BINARY, *binary(n=50)))
    with pytest.raises(ConfigError, match=r"specificity is 1\.5; needs 0 < it <= 1"):
        sensitivity(BINARY, specificity=1.5)
