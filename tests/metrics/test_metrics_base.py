"""Sums add up; bootstrap sums are the sums of the resampled images; the table of metrics."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrad.config import Task
from fedrad.errors import TrainingDiverged
from fedrad.metrics import METRICS
from fedrad.metrics.base import Array, Metric, Statistic, macro, ratio, sums
from fedrad.metrics.intervals import patient_weights

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


def value(metric: Metric, scores: Array, y: Array) -> Array:
    """Return a metric of scores and labels, tuned on the same images."""
    found = sums([metric.statistic], scores, y)[metric.statistic.name][0]
    return metric.compute(found, found)


@EVERY
@settings(max_examples=10, deadline=None)
@given(n=st.integers(0, 40), cut=st.integers(0, 40), seed=st.integers(0, 1000))
def test_the_sums_of_two_sites_are_the_sums_of_their_pooled_images(name, task, n, cut, seed):
    """The law of a statistic; what it counts is equal to the bit, errors up to rounding."""
    scores, y = draw(task, n, seed)
    one = METRICS[name](task).statistic
    parts = [sums([one], scores[p], y[p])[one.name] for p in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose(parts[0] + parts[1], sums([one], scores, y)[one.name], atol=1e-12)


@EVERY
def test_a_replicate_is_the_sums_of_the_images_repeated_by_its_weights(name, task):
    """Weight 2 means that the image stands there twice."""
    scores, y = draw(task, 50)
    one = METRICS[name](task).statistic
    weights = np.random.default_rng(1).integers(0, 4, (5, 50))
    found = sums([one], scores, y, weights)[one.name]
    assert found.shape[0] == 6
    for times, row in zip(weights, found[1:], strict=True):
        twice = sums([one], scores.repeat(times, axis=0), y.repeat(times, axis=0))[one.name][0]
        np.testing.assert_allclose(row, twice, atol=1e-12)
    np.testing.assert_allclose(found[0], sums([one], scores, y)[one.name][0], atol=0)


@EVERY
def test_the_sparse_way_and_chunks_give_the_sums_of_the_dense_terms(name, task, monkeypatch):
    """`cells` and chunks of images are only faster and smaller: weights @ terms is the meaning."""
    scores, y = draw(task, 60)
    one = METRICS[name](task).statistic
    weights = np.random.default_rng(1).integers(0, 4, (7, 60))
    terms = one.terms(scores, y)
    expected = np.concatenate([terms.sum(axis=0)[None], weights @ terms])
    monkeypatch.setattr("fedrad.metrics.base._CHUNK", 100)
    np.testing.assert_allclose(sums([one], scores, y, weights)[one.name], expected, atol=1e-12)


@EVERY
def test_a_metric_of_many_replicates_is_the_metric_of_each(name, task):
    """`compute` works over leading axes, with one tuning set for all or one for each."""
    scores, y = draw(task, 60)
    metric = METRICS[name](task)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60))
    found = sums([metric.statistic], scores, y, weights)[metric.statistic.name]
    each = [metric.compute(row, found[0]) for row in found]
    np.testing.assert_array_equal(metric.compute(found, found[0]), each)
    each = [metric.compute(row, row) for row in found]
    np.testing.assert_array_equal(metric.compute(found, found), each)
    assert metric.compute(found[None], found[:1, None]).shape == (1, 6)


@EVERY
def test_without_a_label_a_metric_is_nan_and_says_why(name, task):
    """Also without any image; a reason is given exactly where the number is nan."""
    metric = METRICS[name](task)
    for n in (0, 5):
        scores, y = draw(task, n)
        assert np.isnan(value(metric, scores, np.full_like(y, np.nan)))
        found = sums([metric.statistic], scores, np.full_like(y, np.nan))[metric.statistic.name][0]
        assert metric.undefined(found, found)
    scores, y = draw(task, 60)
    found = sums([metric.statistic], scores, y)[metric.statistic.name][0]
    assert metric.undefined(found, found) is None
    assert np.isfinite(metric.compute(found, found))


@EVERY
def test_labels_that_were_not_read_change_nothing(name, task):
    """Images whose every label is nan are as good as absent."""
    scores, y = draw(task, 60)
    more, _ = draw(task, 20, seed=5)
    unread = np.full((20, task.columns), np.nan)
    padded = value(METRICS[name](task), np.concatenate([scores, more]), np.concatenate([y, unread]))
    np.testing.assert_allclose(padded, value(METRICS[name](task), scores, y), rtol=1e-12)


def test_the_table_names_each_metric_as_the_metric_names_itself():
    """Results are keyed by the name that the YAML used."""
    for name, builder in METRICS.items():
        assert builder(TASKS["binary"]).name == name


def test_statistics_of_one_name_are_summed_once():
    """AUROC, average precision and sensitivity share one histogram."""
    statistics = [METRICS[name](TASKS["binary"]).statistic for name in ("auroc", "auprc")]
    assert list(sums(statistics, *draw(TASKS["binary"], 5))) == ["histogram"]


def test_a_thousand_replicates_of_a_histogram_touch_only_the_cells_that_hold_an_image():
    """200 of 2048 cells: every image's whole row for every replicate would be 3 GB of terms."""
    scores, y = draw(TASKS["binary"], 200)
    metric = METRICS["auroc"](TASKS["binary"])
    weights = patient_weights(np.arange(200), 1000, seed=0)

    tracemalloc.start()
    found = sums([metric.statistic], scores, y, weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * sum(value.nbytes for value in found.values())


def test_scores_that_are_no_number_are_refused():
    """A nan would fall in no bin and quietly shrink the test set."""
    with pytest.raises(TrainingDiverged, match="a score of the model is no finite number"):
        sums([METRICS["auroc"](TASKS["binary"]).statistic], np.array([[np.nan]]), np.ones((1, 1)))


def test_arrays_of_different_images_are_refused():
    """Only a bug can bring these together."""
    images = Statistic("images", lambda scores, y: np.ones((len(y), 1)))
    with pytest.raises(ValueError, match=r"3 scores, 2 labels and weights \(0, 2\)"):
        sums([images], np.zeros((3, 1)), np.zeros((2, 1)))


def test_a_ratio_over_nothing_is_nan_and_a_mean_skips_it():
    """And no warning is raised on the way."""
    with np.errstate(all="raise"):
        assert np.isnan(ratio(np.zeros(1), np.zeros(1))).all()
        assert macro(np.array([np.nan, 1.0])) == 1
        assert np.isnan(macro(np.array([np.nan])))


def test_a_resample_without_an_observed_class_says_nothing_of_the_mean_over_classes():
    """Balanced accuracy over two classes is no replicate of the one over three."""
    task = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8))
    metric = METRICS["balanced_accuracy"](task)
    observed = np.diag([4.0, 4.0, 1.0]).ravel()
    without = np.diag([4.0, 4.0, 0.0]).ravel()
    assert np.isnan(metric.compute(np.stack([observed, without]), None)).tolist() == [False, True]
    assert metric.compute(without, None) == 1
