"""The attack on scores that are drawn here, so that what it must find is known."""

import numpy as np
import pytest
from scipy.stats import norm

from fedrad.privacy.accountant import gaussian_epsilon
from fedrad.privacy.membership import (
    Shadows,
    attack,
    likelihood_ratios,
    one_left_out,
    ranked,
    rate_at,
)


def drawn(shift: float, models: int = 128, patients: int = 60, seed: int = 0) -> Shadows:
    """Scores with spread 1 around a mean of the patient's own, and `shift` more for members."""
    rng = np.random.default_rng(seed)
    members = rng.random((models, patients)) < 0.5
    own = rng.normal(0, 3, patients)
    return Shadows(own + shift * members + rng.normal(size=members.shape), members)


def test_the_ratio_is_that_of_two_normal_densities() -> None:
    """With their means and spreads taken from the known models."""
    known = drawn(2.0, models=4000, patients=1)
    score = np.array([[0.3]])
    inside, outside = known.scores[known.members], known.scores[~known.members]
    expected = norm.logpdf(0.3, inside.mean(), inside.std(ddof=1)) - norm.logpdf(
        0.3, outside.mean(), outside.std(ddof=1)
    )
    assert likelihood_ratios(known, score).item() == pytest.approx(expected)


def test_a_model_that_is_left_out_has_no_say_in_its_own_ratio() -> None:
    """Else the attacker would know the answer."""
    one = drawn(1.0, models=10)
    lied = one.members.copy()
    lied[3] = ~lied[3]
    assert np.array_equal(one_left_out(one)[3], one_left_out(Shadows(one.scores, lied))[3])
    assert not np.array_equal(one_left_out(one)[4], one_left_out(Shadows(one.scores, lied))[4])


def test_a_patient_who_is_in_every_known_model_is_not_guessed() -> None:
    """There is nothing to compare with."""
    members = np.array([[True, True], [True, False], [True, True], [True, False]])
    known = Shadows(np.random.default_rng(0).normal(size=members.shape), members)
    found = likelihood_ratios(known, np.array([[5.0, 5.0]]))
    assert found[0, 0] == 0 and found[0, 1] != 0


def test_members_apart_by_one_spread_are_ranked_as_two_normals_are() -> None:
    """AUROC of two normals one spread apart is Phi(1 / sqrt 2) = 0.760."""
    found = attack(drawn(1.0, models=400), delta=1e-5)
    assert found.auroc == pytest.approx(norm.cdf(0.5**0.5), abs=0.01)
    # true positives at 1 % false ones: Phi(1 - 2.326)
    assert found.rates[0.01] == pytest.approx(norm.cdf(1 - norm.isf(0.01)), abs=0.02)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_the_bound_of_a_gaussian_release_is_below_its_epsilon(shift: float) -> None:
    """Each score is one release with noise 1 / shift, whose epsilon has a closed form."""
    epsilon = gaussian_epsilon(1 / shift, 1e-5)
    found = attack(drawn(shift), delta=1e-5)
    assert 0.1 * epsilon < found.bound < epsilon
    assert found.bound == max(found.of_all, found.of_one) and found.right <= found.guesses


def test_one_patient_s_trials_alone_prove_something() -> None:
    """Independent trials, and no assumption on what models say of other patients."""
    assert 1.0 < attack(drawn(8.0), delta=1e-5).of_one < attack(drawn(8.0), delta=1e-5).most


def test_guessing_proves_nothing_in_nearly_all_runs() -> None:
    """Without any leakage a 95 % bound is above 0 in 5 % of runs: of 40, 7 or more in 0.3 %."""
    found = [attack(drawn(0.0, 32, seed=s), delta=1e-5) for s in range(40)]
    assert sum(one.bound > 0 for one in found) <= 6
    assert abs(np.mean([one.auroc for one in found]) - 0.5) < 0.01


def test_what_all_models_say_alike_is_never_guessed() -> None:
    """Scores without any spread: no division by it, no guess."""
    members = np.random.default_rng(0).random((20, 30)) < 0.5
    found = attack(Shadows(np.tile(np.arange(30.0), (20, 1)), members), delta=1e-5)
    assert found.auroc == 0.5 and found.bound == 0 and found.guesses == 0


def test_ranks_and_rates_are_those_of_a_loop_over_pairs() -> None:
    """With ties, which count half."""
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 40), rng.integers(-3, 6, 50)
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert ranked(members, others) == pytest.approx(np.mean(pairs))
    best = max((members > cut).mean() for cut in range(-4, 10) if (others > cut).mean() <= 0.1)
    assert rate_at(0.1, members, others) == best
    assert rate_at(0.01, members, others) is None
