"""What an attack's hits prove of epsilon: a lower bound, beside the accountant's upper bound.

Two bounds, for two kinds of evidence:

- `bound_of_rates`: independent trials, such as one patient in many models. Jagielski, Ullman and
  Oprea, NeurIPS 2020, https://arxiv.org/abs/2006.07709, section 3; with delta as in Nasr et al.,
  IEEE S&P 2021, https://arxiv.org/abs/2101.04535.
- `bound_of_guesses`: guesses about many patients of the same model, which are not independent.
  Steinke, Nasr and Jagielski, NeurIPS 2023, https://arxiv.org/abs/2305.08846, Theorem 3.1.

A bound of 0 proves nothing: either there is no leakage, or this attack did not find it.
"""

from math import exp, log

import numpy as np

__all__ = ["bound_of_guesses", "bound_of_rates", "chance_of", "clopper_pearson"]

_CLOSE = 1e-4  # of epsilon, on the safe side


def clopper_pearson(hits: int, trials: int, *, chance: float) -> tuple[float, float]:
    """Return limits of a probability, each of which is on the wrong side with this chance at most.

    Args:
        hits: of independent trials.
        trials: none tell nothing: 0 to 1.
        chance: of each limit; 0.025 makes the usual 95 % interval.

    Clopper and Pearson, Biometrika 1934.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 100, chance=0.025)]
    [0.0, 0.0362]
    """
    # Imported late: only audits pay for it.
    from scipy.special import betaincinv

    low = float(betaincinv(hits, trials - hits + 1, chance)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - chance)) if hits < trials else 1.0
    return low, high


def bound_of_rates(
    hits: int, members: int, alarms: int, others: int, *, delta: float, chance: float
) -> float:
    """Return a lower bound of epsilon from independent trials.

    (epsilon, delta) allows a true-positive rate of at most e^epsilon * false-positive rate + delta.

    Args:
        hits: members that were called members.
        members: trials with the patient in.
        alarms: others that were called members.
        others: trials with the patient out.
        delta: of the promise.
        chance: with which the bound may be too high.

    >>> round(bound_of_rates(100, 100, 0, 100, delta=0.0, chance=0.05), 2)
    3.28
    >>> bound_of_rates(50, 100, 50, 100, delta=0.0, chance=0.05)
    0.0
    """
    lowest = clopper_pearson(hits, members, chance=chance / 2)[0] - delta
    highest = clopper_pearson(alarms, others, chance=chance / 2)[1]
    return max(0.0, log(lowest / highest)) if lowest > 0 else 0.0


def chance_of(right: int, guesses: int, coins: int, *, epsilon: float, delta: float) -> float:
    """Return how likely so many right guesses are at most, if (epsilon, delta) holds.

    A fair coin decided of each patient and model whether the patient is in; all coins are
    independent of each other, and each guess may rest on everything that was released.

    Args:
        right: guesses that were.
        guesses: made; of the other coins the attacker says nothing.
        coins: patients times models.
        epsilon: of the promise.
        delta: of the promise.

    >>> chance_of(2, 2, 2, epsilon=0.0, delta=0.0)
    0.25
    """
    from scipy.stats import binom

    accuracy = 1 / (1 + exp(-epsilon))
    likely = float(binom.sf(right - 1, guesses, accuracy))
    if not (delta and right):
        return min(1.0, likely)
    # The most that failures of the promise, each with chance delta, can add.
    missing = np.arange(1, right + 1)
    near = np.cumsum(binom.pmf(right - missing, guesses, accuracy)) / missing
    return min(1.0, likely + 2 * coins * delta * float(near.max()))


def bound_of_guesses(right: int, guesses: int, coins: int, *, delta: float, chance: float) -> float:
    """Return the largest epsilon under which so many right guesses are unlikelier than a chance.

    Args:
        right: as for `chance_of`.
        guesses: as for `chance_of`.
        coins: as for `chance_of`.
        delta: of the promise.
        chance: with which the bound may be too high.

    >>> round(bound_of_guesses(100, 100, 100, delta=0.0, chance=0.05), 2)
    3.49
    >>> bound_of_guesses(50, 100, 100, delta=0.0, chance=0.05)
    0.0
    """

    def refuted(epsilon: float) -> bool:
        found = chance_of(right, guesses, coins, epsilon=epsilon, delta=delta)
        return found <= chance

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
