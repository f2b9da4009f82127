"""Noise solved for an epsilon, and the sites that cannot carry it."""

import json
from math import inf

import pytest

from fedrad.errors import ConfigError
from fedrad.privacy import PRIVACY
from fedrad.privacy.accountant import prv_epsilon
from fedrad.privacy.dp_sgd import DpSgdConfig, Plan, dp_sgd, plan, rounded
from fedrad.registry import build


def at(asked: DpSgdConfig, *, patients: int = 600, rounds: int = 30, **changes: object) -> Plan:
    """A site of one image a patient, batches of 32, an epoch a round."""
    options: dict = {
        "site": "nord", "images": patients, "patients": patients, "most_images": 1,
        "batch": 32, "steps": -(-patients // 32), "rounds": rounds,
    }  # fmt: skip
    return plan(asked, **options | changes)


def test_the_noise_is_solved_for_the_whole_run() -> None:
    """All rounds and local steps: the epsilon of 30 rounds, not of one, is what was asked for."""
    found = at(dp_sgd(epsilon=3))
    assert 2.9 < found.epsilon <= 3 and found.epsilon < found.rdp
    assert found.epsilon == prv_epsilon(found.use(30 * 19), found.delta)
    assert at(dp_sgd(epsilon=3), rounds=60).noise > found.noise


def test_small_sites_pay_more_for_the_same_noise() -> None:
    """Each patient is then in a larger share of the batches."""
    small, large = (at(dp_sgd(noise=2.0), patients=n).epsilon for n in (100, 1000))
    assert small > 2 * large


def test_prv_needs_less_noise_than_rdp_for_the_same_epsilon() -> None:
    """Both keep the promise; the tighter account keeps more of the signal."""
    prv, rdp = (at(dp_sgd(epsilon=3, accountant=name)) for name in ("prv", "rdp"))
    assert prv.noise < rdp.noise and rdp.epsilon <= 3 and rdp.rdp == rdp.epsilon


def test_a_site_too_small_for_the_epsilon_says_so_before_training() -> None:
    """The limit: noise in each number as large as all of a batch's clipped gradients together."""
    with pytest.raises(
        ConfigError,
        match=r"nord: privacy: epsilon 0\.3 cannot be carried over 30.*"
        r"rounds? would fit, or a larger epsilon or batch",
    ):
        at(dp_sgd(epsilon=0.3), patients=60)
    with pytest.raises(
        ConfigError, match=r"epsilon 0\.01 is below what one round costs, 0\.\d+ at"
    ):
        at(dp_sgd(epsilon=0.01), patients=60)


def test_both_or_neither_of_epsilon_and_noise_are_refused() -> None:
    """One follows from the other."""
    with pytest.raises(ConfigError, match="set one of epsilon and noise, found both"):
        build(PRIVACY, {"name": "dp_sgd", "epsilon": 1, "noise": 1}, where="privacy")
    with pytest.raises(ConfigError, match="found neither"):
        build(PRIVACY, "dp_sgd", where="privacy")
    assert build(PRIVACY, "none", where="privacy") is None


def test_options_that_do_not_fit_are_refused() -> None:
    """Each names its place and what was found."""
    with pytest.raises(ConfigError, match=r"privacy\.accountant: .*'gdp'"):
        build(PRIVACY, {"name": "dp_sgd", "epsilon": 1, "accountant": "gdp"}, where="privacy")
    with pytest.raises(ConfigError, match=r"did you mean 'epsilon'"):
        build(PRIVACY, {"name": "dp_sgd", "epsilom": 1}, where="privacy")
    with pytest.raises(ConfigError, match="cannot account for samples"):
        at(dp_sgd(epsilon=1, accountant="gaussian"))
    with pytest.raises(ConfigError, match=r"nord: privacy\.delta: 0\.01 is not below"):
        at(dp_sgd(epsilon=1, delta=0.01))


def test_only_rounded_counts_enter_the_mechanism() -> None:
    """A patient more must not show in the rate, the noise or the steps."""
    assert at(dp_sgd(noise=1.0), patients=523, steps=17) == at(
        dp_sgd(noise=1.0), patients=518, steps=17
    )
    assert rounded(523) == 520


def test_an_image_s_epsilon_comes_with_the_patient_s() -> None:
    """A patient with four films pays for four."""
    found = at(dp_sgd(noise=4.0, unit="image"), most_images=4)
    epsilon, delta = found.for_patient()
    assert epsilon > 3 * found.epsilon and delta >= found.delta
    told = found.as_json()
    assert told["units"] == 4 and told["patient_epsilon"] == epsilon


def test_no_noise_is_told_as_no_epsilon() -> None:
    """JSON knows no infinity, and a report must not print a number there."""
    found = at(dp_sgd(noise=0.0))
    assert found.epsilon == inf
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["epsilon"] is None
