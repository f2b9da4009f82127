"""A hospital's account: its ledger, its ceiling, and noise that nobody can foretell."""

from dataclasses import dataclass

from fedrad.errors import PrivacyError
from fedrad.privacy.account import Charge, fresh_key
from fedrad.privacy.accountant import Spend, compose_uses
from fedrad.privacy.ledger import Ledger, Projection

__all__ = ["SiteAccount"]


@dataclass(frozen=True)
class SiteAccount:
    """What a hospital's own process charges training to.

    Args:
        ledger: on the hospital's disk.
        ceiling: the largest epsilon that a patient may spend over all experiments.
        delta: at which the ceiling is meant.

    >>> import tempfile
    >>> from fedrad.privacy.accountant import Use
    >>> charge = Charge("data", "chest", "digest", 1, "dp_sgd", "patient", Use(0.1, 1.0, 20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     account = SiteAccount(Ledger(Path(folder)), ceiling=8.0, delta=1e-5)
    ...     account.spend(charge)
    ...     len(account.ledger.entries())
    1
    """

    ledger: Ledger
    ceiling: float
    delta: float

    def key(self, seed: int) -> bytes:
        """Return 32 bytes of the operating system; a run's seed is known to its coordinator."""
        return fresh_key()

    def spent(self) -> Spend:
        """Return what a patient has spent over all experiments."""
        return compose_uses([entry.charge.use for entry in self.ledger.entries()], self.delta)

    def project(self, charge: Charge) -> Projection:
        """Return what a charge would come to; nothing is written."""
        return self.ledger.project(charge, self.delta)

    def check(self, charge: Charge) -> Projection:
        """Return the projection of a charge, or refuse it; nothing is written.

        Raises:
            PrivacyError: the ceiling would be passed; says what is left.
        """
        found = self.project(charge)
        if found.after.epsilon > self.ceiling:
            raise PrivacyError(
                f"round {charge.round} of {charge.experiment}: a patient would have spent epsilon "
                f"{found.after.epsilon:.3g} ({found.after.accountant}, delta {self.delta:g}), the "
                f"hospital's ceiling is {self.ceiling:g} and {found.before.epsilon:.3g} is spent; "
                "use more noise or fewer steps, or ask the hospital"
            )
        return found

    def spend(self, charge: Charge) -> None:
        """Refuse a charge that would pass the ceiling, or book it.

        Raises:
            PrivacyError: as for `check` and `Ledger.record`.
        """
        self.ledger.record(charge, allow=lambda: self.check(charge))
