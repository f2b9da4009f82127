"""The table of metrics: weights mean repetition, what was not read counts nowhere."""

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.errors import TrainingDivergedError
from fedrad.metrics import METRICS
from fedrad.metrics.base import Array, Metric, macro, ratio, sample

TASKS = {
    "binary": Task(name="binary", labels=("lesion",), input=(1, 8, 8)),
    "multiclass": Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8)),
    "multilabel": Task(name="multilabel", labels=("a", "b"), input=(1, 8, 8)),
}
EVERY = pytest.mark.parametrize(
    ("name", "task"),
    [(name, task) for name in sorted(METRICS) for task in TASKS.values()],
    ids=lambda part: part if isinstance(part, str) else part.name,
)


def draw(task: Task, n: int, seed: int = 0, unread: float = 0.2) -> tuple[Array, Array]:
    """Return probabilities and labels of n images, some labels not read."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, task.outputs))
    if task.name == "multiclass":
        y = rng.integers(0, task.outputs, (n, 1)).astype(float)
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        y = (rng.random((n, task.columns)) < 0.4).astype(float)
        scores = 1 / (1 + np.exp(-logits - y))
    return scores, np.where(rng.random(y.shape) < unread, np.nan, y)


def value(metric: Metric, task: Task, scores: Array, y: Array) -> float:
    edges = {"sensitivity": np.zeros(task.outputs)}
    return float(metric.value(sample(task, scores, y, thresholds=edges))[0])


@EVERY
def test_a_row_of_weights_is_the_metric_of_the_images_repeated(name, task):
    """Weight 2 means that the image stands there twice, weight 0 that it does not."""
    scores, y = draw(task, 50)
    metric = METRICS[name](task)
    times = np.random.default_rng(1).integers(0, 4, (5, 50))
    weights = np.concatenate([np.ones((1, 50)), times])
    edges = {"sensitivity": np.zeros(task.outputs)}
    found = metric.value(sample(task, scores, y, weights=weights, thresholds=edges))
    assert found[0] == pytest.approx(value(metric, task, scores, y))
    for row, one in zip(found[1:], times, strict=True):
        twice = value(metric, task, scores.repeat(one, axis=0), y.repeat(one, axis=0))
        assert row == pytest.approx(twice)


@EVERY
def test_without_a_label_a_metric_is_nan(name, task):
    """Also without any image."""
    metric = METRICS[name](task)
    for n in (0, 5):
        scores, y = draw(task, n)
        assert np.isnan(value(metric, task, scores, np.full_like(y, np.nan)))
    assert np.isfinite(value(metric, task, *draw(task, 60)))


@EVERY
def test_labels_that_were_not_read_change_nothing(name, task):
    """Images whose every label is nan are as good as absent."""
    scores, y = draw(task, 60)
    more, _ = draw(task, 20, seed=5)
    unread = np.full((20, task.columns), np.nan)
    metric = METRICS[name](task)
    padded = value(metric, task, np.concatenate([scores, more]), np.concatenate([y, unread]))
    assert padded == pytest.approx(value(metric, task, scores, y), rel=1e-12)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "brier", "loss", "sensitivity"])
def test_a_weighted_metric_of_two_sites_is_that_of_their_images(name, task):
    """Its parts, weighted by the images that they are of, are those of all images."""
    metric = METRICS[name](task)
    assert metric.denominators is not None
    scores, y = draw(task, 80)
    edges = {"sensitivity": np.zeros(task.outputs)}
    whole, one, other = (
        sample(task, scores[p], y[p], thresholds=edges)
        for p in (slice(None), slice(30), slice(30, None))
    )
    weights = [metric.denominators(s) for s in (one, other)]
    parts = [metric.parts(s)[0] for s in (one, other)]
    mean = np.average(parts, axis=0, weights=weights)
    np.testing.assert_allclose(mean, metric.parts(whole)[0])


def test_the_table_names_each_metric_as_the_metric_names_itself():
    """Results are keyed by the name that the YAML used."""
    for name, builder in METRICS.items():
        assert builder(TASKS["binary"]).name == name


def test_scores_that_are_no_number_are_refused():
    """A nan has no rank and would quietly shrink the test set."""
    with pytest.raises(TrainingDivergedError, match="a score of the model is no finite number"):
        sample(TASKS["binary"], np.array([[np.nan]]), np.ones((1, 1)))


def test_arrays_of_different_images_are_refused():
    """Only a bug can bring these together."""
    with pytest.raises(ValueError, match="3 scores, 2 labels and weights None do not fit"):
        sample(TASKS["binary"], np.zeros((3, 1)), np.zeros((2, 1)))


def test_a_ratio_over_nothing_is_nan_and_a_mean_skips_it():
    """And no warning is raised on the way."""
    with np.errstate(all="raise"):
        assert np.isnan(ratio(np.zeros(1), np.zeros(1))).all()
        assert macro(np.array([[np.nan, 1.0]])).tolist() == [1]
        assert np.isnan(macro(np.array([[np.nan]])))


def test_without_an_observed_class_nothing_is_said_of_the_mean_over_classes():
    """Balanced accuracy over two classes is no variation of the one over three."""
    task = TASKS["multiclass"]
    y = np.array([[0.0]] * 4 + [[1.0]] * 4 + [[2.0]])
    weights = np.stack([np.ones(9), (y[:, 0] < 2).astype(float)])
    metric = METRICS["balanced_accuracy"](task)
    found = metric.value(sample(task, np.eye(3)[y[:, 0].astype(int)], y, weights=weights))
    assert np.isnan(found).tolist() == [False, True]
