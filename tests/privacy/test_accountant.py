"""What noise costs, against closed forms, published figures and an independent implementation."""

from itertools import pairwise
from math import exp, inf

import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.stats import norm

from fedrad.errors import ConfigError
from fedrad.privacy.accountant import (
    ORDERS,
    Use,
    compose_uses,
    delta_for,
    for_group,
    gaussian_epsilon,
    prv_epsilon,
    rdp_epsilon,
    renyi,
    spend,
)

MNIST = Use(rate=240 / 60_000, noise=1.3, steps=15 * 250)
HOSPITAL = Use(rate=32 / 600, noise=1.0, steps=100 * 18)


def test_one_gaussian_release_costs_what_the_closed_form_says() -> None:
    """Balle and Wang, 2018, Theorem 8: sigma 1 at delta 1e-5 is 4.377; it solves their equation."""
    epsilon = gaussian_epsilon(1.0, 1e-5)
    assert epsilon == pytest.approx(4.377, abs=5e-4)
    delta = norm.cdf(0.5 - epsilon) - exp(epsilon) * norm.cdf(-0.5 - epsilon)
    assert delta == pytest.approx(1e-5, rel=1e-6)


def test_the_looser_accounts_of_one_release_are_opacus_figures() -> None:
    """Each account is an upper bound of the one before: 4.377, 4.387, 4.729."""
    once = Use(rate=1.0, noise=1.0, steps=1)
    assert prv_epsilon(once, 1e-5) == pytest.approx(4.387, abs=5e-4)
    assert rdp_epsilon([once], 1e-5) == pytest.approx(4.729, abs=5e-4)


@pytest.mark.parametrize(
    ("use", "prv", "rdp"), [(MNIST, 0.84, 0.92), (HOSPITAL, 16.75, 18.10)], ids=["mnist", "small"]
)
def test_sampled_runs_cost_what_opacus_says(use: Use, prv: float, rdp: float) -> None:
    """Opacus 1.6's own figures: its MNIST example, and 100 rounds at a site of 600 patients."""
    assert prv_epsilon(use, 1e-5) == pytest.approx(prv, abs=0.005)
    assert rdp_epsilon([use], 1e-5) == pytest.approx(rdp, abs=0.005)


@pytest.mark.parametrize(
    ("rate", "noise"), [(0.05, 1.0), (0.004, 1.3), (0.3, 0.3), (0.9, 2.0), (1.0, 0.7)]
)
def test_divergences_are_opacus_own(rate: float, noise: float) -> None:
    """Our integral and Opacus' series are two ways to the same number, at every order."""
    series = compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=list(ORDERS))
    np.testing.assert_allclose(renyi(rate, noise), series, rtol=1e-6, atol=1e-12)


def test_releases_without_sampling_add_up_as_one_with_less_noise() -> None:
    """50 Gaussian releases with noise 1 are one with noise 1 / sqrt(50); never 50 epsilons."""
    found = compose_uses([Use(1.0, 1.0, 20), Use(1.0, 1.0, 30)], 1e-5)
    assert found.accountant == "gaussian"
    assert found.epsilon == pytest.approx(gaussian_epsilon(50**-0.5, 1e-5))
    assert found.epsilon < 50 * gaussian_epsilon(1.0, 1e-5) / 3


def test_alike_uses_are_composed_by_prv_and_others_by_rdp() -> None:
    """PRV is tighter; RDP adds up divergences of any uses."""
    alike = compose_uses([Use(0.05, 1.0, 100), Use(0.05, 1.0, 100)], 1e-5)
    assert alike.accountant == "prv"
    assert alike.epsilon == prv_epsilon(Use(0.05, 1.0, 200), 1e-5)
    mixed = compose_uses([Use(0.05, 1.0, 100), Use(0.05, 1.0001, 100)], 1e-5)
    assert mixed.accountant == "rdp"
    assert mixed.epsilon == pytest.approx(rdp_epsilon([Use(0.05, 1.0, 200)], 1e-5), rel=1e-3)


def test_a_use_more_never_costs_less() -> None:
    """Also where the account changes on the way, and when many uses are of another kind."""
    uses = [*(Use(0.05, 1.5, 10) for _ in range(4)), Use(1.0, 5.0, 1), Use(0.02, 2.0, 10)]
    spent = [compose_uses(uses[:n], 1e-5).epsilon for n in range(len(uses) + 1)]
    assert spent[0] == 0 and all(a < b for a, b in pairwise(spent))


def test_no_noise_has_no_epsilon() -> None:
    """Infinity is not a large number that someone may round."""
    assert compose_uses([Use(0.1, 0.0, 1)], 1e-5).epsilon == inf
    assert compose_uses([Use(1.0, 0.0, 1)], 1e-5).epsilon == inf


def test_so_little_noise_that_prv_does_not_fit_is_accounted_by_rdp_and_said() -> None:
    """Its mesh would take all memory; the name of the account tells."""
    heavy = Use(32 / 600, 1.0, 180_000)
    assert compose_uses([heavy], 1e-5).accountant == "rdp"
    with pytest.raises(
        ConfigError, match="accountant prv: noise 1 over 180000 steps is too little"
    ):
        prv_epsilon(heavy, 1e-5)


def test_an_accountant_that_cannot_account_for_the_sampling_is_refused() -> None:
    """The closed form knows no samples; with all patients in every batch it is exact."""
    with pytest.raises(ConfigError, match=r"gaussian: cannot account for samples \(rate 0\.1\)"):
        spend(Use(0.1, 1.0, 5), 1e-5, "gaussian")
    assert spend(Use(1.0, 1.0, 1), 1e-5, "gaussian") == gaussian_epsilon(1.0, 1e-5)


def test_a_patient_of_several_images_pays_for_all_of_them() -> None:
    """Where the unit is the image: no less than one image, and for all sampled at once exactly k.

    With rate 1 all k images add up to k norms: a release with a k-th of the noise.
    """
    one, three = Use(0.05, 2.0, 100), Use(0.05, 2.0, 100, units=3)
    assert compose_uses([three], 1e-5).epsilon > 2 * compose_uses([one], 1e-5).epsilon
    whole = compose_uses([Use(1.0, 3.0, 1, units=3)], 1e-5).epsilon
    assert whole == pytest.approx(gaussian_epsilon(1.0, 1e-5))
    assert for_group(1.0, 1e-6, 3) == (3.0, pytest.approx(3 * exp(2) * 1e-6))


def test_delta_must_be_below_a_patient_s_share() -> None:
    """With delta = 1/n, publishing one record whole would be private."""
    with pytest.raises(ConfigError, match=r"delta: 0\.002 is not below one in the site's 500"):
        delta_for(0.002, 500, where="nord: privacy")
    assert delta_for(0.0019, 500, where="nord: privacy") == 0.0019
    assert delta_for("auto", 500, where="") == 1e-5 and delta_for("auto", 2**20, where="") < 1e-7


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": 1.1}, {"noise": -1.0}, {"steps": -1}])
def test_what_is_no_use_is_refused(wrong: dict) -> None:
    """Rates are probabilities."""
    with pytest.raises(ConfigError, match="a use of noise needs 0 < rate <= 1"):
        Use(**{"rate": 0.5, "noise": 1.0, "steps": 1} | wrong)
