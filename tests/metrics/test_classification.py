"""Accuracy, balanced accuracy and kappa, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

from fedrad.config import Task
from fedrad.metrics.base import Array, Metric, sample
from fedrad.metrics.classification import (
    accuracy,
    balanced_accuracy,
    confusion,
    kappa_linear,
    kappa_quadratic,
)

BINARY = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
GRADES = Task(name="multiclass", labels=("none", "mild", "severe", "critical"), input=(1, 8, 8))
FINDINGS = Task(name="multilabel", labels=("oedema", "effusion"), input=(1, 8, 8))
ORACLES = {
    accuracy: accuracy_score,
    balanced_accuracy: balanced_accuracy_score,
    kappa_linear: lambda y, chosen: cohen_kappa_score(y, chosen, weights="linear"),
    kappa_quadratic: lambda y, chosen: cohen_kappa_score(y, chosen, weights="quadratic"),
}


def grades(n: int = 300, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y = rng.choice(4, (n, 1), p=[0.5, 0.3, 0.15, 0.05]).astype(float)
    logits = rng.normal(size=(n, 4)) + 1.5 * (y == np.arange(4))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


def value(metric: Metric, task: Task, scores: Array, y: Array) -> float:
    return float(metric.value(sample(task, scores, y))[0])


@pytest.mark.parametrize(("metric", "oracle"), ORACLES.items(), ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_a_metric_of_classes_is_that_of_scikit_learn(metric, oracle, seed):
    """A confusion matrix holds all that these need: equal to rounding."""
    scores, y = grades(seed=seed)
    expected = oracle(y[:, 0], scores.argmax(axis=1))
    assert value(metric(GRADES), GRADES, scores, y) == pytest.approx(expected, abs=1e-12)
    sick, truth = 1 - scores[:, :1], (y > 0).astype(float)
    expected = oracle(truth[:, 0], sick[:, 0] >= 0.5)
    assert value(metric(BINARY), BINARY, sick, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ORACLES, ids=lambda f: f.__name__)
def test_of_several_findings_it_is_the_mean_of_each_over_the_images_that_read_it(metric):
    """nan labels leave an image out of that finding only."""
    scores, y = grades()
    two, truth = scores[:, :2], (y == np.arange(2)).astype(float)
    truth[::3, 0] = np.nan
    read = ~np.isnan(truth[:, 0])
    each = [
        value(metric(BINARY), BINARY, two[read, :1], truth[read, :1]),
        value(metric(BINARY), BINARY, two[:, 1:], truth[:, 1:]),
    ]
    assert value(metric(FINDINGS), FINDINGS, two, truth) == pytest.approx(np.mean(each))


def test_kappa_of_two_classes_is_the_same_linear_and_quadratic():
    """|0 - 1| and its square are equal."""
    scores, y = grades()
    sick, truth = 1 - scores[:, :1], (y > 0).astype(float)
    linear, quadratic = (
        value(m(BINARY), BINARY, sick, truth) for m in (kappa_linear, kappa_quadratic)
    )
    assert linear == quadratic


@pytest.mark.parametrize("metric", ORACLES, ids=lambda f: f.__name__)
def test_with_weights_it_is_that_of_the_images_repeated(metric):
    """Weight 2 is an image that stands there twice, weight 0 one that does not."""
    scores, y = grades(60)
    times = np.random.default_rng(1).integers(0, 3, (4, 60)).astype(float)
    found = metric(GRADES).value(sample(GRADES, scores, y, weights=np.stack([np.ones(60), *times])))
    for row, one in zip(found[1:], times.astype(int), strict=True):
        again = value(metric(GRADES), GRADES, scores.repeat(one, axis=0), y.repeat(one, axis=0))
        assert row == pytest.approx(again)


def test_one_class_has_no_balanced_accuracy():
    """scikit-learn would warn and give the recall of the one class."""
    scores, y = np.full((44, 1), 0.7), np.ones((44, 1))
    assert value(accuracy(BINARY), BINARY, scores, y) == 1
    for metric in (balanced_accuracy, kappa_linear):
        assert np.isnan(value(metric(BINARY), BINARY, scores, y))
    both = np.full((4, 2), 0.7), np.ones((4, 2))
    assert np.isnan(value(balanced_accuracy(FINDINGS), FINDINGS, *both))


def test_a_probability_of_one_half_is_called_positive():
    """As everywhere in fedrad: at least 0.5."""
    found = sample(BINARY, np.array([[0.5]]), np.array([[0.0]]))
    assert confusion(BINARY, found).ravel().tolist() == [0, 1, 0, 0]
