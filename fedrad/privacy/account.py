"""Who pays for a use of noise, and who knows the noise: a simulation, or a hospital."""

import secrets
from dataclasses import dataclass
from typing import Protocol

from fedrad.privacy.accountant import Use

__all__ = ["Account", "Charge", "Simulated"]


@dataclass(frozen=True)
class Charge:
    """One use of a mechanism on a site's data, before it happens.

    Args:
        data: digest of the data set.
        experiment: its name.
        digest: of the arm's text.
        round: of the run.
        mechanism: "dp_sgd".
        unit: "patient" or "image".
        use: rate, noise and steps.
    """

    data: str
    experiment: str
    digest: str
    round: int
    mechanism: str
    unit: str
    use: Use


class Account(Protocol):
    """What training asks before it touches the data."""

    def key(self, seed: int) -> bytes:
        """Return 32 bytes from which samples and noise are drawn."""

    def spend(self, charge: Charge) -> None:
        """Book a charge, or refuse it by raising; nothing has been read yet."""


class Simulated:
    """The account of a simulation: no ceiling, and noise that can be repeated.

    Its noise follows from the run's seed, so whoever has the experiment's YAML can take it off
    again: the weights of a simulation are not private.

    >>> Simulated().key(7) == Simulated().key(7)
    True
    """

    def key(self, seed: int) -> bytes:
        """Return the seed's own bytes."""
        return seed.to_bytes(32, "big")

    def spend(self, charge: Charge) -> None:
        """Book nothing: a simulated site is no one's hospital."""


def fresh_key() -> bytes:
    """Return 32 bytes of the operating system, which are never written down."""
    return secrets.token_bytes(32)
