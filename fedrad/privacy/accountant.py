"""What uses of the Gaussian mechanism cost: epsilon at a delta, composed over all of them.

Three accounts of the same uses, from tight to loose: the closed form where nothing is sampled
(Balle and Wang, ICML 2018, https://arxiv.org/abs/1805.06530, Theorem 8), numerical composition of
the privacy loss (PRV: Gopi, Lee and Wutschitz, NeurIPS 2021, https://arxiv.org/abs/2106.02848, as
Opacus computes it), and Rényi divergences (RDP: Mironov, Talwar and Zhang, 2019,
https://arxiv.org/abs/1908.10530). Epsilons of several uses are never added.

Neighbours are two data sets of which one has one unit (a patient, or an image) more.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, log, log1p, sqrt
from typing import Literal

import numpy as np

from fedrad.errors import ConfigError

__all__ = [
    "Accountant",
    "Spend",
    "Use",
    "compose_uses",
    "delta_for",
    "for_group",
    "gaussian_epsilon",
    "has_prv",
    "merged_uses",
    "prv_epsilon",
    "rdp_epsilon",
    "renyi",
    "spend",
]

Accountant = Literal["prv", "rdp", "gaussian"]

ORDERS = np.array([1 + k / 10 for k in range(1, 100)] + list(range(12, 64)))
"""Opacus' orders, so that its figures and ours can be compared."""

_PRV_ERROR = 0.01  # of epsilon, on the safe side; Opacus' default
_LARGEST_MESH = 2**22  # points; a few hundred megabytes while it is convolved
_LEAST_NOISE = 0.05  # below, any epsilon is in the hundreds


@dataclass(frozen=True)
class Use:
    """A number of uses of the Gaussian mechanism on Poisson samples of the units.

    Args:
        rate: each unit is in a sample with this probability, independently; 1 is no sampling.
        noise: standard deviation of the noise, in the largest norm that one unit may add.
        steps: how many samples were taken.
        units: the most units that one patient stands for; 1 where the unit is the patient.
    """

    rate: float
    noise: float
    steps: int
    units: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no probability, no noise or no number of steps."""
        if not (0 < self.rate <= 1 and self.noise >= 0 and self.steps >= 0 and self.units >= 1):
            raise ConfigError(
                f"a use of noise needs 0 < rate <= 1, noise, steps from 0 and units from 1; found "
                f"rate {self.rate:g}, noise {self.noise:g}, steps {self.steps}, units {self.units}"
            )

    def of_patients(self) -> "Use":
        """Return uses that cost a patient at least as much as these cost one with so many images.

        A patient is in a sample when any image is, and then adds `units` norms at most. Ganesh,
        2024, https://arxiv.org/abs/2401.10294: a mixture of Gaussians, here bounded by its
        farthest one.

        >>> Use(rate=0.5, noise=1.0, steps=3, units=2).of_patients()
        Use(rate=0.75, noise=0.5, steps=3, units=1)
        """
        # One unit keeps its rate to the last bit.
        rate = self.rate if self.units == 1 else 1 - (1 - self.rate) ** self.units
        return Use(rate, self.noise / self.units, self.steps)


@dataclass(frozen=True)
class Spend:
    """An epsilon, and which account it comes from."""

    epsilon: float
    accountant: str


def gaussian_epsilon(noise: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian release without sampling.

    Args:
        noise: standard deviation, in the norm of what one unit adds.
        delta: between 0 and 1.

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """
    if noise == 0:
        return inf
    low, high = 0.0, 1.0
    if _gaussian_delta(noise, low) <= delta:
        return 0.0
    while _gaussian_delta(noise, high) > delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _gaussian_delta(noise, middle) > delta else (low, middle)
    return high


def _gaussian_delta(noise: float, epsilon: float) -> float:
    from scipy.special import log_ndtr

    shift = 1 / (2 * noise)
    above = exp(log_ndtr(shift - epsilon * noise))
    return float(above - exp(epsilon + log_ndtr(-shift - epsilon * noise)))


@lru_cache(maxsize=4096)
def renyi(rate: float, noise: float) -> np.ndarray:
    """Return the Rényi divergence of one use at each of `ORDERS`; not to be changed.

    The integral over the noise by the trapezoid rule, which for such smooth functions is exact to
    many digits; all orders at once, because a ledger may hold hundreds of different mechanisms.

    >>> renyi(1.0, 2.0)[9]  # order 2: order / (2 noise^2)
    np.float64(0.25)
    """
    if noise < _LEAST_NOISE:
        return np.full(len(ORDERS), inf)
    if rate == 1:
        return np.asarray(ORDERS / (2 * noise**2))
    z = np.arange(-12 * noise, ORDERS[-1] + 12 * noise, noise / 8)
    ratio = np.logaddexp(log1p(-rate), log(rate) + (2 * z - 1) / (2 * noise**2))
    exponents = ORDERS[:, None] * ratio - z**2 / (2 * noise**2)
    highest = exponents.max(1)
    sums = np.exp(exponents - highest[:, None]).sum(1) * (noise / 8)
    logs = highest + np.log(sums) - log(noise * sqrt(2 * np.pi))
    return np.asarray(np.maximum(logs, 0) / (ORDERS - 1))


def rdp_epsilon(uses: Iterable[Use], delta: float) -> float:
    """Return epsilon of all uses together by Rényi divergences; they may differ from each other.

    Balle et al., 2020, https://arxiv.org/abs/1905.09982, Theorem 21 turns them into an epsilon.

    >>> round(rdp_epsilon([Use(rate=240 / 60_000, noise=1.3, steps=15 * 250)], 1e-5), 2)
    0.92
    """
    total = np.zeros(len(ORDERS))
    for use in merged_uses(uses):
        total = total + use.steps * renyi(use.rate, use.noise)
    if not total.any():
        return 0.0
    orders = ORDERS
    found = total - (log(delta) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
    return max(0.0, float(found.min()))


def prv_epsilon(use: Use, delta: float) -> float:
    """Return an upper bound of epsilon by numerical composition, 0.01 above the estimate.

    Raises:
        ConfigError: epsilon is so large that the computation does not fit into memory.

    >>> round(prv_epsilon(Use(rate=240 / 60_000, noise=1.3, steps=15 * 250), 1e-5), 2)
    0.84
    """
    if not has_prv(use, delta):
        raise ConfigError(
            f"accountant prv: noise {use.noise:g} over {use.steps} steps is too little to account "
            "for; use accountant rdp, or more noise"
        )
    return _prv(use.rate, use.noise, use.steps, delta)


@lru_cache(maxsize=4096)
def _prv(rate: float, noise: float, steps: int, delta: float) -> float:
    # Opacus brings torch's compiler along, some seconds: only what needs PRV pays for it.
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # It bounds its domain by RDP, at orders that need not be the best ones for that.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR))


def has_prv(use: Use, delta: float) -> bool:
    """Return whether the mesh that Opacus would lay fits into memory (its `_get_domain`)."""
    if use.noise < _LEAST_NOISE or not use.steps:
        return False
    error = delta / 1000
    length = 3 + rdp_epsilon([use], error / 4)
    mesh = _PRV_ERROR / sqrt(use.steps * log(12 / error) / 2)
    return 2 * length / mesh < _LARGEST_MESH


def compose_uses(uses: Iterable[Use], delta: float) -> Spend:
    """Return what uses cost together, by the tightest account that fits them.

    Closed form where nothing was sampled, PRV where all uses are alike, RDP where they differ.
    Law: one use more never costs less.

    >>> compose_uses([Use(1.0, 1.0, 1)], 1e-5).accountant
    'gaussian'
    >>> compose_uses([Use(0.1, 1.0, 10), Use(0.1, 2.0, 10)], 1e-5).accountant
    'rdp'
    """
    kinds = [use for use in merged_uses(uses) if use.steps]
    if not kinds:
        return Spend(0.0, "gaussian")
    if all(use.rate == 1 for use in kinds):
        precision = sum(inf if use.noise == 0 else use.steps / use.noise**2 for use in kinds)
        return Spend(gaussian_epsilon(1 / sqrt(precision), delta), "gaussian")
    if len(kinds) == 1 and has_prv(kinds[0], delta):
        return Spend(prv_epsilon(kinds[0], delta), "prv")
    return Spend(rdp_epsilon(kinds, delta), "rdp")


def spend(use: Use, delta: float, accountant: Accountant) -> float:
    """Return epsilon of alike uses by the account that was asked for.

    Raises:
        ConfigError: the account does not cover the sampling, or cannot be computed.
    """
    if accountant == "rdp":
        return rdp_epsilon([use], delta)
    if accountant == "prv":
        return prv_epsilon(use, delta)
    if use.rate < 1:
        raise ConfigError(
            f"accountant gaussian: cannot account for samples (rate {use.rate:g}); it is the "
            "closed form for a batch of all patients; use prv or rdp"
        )
    return gaussian_epsilon(use.noise / sqrt(use.steps), delta)


def merged_uses(uses: Iterable[Use]) -> Sequence[Use]:
    """Return the uses with like ones put together, for patients.

    >>> merged_uses([Use(0.5, 1.0, 2), Use(0.5, 1.0, 3)])
    [Use(rate=0.5, noise=1.0, steps=5, units=1)]
    """
    steps: Counter[tuple[float, float, int]] = Counter()
    for use in uses:
        steps[use.rate, use.noise, use.units] += use.steps
    alike: Counter[tuple[float, float]] = Counter()
    for (rate, noise, units), number in steps.items():
        patients = Use(rate, noise, number, units).of_patients()
        alike[patients.rate, patients.noise] += number
    return [Use(rate, noise, number) for (rate, noise), number in alike.items()]


def for_group(epsilon: float, delta: float, units: int) -> tuple[float, float]:
    """Return (epsilon, delta) for a group of units, from those of a single one.

    Dwork and Roth, 2014, Theorem 2.2: (k epsilon, k exp((k - 1) epsilon) delta), for any mechanism.

    >>> for_group(0.0, 1e-6, 2)
    (0.0, 2e-06)
    """
    return units * epsilon, min(1.0, units * exp(min(700.0, (units - 1) * epsilon)) * delta)


def delta_for(delta: float | Literal["auto"], patients: int, *, where: str) -> float:
    """Return delta: as given, or a tenth of a patient's share and 1e-5 at most.

    Args:
        delta: the chance with which the promise of epsilon may fail.
        patients: who train, rounded.
        where: place in the configuration, for messages.

    Raises:
        ConfigError: it is a patient's share or more, so giving away one record whole would pass.

    >>> delta_for("auto", 600, where="privacy"), delta_for("auto", 50_000, where="privacy")
    (1e-05, 2e-06)
    """
    if delta == "auto":
        return min(1e-5, 0.1 / max(1, patients))
    if not 0 < delta < 1 / max(1, patients):
        raise ConfigError(
            f"{where}.delta: {delta:g} is not below one in the site's {patients} patients "
            f"({1 / max(1, patients):.2g}): giving away one of them whole would pass; say auto"
        )
    return delta
