"""Seeds as readers, patients as cases: against scipy, closed forms and published special cases."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t, ttest_1samp

from fedrad.metrics.mrmc import (
    Variance,
    critical,
    other_seeds,
    p_value,
    ratio_interval,
    variance_of,
)

RNG = np.random.default_rng(0)


def quantity(observed, covariance, replicates=20_000):
    """Return [s, 1 + b] whose replicates have nearly this covariance between seeds."""
    drawn = RNG.multivariate_normal(np.zeros(len(observed)), covariance, replicates).T
    return np.concatenate(
        [np.array(observed)[:, None], np.array(observed)[:, None] + drawn], axis=1
    )


def test_without_shared_patients_it_is_the_paired_t_test():
    """Obuchowski and Rockette's statistic with Cov2 = Cov3: only the seeds tell how sure D is."""
    gains = np.array([0.02, 0.05, 0.01, 0.06])
    values = np.repeat(gains[:, None], 201, axis=1)
    found = p_value(gains.mean(), variance_of(values))
    assert found == pytest.approx(ttest_1samp(gains, 0).pvalue, rel=1e-6)


def test_without_noise_of_training_it_is_the_normal_test_of_the_patients():
    """Equal models: s^2 is 0, and the covariance between seeds is the variance over patients."""
    values = np.repeat(quantity([0.1], [[0.05**2]]), 3, axis=0)
    found = variance_of(values)
    assert found.training == pytest.approx(0, abs=1e-18)
    assert p_value(0.1, found) == pytest.approx(
        2 * norm.sf(0.1 / values[0, 1:].std(ddof=1)), rel=1e-4
    )


def test_the_variance_is_that_of_the_mean_whatever_seeds_and_patients_share():
    """E s^2 / s + Cov = Var(mean): here 0.3 between seeds, 0.2 of patients alike, 0.5 of both.

    Seeds alone 0.3, patients x seeds 0.5, patients 0.2: of 4 seeds (0.3 + 0.5) / 4 + 0.2 = 0.4.
    Adding the whole variance over patients, (0.5 / 4 + 0.2), to s^2 / 4 would count 0.125 twice.
    """
    found = []
    for _ in range(2000):
        observed = RNG.normal(0, np.sqrt(0.3 + 0.5), 4) + RNG.normal(0, np.sqrt(0.2))
        found.append(variance_of(quantity(observed, 0.2 + 0.5 * np.eye(4), 50)).total)
    assert np.mean(found) == pytest.approx(0.4, abs=0.02)


def test_interval_and_p_value_are_of_one_statistic():
    """p < 1 - level exactly where the interval leaves zero out, for every mixture of the parts."""
    for part in (0.0, 0.01, 0.2, 0.7, 1.0):
        for seeds in (2, 3, 5, 10):
            variance = Variance(part, 1 - part, seeds)
            for level in (0.9, 0.95, 0.999):
                edge = critical(variance, level)
                assert p_value(edge, variance) == pytest.approx(1 - level, rel=1e-6)


def test_critical_values_lie_between_those_of_patients_and_of_seeds():
    """And grow with the seeds' share of the variance, without a jump at either end."""
    shares = np.linspace(0, 1, 21)
    found = [critical(Variance(s, 1 - s, 3), 0.95) for s in shares]
    assert found == sorted(found)
    assert found[0] == pytest.approx(norm.ppf(0.975))
    assert found[-1] == pytest.approx(t.ppf(0.975, 2))


@pytest.mark.parametrize(("seeds", "low", "high"), [(2, 0.03, 0.08), (3, 0.04, 0.07)])
def test_the_test_has_its_size_whatever_share_the_patients_have(seeds, low, high):
    """Known covariance of the patients, normal differences: the table of docs/statistics.md."""
    rng, n = np.random.default_rng(seeds), 5000
    for part in (0.0, 0.05, 0.6, 0.95):
        value = np.abs(rng.normal(size=n))
        training = (1 - part) * rng.chisquare(seeds - 1, n) / (seeds - 1)
        edge = np.array([critical(Variance(w, part, seeds), 0.95) for w in training])
        wrong = int((value > edge * np.sqrt(training + part)).sum())
        ends = binomtest(wrong, n).proportion_ci(0.999)
        assert ends.low <= high and ends.high >= low


def test_one_seed_has_an_interval_over_patients_and_no_p_value():
    """Nothing is known of another training."""
    found = variance_of(quantity([0.1], [[0.01]]))
    assert found.training == 0 and found.patients == pytest.approx(0.01, rel=0.05)
    assert np.isnan(p_value(0.1, found))
    assert other_seeds(np.array([[0.1, 0.2]]), 0.95) is None


def test_undefined_replicates_are_left_out():
    values = quantity([0.1, 0.2], np.full((2, 2), 0.01))
    with_gaps = values.copy()
    with_gaps[0, 1:50] = np.nan
    whole = variance_of(np.delete(values, np.s_[1:50], axis=1))
    assert variance_of(with_gaps).patients == pytest.approx(whole.patients)


def test_where_other_seeds_land_is_a_prediction_interval():
    """The mean of 3 others lies within t * s * sqrt(2 / 3) of that of 3, in 95 of 100."""
    hits = 0
    for _ in range(2000):
        first, second = RNG.normal(size=(2, 3))
        hits += abs(first.mean() - second.mean()) <= other_seeds(first[:, None], 0.95)
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_fieller_holds_exactly_the_ratios_that_are_not_rejected():
    """At each end the contrast top - ratio * bottom is just at its critical value."""
    covariance = np.kron([[1.0, 0.4], [0.4, 1.0]], np.full((3, 3), 1e-4) + 1e-4 * np.eye(3))
    both = quantity([0.05, 0.06, 0.07, 0.09, 0.1, 0.12], covariance)
    top, bottom = both[:3], both[3:]
    low, high = ratio_interval(top, bottom, level=0.95)
    middle = top[:, 0].mean() / bottom[:, 0].mean()
    assert low < middle < high
    at_middle = critical(variance_of(top - middle * bottom), 0.95)
    for end in (low, high):
        rest = top - end * bottom
        size = abs(rest[:, 0].mean()) / np.sqrt(variance_of(rest).total)
        assert size == pytest.approx(at_middle, rel=1e-6)


def test_a_ratio_to_nothing_has_no_interval():
    """A bottom of 0.01 with a standard error of 0.02 may be zero: the ratio may be anything."""
    top, bottom = quantity([0.05], [[1e-4]]), quantity([0.01], [[4e-4]])
    assert ratio_interval(top, bottom, level=0.95) is None
