"""The jackknife against formulas that are known, and draws that tell variances only."""

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.metrics.base import Array, Sample, sample
from fedrad.metrics.calibration import brier
from fedrad.metrics.classification import accuracy
from fedrad.metrics.influence import MOST_GROUPS, groups_of, influences, multiplied
from fedrad.metrics.ranking import auroc

TASK = Task(name="binary", labels=("lesion",), input=(1, 8, 8))


def scored(n: int = 200, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 1)) < 0.4).astype(float)
    return sample(TASK, 1 / (1 + np.exp(-rng.normal(size=(n, 1)) - y)), y)


def delong(found: Sample) -> float:
    """Return DeLong's variance of the AUROC (Biometrics 44, 1988)."""
    scores, positive = found.scores[:, 0], found.y[:, 0] > 0.5
    above = scores[positive][:, None] > scores[~positive]
    return float(
        above.mean(axis=1).var(ddof=1) / positive.sum()
        + above.mean(axis=0).var(ddof=1) / (~positive).sum()
    )


def variance(psi: Array) -> float:
    return float((psi**2).sum())


def test_of_a_mean_the_jackknife_is_the_variance_of_the_mean():
    """s^2 / n, to rounding."""
    found = scored()
    right = ((found.scores >= 0.5) == found.y).astype(float)
    _, psi = influences([accuracy(TASK)], found, groups_of(np.arange(200)))["accuracy"]
    assert variance(psi) == pytest.approx(right.var(ddof=1) / 200)


def test_of_auroc_it_is_delong_s_variance():
    """Both are sums over patients of their placements; n - 1 against n apart."""
    found = scored()
    _, psi = influences([auroc(TASK)], found, groups_of(np.arange(200)))["auroc"]
    assert variance(psi) == pytest.approx(delong(found), rel=0.02)


def test_images_of_a_patient_are_left_out_together():
    """Each image twice as another image of its patient: no more is known than before."""
    found, patient = scored(), np.arange(200)
    twice = sample(TASK, found.scores.repeat(2, axis=0), found.y.repeat(2, axis=0))
    once = influences([auroc(TASK)], found, groups_of(patient))["auroc"][1]
    again = influences([auroc(TASK)], twice, groups_of(patient.repeat(2)))["auroc"][1]
    alone = influences([auroc(TASK)], twice, groups_of(np.arange(400)))["auroc"][1]
    np.testing.assert_allclose(once, again, atol=1e-12)
    assert variance(alone) < 0.55 * variance(once)


def test_very_many_patients_are_left_out_in_groups():
    """The variance of a mean stays that of the mean, for a five-hundredth of the work."""
    found = scored(4_000)
    group = groups_of(np.arange(4_000))
    assert len(np.unique(group)) == MOST_GROUPS
    _, psi = influences([brier(TASK)], found, group)["brier"]
    exact = ((found.scores - found.y) ** 2).var(ddof=1) / 4_000
    assert variance(psi) == pytest.approx(exact, rel=0.15)


def test_draws_have_the_variance_of_the_jackknife_and_begin_with_what_was_observed():
    found = scored()
    value, psi = influences([auroc(TASK)], found, groups_of(np.arange(200)))["auroc"]
    draws = multiplied(value, psi, np.random.default_rng(1).standard_normal((20_000, len(psi))))
    assert draws[0] == value
    assert draws[1:].var() == pytest.approx(variance(psi), rel=0.05)
    assert draws[1:].mean() == pytest.approx(value[0], abs=0.002)


def test_chunks_of_patients_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """They only bound the memory."""
    found, group = scored(), groups_of(np.arange(200))
    whole = influences([auroc(TASK)], found, group)["auroc"][1]
    monkeypatch.setattr("fedrad.metrics.influence._NUMBERS", 1_000)
    np.testing.assert_array_equal(influences([auroc(TASK)], found, group)["auroc"][1], whole)


def test_a_class_of_one_patient_has_no_draws():
    """Without that patient there would be no AUROC: how far it varies cannot be known."""
    scores, y = np.linspace(0.1, 0.9, 9)[:, None], np.array([[0.0]] * 8 + [[1.0]])
    _, psi = influences([auroc(TASK)], sample(TASK, scores, y), np.arange(9))["auroc"]
    assert np.isnan(psi).all()
