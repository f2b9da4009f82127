"""Verdicts and intervals are right as often as they say; small, seeded cells of the benchmark.

`experiments/benchmarks/calibration.py` has the whole tables, which docs/statistics.md shows. Here a
share counts as right where its binomial interval (99.9 %) meets the band that is promised, and a
broken method is shown to fall out of it.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, norm

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from calibration_coverage import arms_of, auroc_of_one_site  # noqa: E402
from calibration_null import MIXTURES, null_p  # noqa: E402

from fedrad.metrics import mrmc  # noqa: E402
from fedrad.metrics.scales import Basis  # noqa: E402
from fedrad.report import differences, estimates  # noqa: E402

pytestmark = pytest.mark.slow

DRAWS = np.random.default_rng(0).normal(size=(300, 2000)).astype(np.float32)


def within(hits: int, n: int, low: float, high: float) -> bool:
    """Return whether a share between low and high may well have given so many hits."""
    ends = binomtest(hits, n).proportion_ci(0.999)
    return ends.low <= high and ends.high >= low


def wrong(mixture, *, seeds, sites=4, patients=60, repeats=400):
    """Return the wrong verdicts, the right ones of a true difference of 0.05, and how many."""
    rng = np.random.default_rng([seeds, sites])
    p = np.array(
        [
            null_p(mixture, seeds=seeds, patients=patients, sites=sites, rng=rng, draws=DRAWS,
                   gain=0.05)
            for _ in range(repeats)
        ]
    )  # fmt: skip
    return int((p[:, 0] < 0.05).sum()), int((p[:, 1] < 0.05).sum()), repeats


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("mixture", MIXTURES[1:3], ids=lambda mixture: mixture.name)
def test_equal_arms_are_called_different_in_three_to_seven_of_a_hundred(mixture, seeds):
    """And a true difference is found more often than that."""
    false, true, repeats = wrong(mixture, seeds=seeds)
    assert within(false, repeats, 0.03, 0.07)
    assert true > false


def test_a_z_test_on_patients_alone_would_call_equal_arms_different(monkeypatch):
    """What training adds is then left out: at two seeds, several times the nominal 5 %."""

    def blind(value, variance):
        return 2 * norm.sf(abs(value) / np.sqrt(variance.patients or variance.total))

    monkeypatch.setattr(differences, "p_value", blind)
    false, _, repeats = wrong(MIXTURES[2], seeds=2)
    assert not within(false, repeats, 0.03, 0.07) and false > 0.15 * repeats


def test_one_seed_gives_no_verdict_however_large_the_difference():
    p = null_p(
        MIXTURES[0], seeds=1, patients=100, sites=2, rng=np.random.default_rng(0), draws=DRAWS,
        gain=0.4,
    )  # fmt: skip
    assert np.isnan(p).all()


def covered(auroc, patients, prevalence, images=1, repeats=400):
    """Return in how many of so many test sets the interval of an AUROC holds the truth."""
    rng = np.random.default_rng([int(100 * auroc), patients])
    ill = np.arange(patients) < round(prevalence * patients)
    held = [
        auroc_of_one_site(auroc, ill, images, rng, DRAWS[:, i : i + patients])
        for i in range(repeats)
    ]
    assert None not in held
    return sum(map(bool, held)), repeats


@pytest.mark.parametrize(
    ("auroc", "patients", "prevalence", "images"),
    [(0.5, 30, 0.5, 1), (0.8, 100, 0.15, 3), (0.95, 30, 0.5, 1), (0.95, 100, 0.15, 1)],
)
def test_the_interval_of_an_auroc_holds_the_truth_in_93_to_97_of_a_hundred(
    auroc, patients, prevalence, images
):
    """Also near 1, with few ill patients, and with several images of each."""
    assert within(*covered(auroc, patients, prevalence, images), 0.93, 0.97)


def test_an_interval_of_plain_standard_errors_would_be_too_short_near_one(monkeypatch):
    """1.96 standard errors either side, as percentiles of a bootstrap nearly are: about 85 %."""

    def plain(basis: Basis, value: float, variance: mrmc.Variance, level: float):
        half = 1.96 * np.sqrt(variance.total)
        return value - half, value + half

    monkeypatch.setattr(estimates, "interval_on", plain)
    held, repeats = covered(0.95, 30, 0.5)
    assert not within(held, repeats, 0.93, 0.97) and held < 0.9 * repeats


def test_differences_and_shares_of_a_gap_hold_the_truth_too():
    """Two trainings of each arm, AUROC 0.75, 0.80 and 0.83, means over four sites."""
    rng = np.random.default_rng(0)
    levels = {"local": 0.75, "fedavg": 0.80, "pooled": 0.83}
    found = [
        arms_of(levels, seeds=3, patients=100, sites=4, rng=rng, draws=DRAWS) for _ in range(200)
    ]
    for key in ("mean", "difference", "at one site", "gap closed"):
        known = [each[key] for each in found if each[key] is not None]
        # Never short; wide is allowed, as few trainings say little.
        assert within(sum(known), len(known), 0.93, 1.0)
