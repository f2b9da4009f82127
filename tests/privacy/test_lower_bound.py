"""What hits prove of epsilon: against others' numbers and mechanisms of known epsilon."""

from math import e, exp, log

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fedrad.privacy.lower_bound import (
    bound_of_guesses,
    bound_of_rates,
    chance_of,
    clopper_pearson,
)


@pytest.mark.parametrize(
    ("hits", "trials"), [(0, 1), (0, 30), (1, 30), (17, 30), (30, 30), (999, 1000)]
)
def test_clopper_pearson_is_that_of_scipy(hits: int, trials: int) -> None:
    """Both limits, also where one of them is 0 or 1."""
    known = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    found = clopper_pearson(hits, trials, chance=0.025)
    assert found == pytest.approx((known.low, known.high), abs=1e-9)


def test_no_trial_tells_nothing() -> None:
    """Neither of a rate nor of epsilon."""
    assert clopper_pearson(0, 0, chance=0.025) == (0.0, 1.0)
    assert bound_of_rates(0, 0, 0, 0, delta=0.0, chance=0.05) == 0
    assert bound_of_guesses(0, 0, 100, delta=1e-5, chance=0.05) == 0


def test_rates_prove_what_the_formula_says() -> None:
    """ln((lowest true-positive rate - delta) / highest false-positive rate)."""
    low = binomtest(90, 100).proportion_ci(0.95, method="exact").low
    high = binomtest(5, 100).proportion_ci(0.95, method="exact").high
    found = bound_of_rates(90, 100, 5, 100, delta=0.01, chance=0.05)
    assert found == pytest.approx(log((low - 0.01) / high))


def test_without_delta_guesses_prove_the_odds_of_the_lowest_share() -> None:
    """Of pure epsilon the bound has a closed form: ln(p / (1 - p)) of Clopper and Pearson's p."""
    low = clopper_pearson(90, 100, chance=0.05)[0]
    found = bound_of_guesses(90, 100, 1000, delta=0.0, chance=0.05)
    assert found == pytest.approx(log(low / (1 - low)), abs=2e-4)


def test_delta_makes_the_bound_smaller_and_its_chance_is_that_of_a_plain_loop() -> None:
    """Steinke et al., appendix D, as it is printed there."""
    right, guesses, coins, delta = 90, 100, 1000, 1e-5
    accuracy, total, alpha = e / (1 + e), 0.0, 0.0
    for i in range(1, right + 1):
        total += binom.pmf(right - i, guesses, accuracy)
        alpha = max(alpha, total / i)
    expected = binom.sf(right - 1, guesses, accuracy) + 2 * coins * delta * alpha
    found = chance_of(right, guesses, coins, epsilon=1.0, delta=delta)
    assert found == pytest.approx(expected)
    proven = [bound_of_guesses(90, 100, 1000, delta=d, chance=0.05) for d in (0.0, 1e-4, 1e-2)]
    assert proven[0] > proven[1] > proven[2]


def test_randomized_response_is_bounded_by_its_epsilon_and_nearly_reaches_it() -> None:
    """The mechanism whose guesses are as good as epsilon allows: right with e^eps / (1 + e^eps).

    A 95 % bound passes epsilon in 5 % of the runs at most: of 400, 20 are expected and more than 33
    come with a chance below 0.2 %.
    """
    epsilon, trials = 2.0, 2000
    truth = 1 / (1 + exp(-epsilon))
    rng = np.random.default_rng(0)
    members = rng.random((400, trials)) < 0.5
    called = np.where(rng.random(members.shape) < truth, members, ~members)
    of_guesses, of_rates = [], []
    for m, c in zip(members, called, strict=True):
        of_guesses.append(
            bound_of_guesses(int((m == c).sum()), trials, trials, delta=0.0, chance=0.05)
        )
        hits, alarms = int((m & c).sum()), int((~m & c).sum())
        inside = int(m.sum())
        of_rates.append(
            bound_of_rates(hits, inside, alarms, trials - inside, delta=0.0, chance=0.05)
        )
    for found in (of_guesses, of_rates):
        assert (np.array(found) > epsilon).sum() <= 33 and np.median(found) > 0.85 * epsilon
