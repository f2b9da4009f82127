"""AUROC, average precision and sensitivity from histograms, against scikit-learn's exact ones."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, sums
from fedrad.metrics.ranking import (
    BINS,
    auprc,
    auroc,
    bins_of,
    histogram,
    resolution,
    sensitivity,
    share_in_fullest_bin,
)

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


def counted(task: Task, scores: Array, y: Array) -> Array:
    return sums([histogram(task)], scores, y)["histogram"][0]


def value(metric: Metric, task: Task, scores: Array, y: Array) -> float:
    return float(metric.compute(counted(task, scores, y), None))


@pytest.mark.parametrize("spread", [0.02, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_of_summed_histograms_is_the_exact_one_within_its_resolution(seed, spread):
    """The bound is the pairs that share a bin, each of which can be wrong by a half."""
    scores, y = binary(seed=seed, spread=spread)
    bound = float(resolution(counted(BINARY, scores, y)))
    error = abs(value(auroc(BINARY), BINARY, scores, y) - roc_auc_score(y, scores))
    assert error <= bound + 1e-12
    # 0.02: nearly all log-odds within 0.1 of each other, 12 bins. 20: many beyond the outer bins.
    assert bound < {0.02: 0.1, 1.0: 0.003, 20.0: 0.01}[spread]


def test_auroc_is_exact_when_scores_are_bins_apart_or_equal():
    """The share of ordered pairs, ties counting half: scikit-learn's number to rounding."""
    rng = np.random.default_rng(0)
    scores = rng.choice(np.linspace(0.05, 0.95, 30), (300, 1))
    y = (rng.random((300, 1)) < scores).astype(float)
    assert value(auroc(BINARY), BINARY, scores, y) == pytest.approx(roc_auc_score(y, scores))
    exact = average_precision_score(y, scores)
    assert value(auprc(BINARY), BINARY, scores, y) == pytest.approx(exact)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_near_the_exact_one(seed):
    """Images of a bin share a step of the curve; most bins hold one image or none."""
    scores, y = binary(seed=seed)
    exact = average_precision_score(y, scores)
    assert value(auprc(BINARY), BINARY, scores, y) == pytest.approx(exact, abs=0.01)


def test_two_sites_at_auroc_one_can_pool_to_three_quarters():
    """Each ranks its own pair rightly, but a's positive (0.2) lies below b's negative (0.3).

    So 3 of the 4 pooled pairs are in order. Averaging the sites' AUROCs would say 1.
    """
    a = counted(BINARY, np.array([[0.1], [0.2]]), np.array([[0.0], [1.0]]))
    b = counted(BINARY, np.array([[0.3], [0.9]]), np.array([[0.0], [1.0]]))
    compute = auroc(BINARY).compute
    assert (compute(a, None), compute(b, None), compute(a + b, None)) == (1, 1, 0.75)


def test_multiclass_is_the_mean_of_each_class_against_the_rest():
    """scikit-learn's multi_class="ovr", average="macro", within the bins' resolution."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (500, 1)).astype(float)
    logits = rng.normal(size=(500, 3)) + (y == np.arange(3))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = roc_auc_score(y[:, 0], scores, multi_class="ovr", average="macro")
    assert value(auroc(GRADES), GRADES, scores, y) == pytest.approx(exact, abs=0.002)
    exact = np.mean([average_precision_score(y[:, 0] == k, scores[:, k]) for k in range(3)])
    assert value(auprc(GRADES), GRADES, scores, y) == pytest.approx(exact, abs=0.01)


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
def test_one_class_has_no_ranking_and_the_reason_counts_the_images(metric):
    """The message that a report prints in place of the number."""
    found = counted(BINARY, np.full((44, 1), 0.7), np.ones((44, 1)))
    assert np.isnan(metric(BINARY).compute(found, None))
    reason = metric(BINARY).undefined(found)
    assert reason == "test set has one class only: 44 positive, 0 negative"
    found = counted(FINDINGS, np.full((3, 2), 0.7), np.array([[1, 0], [1, 0], [np.nan, 0]]))
    reason = metric(FINDINGS).undefined(found)
    assert reason == (
        "no finding has both positive and negative test images: oedema 2/0, effusion 0/3"
    )


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 0.95])
def test_sensitivity_is_that_of_the_lowest_edge_with_the_specificity_on_the_tuning_set(specificity):
    """Brute force: every edge of a bin is tried as a threshold on the tuning images."""
    (tune, tune_y), (test, test_y) = binary(seed=1), binary(seed=2)
    metric = sensitivity(BINARY, specificity=specificity)
    found = metric.compute(counted(BINARY, test, test_y), counted(BINARY, tune, tune_y))
    edges = np.arange(BINS + 1)
    fits = [(bins_of(tune[tune_y == 0]) < edge).mean() >= specificity for edge in edges]
    threshold = edges[np.argmax(fits)]
    assert found == pytest.approx((bins_of(test[test_y == 1]) >= threshold).mean())
    # On its own tuning set it is a point of the exact ROC curve, within a bin.
    own = metric.compute(counted(BINARY, tune, tune_y), counted(BINARY, tune, tune_y))
    false, true, _ = roc_curve(tune_y, tune)
    assert own == pytest.approx(true[false <= 1 - specificity + 1e-12].max(), abs=0.02)


def test_a_specificity_met_exactly_is_enough():
    """9 of 10 negatives lie below 0.5, the tenth at 0.9: 0.6 is found at 0.9 and missed above."""
    scores = np.array([[0.1]] * 9 + [[0.9], [0.6]])
    y = np.array([[0.0]] * 10 + [[1.0]])
    found = counted(BINARY, scores, y)
    assert sensitivity(BINARY, specificity=0.9).compute(found, found) == 1
    assert sensitivity(BINARY, specificity=0.91).compute(found, found) == 0


def test_sensitivity_without_a_threshold_says_what_is_missing():
    """A threshold chosen on the test set would flatter; there is no fallback."""
    metric = sensitivity(BINARY)
    scores, y = binary(n=50)
    found = counted(BINARY, scores, y)
    negative, positive = (counted(BINARY, scores, np.full_like(y, k)) for k in (0, 1))
    assert np.isnan(metric.compute(found, None))
    assert np.isnan(metric.compute(found, positive))
    assert metric.undefined(found) == "no validation images to choose the threshold on"
    assert metric.undefined(found, positive) == (
        "validation set has no negative image to choose the threshold on"
    )
    assert metric.undefined(negative, found) == "test set has no positive image"
    assert metric.undefined(positive, negative) is None
    with pytest.raises(ConfigError, match=r"specificity is 1\.5; needs 0 < it <= 1"):
        sensitivity(BINARY, specificity=1.5)


def test_bins_keep_the_order_of_probabilities_and_have_an_edge_at_one_half():
    """So decisions at 0.5 can be read off, and ranks can only be tied, never swapped."""
    scores = np.sort(sigmoid(np.random.default_rng(0).normal(0, 10, 10_000)))
    assert (np.diff(bins_of(scores)) >= 0).all()
    assert bins_of(np.array([np.nextafter(0.5, 0), 0.5])).tolist() == [511, 512]
    assert bins_of(np.array([0.0, 1e-300, 1.0])).tolist() == [0, 0, BINS - 1]
    # asinh(36) / 512 log-odds wide in the middle.
    assert bins_of(sigmoid(np.array([0.0083, 0.0085]))).tolist() == [512, 513]


def test_a_constant_model_fills_one_bin_and_has_auroc_one_half():
    """The collapse that the report must tell: all pairs are ties."""
    y = binary(n=50)[1]
    found = counted(BINARY, np.full((50, 1), 0.3), y)
    assert share_in_fullest_bin(found) == 1
    assert auroc(BINARY).compute(found, None) == 0.5
    assert resolution(found) == 0.5
    assert share_in_fullest_bin(counted(BINARY, *binary())) < 0.05
