"""Intervals on a metric's own scale: closed forms where there are some, and no width of zero."""

import numpy as np
import pytest

from fedrad.metrics import METRICS
from fedrad.metrics.intervals import hanley_mcneil, wilson
from fedrad.metrics.mrmc import Variance, critical
from fedrad.metrics.scales import SCALES, Basis, interval_on, of_difference


def basis(metric, positives, negatives):
    """Return the basis of one site and one output."""
    return Basis(SCALES[metric], np.array([[positives]]), np.array([[negatives]]), np.ones(1))


def test_every_metric_of_the_table_has_a_scale():
    assert set(SCALES) == set(METRICS)


def test_a_share_of_single_patients_has_wilsons_interval():
    """With the binomial variance and a normal quantile, the inversion is Wilson's formula."""
    for k, n in ((17, 20), (90, 100), (50, 100)):
        many = Basis(SCALES["accuracy"], np.array([[n / 2]]), np.array([[n / 2]]), np.ones(1))
        value = k / n
        variance = Variance(0.0, value * (1 - value) / n, 1)
        low, high = interval_on(many, value, variance, 0.95)
        assert (low, high) == pytest.approx(wilson(k, n), abs=1e-6)


def test_the_shape_of_an_auroc_is_hanley_and_mcneils_for_equal_classes():
    """Newcombe takes both classes alike; with as many ill as well, the two are the same."""
    for value in (0.5, 0.8, 0.95):
        found = basis("auroc", 25, 25).variance_at(value)
        assert found == pytest.approx(hanley_mcneil(value, 25, 25) ** 2)


def test_perfect_separation_is_not_certainty():
    """Observed variance 0: the interval is that of the counts, and shrinks with patients."""
    few = interval_on(basis("auroc", 10, 10), 1.0, Variance(0.0, 0.0, 1), 0.95)
    more = interval_on(basis("auroc", 100, 100), 1.0, Variance(0.0, 0.0, 3), 0.95)
    assert few[1] == more[1] == 1.0
    assert 0.7 < few[0] < 0.9 < more[0] < 0.99
    nobody = interval_on(basis("accuracy", 10, 10), 0.0, Variance(0.0, 0.0, 1), 0.95)
    assert nobody[0] == 0.0 and nobody[1] == pytest.approx(wilson(0, 20)[1], abs=0.01)


def test_a_difference_in_which_nothing_varies_has_no_interval():
    assert interval_on(Basis(), 0.0, Variance(0.0, 0.0, 2), 0.95) is None
    assert interval_on(Basis(SCALES["brier"]), 0.1, Variance(0.0, 0.0, 2), 0.95) is None


def test_intervals_stay_within_bounds_and_hold_the_value():
    for name, scale in SCALES.items():
        for value in (0.02, 0.5, 0.98):
            for deviation in (0.001, 0.05, 0.3):
                variance = Variance(deviation**2 / 2, deviation**2 / 2, 2)
                low, high = interval_on(basis(name, 12, 30), value, variance, 0.95)
                assert scale.low <= low < value < high <= scale.high


def test_a_value_at_its_bound_and_a_difference_stay_within_what_they_can_be():
    """Two values in [0, 1] are never further apart than 1, however little two seeds tell."""
    wide = Variance(0.5, 0.0, 2)
    assert interval_on(of_difference("auroc"), 0.1, wide, 0.95) == (-1.0, 1.0)
    assert interval_on(of_difference("kappa_linear"), 0.1, wide, 0.95) == (-2.0, 2.0)
    assert interval_on(Basis(SCALES["auroc"]), 1.0, wide, 0.95) == (0.0, 1.0)
    low, high = interval_on(of_difference("loss"), 0.1, wide, 0.95)
    assert low < -2 and high > 2


def test_a_small_observed_variance_is_drawn_up_and_a_large_one_stays():
    """5 patients' worth of the formula: 15 and 15 patients have 28 degrees of freedom."""
    here = basis("auroc", 15, 15)
    own = here.variance_at(0.9)
    wide = interval_on(here, 0.9, Variance(0.0, 2 * own, 1), 0.95)
    narrow = interval_on(here, 0.9, Variance(0.0, 0.2 * own, 1), 0.95)
    blend = (28 * 0.2 + 5) / 33
    low = narrow[0]
    half = critical(Variance(0.0, 1.0, 1), 0.95) * np.sqrt(blend * here.variance_at(low))
    assert 0.9 - low == pytest.approx(half, rel=1e-6)
    half = critical(Variance(0.0, 1.0, 1), 0.95) * np.sqrt(2 * here.variance_at(wide[0]))
    assert 0.9 - wide[0] == pytest.approx(half, rel=1e-6)


def test_degrees_of_freedom_are_welchs_and_add_up_over_sites():
    """Of 15 ill and 85 well, little more than 15 - 1; of four such sites, four times as many."""
    one = basis("auroc", 15, 85).df
    assert one == pytest.approx((100) ** 2 / (85**2 / 14 + 15**2 / 84))
    four = Basis(None, np.full((4, 1), 15), np.full((4, 1), 85), np.full(4, 0.25)).df
    assert four == pytest.approx(4 * one)
    assert Basis().df == np.inf
    lone = Basis(None, np.array([[1]]), np.array([[20]]), np.ones(1)).df
    assert lone == pytest.approx(19)


@pytest.mark.parametrize(("metric", "most"), [("ece", 1.0), ("brier", 2.0)])
def test_no_error_of_probabilities_and_no_difference_of_two_goes_past_what_it_can_be(metric, most):
    """Two seeds that lie apart make an interval of a hundred times its metric's scale."""
    wild = Variance(1.0, 0.0, 2)
    assert interval_on(of_difference(metric), 0.1, wild, 0.95) == (-most, most)
    assert interval_on(basis(metric, 20, 20), 0.3, wild, 0.95)[1] == most
