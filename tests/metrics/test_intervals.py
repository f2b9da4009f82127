"""Resamples by patient, intervals of shares and Holm, against scipy and closed forms."""

import numpy as np
import pytest
from scipy.stats import binomtest

from fedrad.metrics.intervals import (
    half_widths,
    hanley_mcneil,
    holm,
    patient_weights,
    wilson,
)


def test_all_images_of_a_patient_come_together_and_patients_come_as_often_as_there_are():
    """The patient is what is drawn: three patients with 1, 2 and 3 images."""
    patient = np.array([30, 20, 10, 10, 20, 10], np.uint64)
    times = patient_weights(patient, 500, seed=0)
    assert times.shape == (500, 6)
    for same in ([2, 3, 5], [1, 4]):
        assert (times[:, same] == times[:, same[:1]]).all()
    assert (times[:, [0, 1, 2]].sum(axis=1) == 3).all()
    # A patient's count is binomial(3, 1/3): mean 1, variance 2/3.
    assert times[:, 0].mean() == pytest.approx(1, abs=0.15)
    assert times[:, 0].var() == pytest.approx(2 / 3, abs=0.15)


def test_resamples_follow_the_patients_not_their_order_and_repeat_with_the_seed():
    """So arms that list a site's images differently are still compared on equal resamples."""
    patient = np.arange(20)
    shuffled = np.random.default_rng(0).permutation(20)
    first = patient_weights(patient, 10, seed=3)
    np.testing.assert_array_equal(
        patient_weights(patient[shuffled], 10, seed=3), first[:, shuffled]
    )
    assert not np.array_equal(patient_weights(patient, 10, seed=4), first)


def test_no_patients_have_empty_resamples():
    """A site without test images sends sums of zero, not an error."""
    assert patient_weights(np.array([], np.uint64), 5, seed=0).shape == (5, 0)


def test_holm_multiplies_in_steps_and_never_decreases():
    """0.01 * 4, then 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, and 0.04 raised to the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_holm_leaves_out_what_has_no_p_value():
    """A comparison that could not be made does not make the others harder."""
    adjusted = holm([float("nan"), 0.02, 0.01])
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (90, 100), (180, 200), (900, 1000)])
def test_wilson_is_scipys(k, n):
    """Also at the ends, where the normal interval has no width."""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((interval.low, interval.high))
    assert np.isnan(wilson(0, 0)).all()


@pytest.mark.parametrize(
    ("positives", "negatives", "width"),
    [(10, 90, 0.153), (50, 50, 0.077), (100, 900, 0.048), (500, 4500, 0.022)],
)
def test_planned_widths_of_an_auroc_are_the_published_ones(positives, negatives, width):
    """Hanley and McNeil's at AUROC 0.85, from the project's evaluation notes."""
    assert half_widths(positives, negatives)["auroc"] == pytest.approx(width, abs=5e-4)


def test_a_perfect_auroc_has_no_error_and_one_class_has_none_to_state():
    """At 1 both of Hanley and McNeil's probabilities are 1 too."""
    assert hanley_mcneil(1.0, 10, 10) == 0
    widths = half_widths(0, 30)
    assert np.isnan([widths["auroc"], widths["sensitivity"]]).all()
    assert widths["specificity"] == widths["accuracy"]
