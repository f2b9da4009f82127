"""Membership inference: who was among those that a model was trained on?

Carlini, Chien, Nasr, Song, Terzis, Tramèr: "Membership Inference Attacks From First Principles",
IEEE S&P 2022, https://arxiv.org/abs/2112.03570, Algorithm 1 (online), with one variance for all
patients as in its section VI-C, since a patient has few models.

The attacker learns from one half of the shadow models, and all that is told of the attack, the
bounds among it, is measured on the other half, which had no say in any choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from fedrad.privacy.lower_bound import bound_of_guesses, bound_of_rates, clopper_pearson

__all__ = [
    "SOURCE",
    "Attack",
    "Shadows",
    "attack",
    "likelihood_ratios",
    "one_left_out",
    "ranked",
    "rate_at",
]

SOURCE = (
    "LiRA, online, one variance for all patients (Carlini et al., IEEE S&P 2022, "
    "https://arxiv.org/abs/2112.03570)"
)
_SHARES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_FALSE_ALARMS = (0.001, 0.01)
_CHANCE = 0.05
_LEAST_VARIANCE = 1e-12  # of models that all say the same, to the last bits


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models say of patients.

    Args:
        scores: float64 [models, patients]; the higher, the surer of the patient's labels.
        members: bool [models, patients], by independent fair coins.
    """

    scores: np.ndarray
    members: np.ndarray

    def of(self, models: np.ndarray | slice) -> "Shadows":
        """Return some of the models."""
        return Shadows(self.scores[models], self.members[models])


@dataclass(frozen=True)
class Attack:
    """What an attack achieves on models that it did not learn from.

    Args:
        auroc: the share of (member, other) pairs in order; 0.5 is guessing.
        rates: false-positive rate -> true-positive rate; None where there are too few others.
        bound: of epsilon, 95 %: the larger of the next two, which hold with 97.5 % each.
        of_all: bound from guesses about all patients.
        of_one: bound from the one patient who was most exposed in the models learnt from.
        most: what `of_all` would be if every guess were right: these models cannot show more.
        right, guesses, coins: what `of_all` rests on.
    """

    auroc: float
    rates: Mapping[float, float | None]
    bound: float
    of_all: float
    of_one: float
    most: float
    right: int
    guesses: int
    coins: int


def attack(shadows: Shadows, *, delta: float) -> Attack:
    """Return what the attack achieves: learnt from the first half, measured on the second.

    Args:
        shadows: of 8 models at least.
        delta: of the promise that is put to the test.
    """
    half = len(shadows.scores) // 2
    known, unseen = shadows.of(slice(half)), shadows.of(slice(half, None))
    tuned = one_left_out(known)
    found = likelihood_ratios(known, unseen.scores)
    right, guesses = _guessed(found, unseen.members, _cutoffs(tuned, known.members))
    coins = found.size
    of_all = bound_of_guesses(right, guesses, coins, delta=delta, chance=_CHANCE / 2)
    of_one = _bound_of_one(known, tuned, unseen, found, delta)
    return Attack(
        auroc=ranked(found[unseen.members], found[~unseen.members]),
        rates={
            rate: rate_at(rate, found[unseen.members], found[~unseen.members])
            for rate in _FALSE_ALARMS
        },
        bound=max(of_all, of_one),
        of_all=of_all,
        of_one=of_one,
        most=bound_of_guesses(coins, coins, coins, delta=delta, chance=_CHANCE / 2),
        right=right,
        guesses=guesses,
        coins=coins,
    )


def likelihood_ratios(known: Shadows, scores: np.ndarray) -> np.ndarray:
    """Return how much likelier scores are if the patient was in, as logarithms.

    Args:
        known: models whose members the attacker knows.
        scores: float64 [models, patients] of others.

    Returns:
        float64 [models, patients]; 0 for a patient who is in all or none of the known models.
    """
    (in_mean, in_variance), (out_mean, out_variance) = (
        _normal(known.scores, chosen) for chosen in (known.members, ~known.members)
    )
    inside = (scores - in_mean) ** 2 / in_variance + np.log(in_variance)
    outside = (scores - out_mean) ** 2 / out_variance + np.log(out_variance)
    return np.asarray(np.nan_to_num((outside - inside) / 2, nan=0.0))


def one_left_out(shadows: Shadows) -> np.ndarray:
    """Return each model's `likelihood_ratios` by all the others, float64 [models, patients]."""
    numbers = np.arange(len(shadows.scores))
    return np.stack(
        [likelihood_ratios(shadows.of(numbers != n), shadows.scores[n]) for n in numbers]
    )


def ranked(members: np.ndarray, others: np.ndarray) -> float:
    """Return the share of (member, other) pairs in order, ties half: the area under the ROC curve.

    >>> ranked(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    0.75
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([members, others]))[: len(members)].sum()
    least = len(members) * (len(members) + 1) / 2
    return float((ranks - least) / (len(members) * len(others)))


def rate_at(rate: float, members: np.ndarray, others: np.ndarray) -> float | None:
    """Return the share of members found where at most this share of others is called a member.

    Args:
        rate: of false alarms.
        members: float64 [m], their likelihood ratios.
        others: float64 [n]; None is returned where one of them is more than the rate.

    >>> rate_at(0.5, np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    1.0
    """
    allowed = int(rate * len(others) + 1e-9)  # 0.01 of 100 is 1 whatever the rounding
    if not allowed or not len(members):
        return None
    return float((members > np.sort(others)[-allowed - 1 :][0]).mean())


def _normal(scores: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Return each patient's mean over the chosen models, and the variance around all of them."""
    count = chosen.sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.where(chosen, scores, 0).sum(0) / count
    squares = np.where(chosen, (scores - mean) ** 2, 0).sum()
    free = np.maximum(count - 1, 0).sum()
    return mean, max(float(squares / max(free, 1)), _LEAST_VARIANCE)


def _cutoffs(ratios: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """Return below what to guess "out" and above what "in", as proves most of epsilon here."""

    def proven(cutoffs: tuple[float, float]) -> float:
        right, guesses = _guessed(ratios, members, cutoffs)
        return clopper_pearson(right, guesses, chance=_CHANCE / 2)[0]

    pairs = product(np.quantile(ratios, _SHARES), np.quantile(ratios, 1 - np.array(_SHARES)))
    return max(((float(low), float(high)) for low, high in pairs), key=proven)


def _guessed(
    ratios: np.ndarray, members: np.ndarray, cutoffs: tuple[float, float]
) -> tuple[int, int]:
    """Return how many guesses are right, and how many there are; equal to a cutoff is no guess."""
    out, into = ratios < cutoffs[0], ratios > cutoffs[1]
    out &= ~into
    return int((into & members).sum() + (out & ~members).sum()), int(into.sum() + out.sum())


def _bound_of_one(
    known: Shadows, tuned: np.ndarray, unseen: Shadows, found: np.ndarray, delta: float
) -> float:
    """Return the bound from one patient, a trial in each model; who and where to cut is tuned."""
    exposed = [
        ranked(tuned[m, p], tuned[~m, p]) if 0 < m.sum() < len(m) else 0.0
        for p, m in enumerate(known.members.T)
    ]
    gap = np.abs(_normal(known.scores, known.members)[0] - _normal(known.scores, ~known.members)[0])
    patient = max(range(len(exposed)), key=lambda p: (exposed[p], np.nan_to_num(gap[p])))

    def proven(ratios: np.ndarray, members: np.ndarray, cut: float) -> float:
        called = ratios > cut
        inside, outside = int(members.sum()), int((~members).sum())
        hits, alarms = int((called & members).sum()), int((called & ~members).sum())
        return bound_of_rates(hits, inside, alarms, outside, delta=delta, chance=_CHANCE / 2)

    ordered = np.sort(tuned[:, patient])
    cuts = (ordered[1:] + ordered[:-1]) / 2
    told = [proven(tuned[:, patient], known.members[:, patient], float(cut)) for cut in cuts]
    best = cuts[np.flatnonzero(np.array(told) == max(told))]
    cut = float(best[len(best) // 2])
    return proven(found[:, patient], unseen.members[:, patient], cut)
