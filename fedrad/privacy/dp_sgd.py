"""DP-SGD as an experiment asks for it, and what that comes to at a site of a given size.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: "Deep Learning with Differential Privacy",
CCS 2016, https://arxiv.org/abs/1607.00133, Algorithm 1, with the patient as the unit.
"""

from dataclasses import asdict, dataclass
from math import ceil, inf, isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from fedrad.errors import ConfigError
from fedrad.privacy.accountant import Accountant, Use, delta_for, for_group, rdp_epsilon, spend
from fedrad.privacy.noise_multiplier import noise_for

__all__ = ["DpSgdConfig", "Plan", "Unit", "dp_sgd", "no_privacy", "rounded"]

Unit = Literal["patient", "image"]

_PLACE = "privacy"


@dataclass(frozen=True)
class DpSgdConfig:
    """DP-SGD as it stands in the experiment; arguments as for `dp_sgd`."""

    epsilon: float | None
    noise: float | None
    delta: float | Literal["auto"]
    clip: float
    unit: Unit
    accountant: Accountant
    physical: int


@dataclass(frozen=True)
class Plan:
    """DP-SGD at one site, over the whole run.

    Args:
        unit: what is sampled and clipped as one.
        clip: the largest norm of a unit's gradient.
        noise: standard deviation of the noise, in `clip`.
        rate: each unit's chance to be in a step.
        images: expected in a step; the sum of gradients is divided by it.
        steps: of a round.
        rounds: of the run.
        delta: epsilon holds but for this chance.
        epsilon: of the whole run, for one unit; infinite without noise.
        rdp: the same by the looser account.
        accountant: where epsilon comes from.
        units: most units of one patient: 1, or the most images where the unit is the image.
        physical: images in memory at once.
    """

    unit: Unit
    clip: float
    noise: float
    rate: float
    images: float
    steps: int
    rounds: int
    delta: float
    epsilon: float
    rdp: float
    accountant: Accountant
    units: int
    physical: int

    def use(self, steps: int) -> Use:
        """Return so many steps, as an accountant and a ledger take them."""
        return Use(self.rate, self.noise, steps, self.units)

    def for_patient(self) -> tuple[float, float]:
        """Return (epsilon, delta) of a patient: by group privacy where the unit is the image."""
        if self.units == 1 or not isfinite(self.epsilon):
            return self.epsilon, self.delta
        by_group = for_group(self.epsilon, self.delta, self.units)
        # The mixture's bound keeps delta; that of any group multiplies it.
        mixed = rdp_epsilon([self.use(self.steps * self.rounds)], self.delta)
        return by_group if by_group[0] < mixed and by_group[1] < 0.01 else (mixed, self.delta)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an infinite epsilon is None."""
        epsilon, delta = self.for_patient()
        told = asdict(self) | {"patient_epsilon": epsilon, "patient_delta": delta}
        return {
            key: None if isinstance(value, float) and not isfinite(value) else value
            for key, value in told.items()
        }


def dp_sgd(
    *,
    epsilon: PositiveFloat | None = None,
    noise: Annotated[float, Field(ge=0)] | None = None,
    delta: PositiveFloat | Literal["auto"] = "auto",
    clip: PositiveFloat = 1.0,
    unit: Unit = "patient",
    accountant: Accountant = "prv",
    physical: Annotated[int, Field(gt=0)] = 64,
) -> DpSgdConfig:
    """Return DP-SGD: Poisson samples of patients, each one's gradient clipped, noise added.

    Exactly one of epsilon and noise is set.

    Args:
        epsilon: of each site's whole run, all rounds and local steps; the noise is solved for it.
        noise: the noise multiplier; sites then differ in epsilon, small ones pay more.
        delta: auto is a tenth of a patient's share, and 1e-5 at most.
        clip: the largest L2 norm of a patient's summed gradient.
        unit: what epsilon protects: all of a patient's images, or a single image.
        accountant: prv, rdp (looser), or gaussian (exact; for batches of all patients only).
        physical: images in memory at once; changes no result but by rounding.

    Raises:
        ConfigError: both or none of epsilon and noise.

    >>> dp_sgd(epsilon=8).unit
    'patient'
    """
    if (epsilon is None) == (noise is None):
        found = "neither" if epsilon is None else "both"
        raise ConfigError(f"{_PLACE}: set one of epsilon and noise, found {found}")
    return DpSgdConfig(epsilon, noise, delta, clip, unit, accountant, physical)


def no_privacy() -> None:
    """Return nothing: an arm without differential privacy, where the base has it."""


def rounded(count: int) -> int:
    """Return a count as it may be told: to the nearest ten, ten at least if there is any.

    This is the only number of patients or images that the mechanism uses and that leaves a site.
    It is taken as known to everyone; epsilon does not cover it.

    >>> rounded(0), rounded(3), rounded(523)
    (0, 10, 520)
    """
    return max(10, 10 * ((count + 5) // 10)) if count else 0


def plan(
    asked: DpSgdConfig,
    *,
    site: str,
    images: int,
    patients: int,
    most_images: int,
    batch: int,
    steps: int,
    rounds: int,
) -> Plan:
    """Return what DP-SGD comes to at a site.

    Args:
        asked: as the experiment says.
        site: for messages.
        images: that train; rounded here.
        patients: who train; rounded here.
        most_images: of one patient.
        batch: images expected in a step.
        steps: of a round.
        rounds: of the run.

    Raises:
        ConfigError: the site cannot carry epsilon, delta does not fit, or the accountant does not.
    """
    where = f"{site}: {_PLACE}"
    images, patients = rounded(images), rounded(patients)
    rate = min(1.0, batch / max(1, images))
    delta = delta_for(asked.delta, patients, where=where)
    if asked.accountant == "gaussian" and rate < 1:
        spend(Use(rate, 1.0, 1), delta, "gaussian")
    count = images if asked.unit == "image" else patients
    noise = asked.noise
    if noise is None:
        noise = noise_for(
            asked.epsilon or 0.0,
            delta,
            rate=rate,
            steps=steps,
            rounds=rounds,
            patients=ceil(rate * count),
            accountant=asked.accountant,
            where=where,
        )
    use = Use(rate, noise, steps * rounds)
    return Plan(
        unit=asked.unit,
        clip=asked.clip,
        noise=noise,
        rate=rate,
        images=rate * images,
        steps=steps,
        rounds=rounds,
        delta=delta,
        epsilon=spend(use, delta, asked.accountant) if noise else inf,
        rdp=rdp_epsilon([use], delta) if noise else inf,
        accountant=asked.accountant,
        units=most_images if asked.unit == "image" else 1,
        physical=asked.physical,
    )
