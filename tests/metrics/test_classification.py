"""Accuracy, balanced accuracy and kappa, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

from fedrad.config import Task
from fedrad.metrics.base import Array, Metric, sums
from fedrad.metrics.classification import (
    accuracy,
    balanced_accuracy,
    confusion,
    kappa_linear,
    kappa_quadratic,
    one_class,
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


def counted(task: Task, scores: Array, y: Array) -> Array:
    return sums([confusion(task)], scores, y)["confusion"][0]


def value(metric: Metric, task: Task, scores: Array, y: Array) -> float:
    return float(metric.compute(counted(task, scores, y), None))


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
        m(BINARY).compute(counted(BINARY, sick, truth), None)
        for m in (kappa_linear, kappa_quadratic)
    )
    assert linear == quadratic


def test_one_class_has_no_balanced_accuracy_and_the_reason_counts_the_images():
    """scikit-learn would warn and give the recall of the one class."""
    found = counted(BINARY, np.full((44, 1), 0.7), np.ones((44, 1)))
    assert accuracy(BINARY).compute(found, None) == 1
    for metric in (balanced_accuracy, kappa_linear):
        assert np.isnan(metric(BINARY).compute(found, None))
        reason = metric(BINARY).undefined(found)
        assert reason == "test set has one class only: 44 positive, 0 negative"
    found = counted(FINDINGS, np.full((4, 2), 0.7), np.ones((4, 2)))
    reason = balanced_accuracy(FINDINGS).undefined(found)
    assert reason == "no finding has both positive and negative test images"


def test_one_class_for_every_image_is_found():
    """A model that calls everything healthy; of several findings, all must be so."""
    y = np.array([[0.0], [1.0], [0.0]])
    assert one_class(BINARY, counted(BINARY, np.full((3, 1), 0.2), y))
    assert not one_class(BINARY, counted(BINARY, np.array([[0.2], [0.7], [0.2]]), y))
    two = np.concatenate([y, y], axis=1)
    assert not one_class(
        FINDINGS, counted(FINDINGS, np.array([[0.2, 0.7]] * 2 + [[0.2, 0.2]]), two)
    )
    assert one_class(FINDINGS, counted(FINDINGS, np.array([[0.2, 0.7]] * 3), two))
    assert not one_class(BINARY, np.zeros(4))


def test_a_probability_of_one_half_is_called_positive():
    """The same side as the histogram's bin of 0.5."""
    assert counted(BINARY, np.array([[0.5]]), np.array([[0.0]])).tolist() == [0, 1, 0, 0]
