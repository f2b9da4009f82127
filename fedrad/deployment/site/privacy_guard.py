"""What a hospital's guard asks the ledger before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from fedrad.config import Experiment
from fedrad.data.base import SiteData
from fedrad.privacy.accountant import compose_uses
from fedrad.privacy.site_account import SiteAccount
from fedrad.training.dp.private_arm import private_at

__all__ = ["GuardLedger"]

TOLD = frozenset({"describe", "test", "tune", "validate"})
"""Actions that tell of validation and test patients, or of a model that others made."""


@dataclass(frozen=True)
class GuardLedger:
    """The hospital's account, as its guard sees it; projecting writes nothing.

    The entry itself is written by training, before the data are touched.

    Args:
        account: ledger and ceiling.
        data: an experiment -> the hospital's own data.
    """

    account: SiteAccount
    data: Callable[[Experiment], SiteData]

    def project(self, arm: Experiment, *, seed: int, round: int, action: str) -> float:
        """Return the epsilon that a training patient would have spent after an action.

        Infinite where what leaves tells of training patients and is not differentially private.
        Epsilon does not cover validation and test patients, whose sums of errors are exact.

        Args:
            arm: the experiment as the arm sees it.
            seed: of the run; each seed is a run of its own and is charged for itself.
            round: from 1.
            action: that is asked for.
        """
        data = self.data(arm)
        private = private_at(arm, data, self.account)
        if action in TOLD or (action == "share" and private is not None):
            return self.account.spent().epsilon
        if private is None or action == "count":
            return inf
        charge = private.charge(data, round=round, steps=private.plan.steps)
        return self.account.project(charge).after.epsilon

    def project_run(self, arms: Sequence[Experiment], *, seeds: int) -> float:
        """Return the epsilon that a training patient would have spent after whole arms of a run.

        Rounds of them that are booked already count once: a run that goes on has only the rest of
        its rounds before it. Of which seed a booked round was, no entry says.

        Args:
            arms: the experiment as each arm sees it; those without privacy add nothing here.
            seeds: how often each is trained.
        """
        booked = [entry.charge for entry in self.account.ledger.entries()]
        uses = [charge.use for charge in booked]
        for arm in arms:
            data = self.data(arm)
            private = private_at(arm, data, self.account)
            if private is None:
                continue
            whole, digest = arm.rounds * seeds, arm.digest()
            left = whole - sum(charge.digest == digest for charge in booked) % whole
            use = private.charge(data, round=1, steps=private.plan.steps).use
            uses.append(replace(use, steps=use.steps * left))
        return compose_uses(uses, self.account.delta).epsilon
