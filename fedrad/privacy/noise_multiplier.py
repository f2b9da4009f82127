"""How much noise an epsilon needs over a whole run, and when no noise will do."""

from collections.abc import Callable
from math import inf

from fedrad.errors import ConfigError
from fedrad.privacy.accountant import Accountant, Use, has_prv, spend

__all__ = ["noise_for"]

_CLOSE = 1.005  # the noise is at most so many times the least that would do


def noise_for(
    epsilon: float,
    delta: float,
    *,
    rate: float,
    steps: int,
    rounds: int,
    patients: int,
    accountant: Accountant,
    where: str,
) -> float:
    """Return the least noise multiplier, within 0.5 %, that keeps a run within epsilon.

    Noise beyond the patients of a batch is refused: each number of the gradient would then be
    noised by more than the clipped gradients of all its patients add up to, and nothing is learnt.

    Args:
        epsilon: of the whole run.
        delta: the chance that it fails.
        rate: of Poisson sampling.
        steps: of a round.
        rounds: of the run.
        patients: (or images) in a batch, expected.
        accountant: whose epsilon counts.
        where: names site and place, for messages.

    Raises:
        ConfigError: the site has too few patients for that epsilon, over the run or even one round.

    >>> from fedrad.privacy.accountant import rdp_epsilon
    >>> noise = noise_for(8, 1e-5, rate=0.05, steps=20, rounds=30, patients=32,
    ...     accountant="rdp", where="privacy")
    >>> 7.9 < rdp_epsilon([Use(0.05, noise, 600)], 1e-5) <= 8
    True
    """

    def cost(noise: float, count: int, account: Accountant = accountant) -> float:
        use = Use(rate, noise, count)
        # Where PRV's mesh does not fit into memory, epsilon is far from any that is asked for.
        known = account != "prv" or has_prv(use, delta)
        return spend(use, delta, account) if known else inf

    def least(account: Accountant, low: float, high: float) -> float:
        while high > low * _CLOSE:
            middle = (low * high) ** 0.5
            fits = cost(middle, steps * rounds, account) <= epsilon
            low, high = (low, middle) if fits else (middle, high)
        return high

    most = float(max(1, patients))
    if cost(most, steps * rounds) > epsilon:
        raise ConfigError(_too_few(epsilon, cost, most, steps, rounds, patients, where))
    if accountant != "prv":
        return least(accountant, 0.05, most)
    # RDP needs no less noise than PRV and is computed in a hundredth of the time.
    above = least("rdp", 0.05, most) if cost(most, steps * rounds, "rdp") <= epsilon else most
    below = 0.9 * above
    while cost(below, steps * rounds) <= epsilon:
        above, below = below, 0.9 * below
    return least("prv", below, above)


def _too_few(
    epsilon: float,
    cost: Callable[[float, int], float],
    most: float,
    steps: int,
    rounds: int,
    patients: int,
    where: str,
) -> str:
    one = cost(most, steps)
    told = f"{where}: epsilon {epsilon:g}"
    limit = f"noise {most:g}, as much as the {patients} in a batch add up to"
    if one > epsilon:
        return (
            f"{told} is below what one round costs, {one:.3g} at {limit}; "
            "use a larger epsilon or batch, fewer steps, or more patients"
        )
    fit = next(n for n in range(rounds, 0, -1) if cost(most, steps * n) <= epsilon)
    return (
        f"{told} cannot be carried over {rounds} rounds: {cost(most, steps * rounds):.3g} at "
        f"{limit}; {fit} round{'' if fit == 1 else 's'} would fit, or a larger epsilon or batch"
    )
