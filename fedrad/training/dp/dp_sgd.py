"""DP-SGD at one site: what a gradient step sees, and what is added to it.

Abadi et al., CCS 2016, https://arxiv.org/abs/1607.00133, Algorithm 1, with the patient as the unit:
a step draws each patient with the same chance (Poisson), sums the gradients of a patient's images,
clips that sum, adds up, adds noise, and divides by the images that a step expects.

Released are the weights after the round and counts to the nearest ten. Losses, exact counts and the
optimiser's state stay at the site.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor, nn

from fedrad.data.base import SiteData
from fedrad.errors import ConfigError
from fedrad.privacy.account import Account, Charge
from fedrad.privacy.dp_sgd import Plan
from fedrad.privacy.noise import SecureGenerator
from fedrad.training.batches import Reader
from fedrad.training.dp.ghost_clipping import PerImageLosses, check_per_sample, clipped_sum

__all__ = ["PatientGroup", "Private", "data_digest", "samples", "units_of"]

CORRECTED = (
    "privacy: a correction of the gradients (SCAFFOLD) is not combined with dp_sgd: each site's "
    "correction is made from its noised weights, so the noise of one round would be added to every "
    "later one, and what the correction is for, a drift, is below that noise; use fedprox"
)


@dataclass(frozen=True)
class PatientGroup:
    """One group of whole patients of a step, small enough to be in memory at once.

    Args:
        places: of the images in the training split, int64 [n], sorted by unit.
        unit: int64 [n], from 0 within this group.
    """

    places: np.ndarray
    unit: np.ndarray


@dataclass(frozen=True)
class Private:
    """DP-SGD as one site runs it.

    Args:
        plan: noise, clip and sampling, for the whole run.
        account: is asked before the data are touched; gives the key of samples and noise.
        experiment: its name, for the account.
        digest: of the arm's text, for the account.
    """

    plan: Plan
    account: Account
    experiment: str
    digest: str

    def begin(
        self, data: SiteData, model: nn.Module, *, round: int, steps: int, seed: int
    ) -> bytes:
        """Book so many steps, and return the key of their samples and noise.

        Args:
            data: the site's; nothing of its images is read before the account agrees.
            model: is checked.
            round: from 1.
            steps: about to be taken.
            seed: of a simulation's key.

        Raises:
            ConfigError: the model mixes the images of a batch.
            PrivacyError: the account refuses.
        """
        check_per_sample(model)
        self.account.spend(self.charge(data, round=round, steps=steps))
        return self.account.key(seed)

    def charge(self, data: SiteData, *, round: int, steps: int) -> Charge:
        """Return so many steps as a ledger books them.

        Args:
            data: the site's.
            round: from 1.
            steps: about to be taken.
        """
        return Charge(
            data=data_digest(data),
            experiment=self.experiment,
            digest=self.digest,
            round=round,
            mechanism="dp_sgd",
            unit=self.plan.unit,
            use=self.plan.use(steps),
        )

    def gradient(
        self,
        key: bytes,
        model: nn.Module,
        params: Sequence[Tensor],
        losses: PerImageLosses,
        batches: Callable[[np.ndarray], Iterator[tuple[Tensor, Tensor]]],
    ) -> Callable[[Sequence[PatientGroup]], Sequence[Tensor]]:
        """Return what turns a step's samples into its noised gradient.

        Args:
            key: from `begin`.
            model: in training mode.
            params: those that are trained.
            losses: of each image and finding, 0 where not read.
            batches: places in the split -> (x, y), as many images at once as fit.
        """
        stream = SecureGenerator(key, "noise")
        spread = self.plan.noise * self.plan.clip

        def gradient(step: Sequence[PatientGroup]) -> Sequence[Tensor]:
            sums = [torch.zeros_like(p) for p in params]
            for sample in step:
                part = self._clipped(sample, model, params, losses, batches)
                torch._foreach_add_(sums, list(part))
            if spread:
                for total in sums:
                    noise = torch.from_numpy(stream.normal(total.numel()) * spread)
                    total.add_(noise.to(total).view_as(total))
            return torch._foreach_div(sums, self.plan.images)

        return gradient

    def _clipped(
        self,
        sample: PatientGroup,
        model: nn.Module,
        params: Sequence[Tensor],
        losses: PerImageLosses,
        batches: Callable[[np.ndarray], Iterator[tuple[Tensor, Tensor]]],
    ) -> Sequence[Tensor]:
        """Return the clipped sum of a group; a patient too large for memory comes alone."""
        if len(sample.places) <= self.plan.physical:
            x, y = next(batches(sample.places))
            unit = torch.from_numpy(sample.unit).to(x.device)
            return clipped_sum(model, params, losses, x, y, unit, clip=self.plan.clip)
        total = [torch.zeros_like(p) for p in params]
        for x, y in batches(sample.places):
            part = torch.autograd.grad(losses(model(x), y).sum(), params)
            torch._foreach_add_(total, list(part))
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(total)))
        if not bool(norm.isfinite()):
            return [torch.zeros_like(p) for p in params]
        return torch._foreach_mul(total, (self.plan.clip / norm).clamp(max=1.0))


def mean_losses(losses: PerImageLosses) -> PerImageLosses:
    """Return losses of images, the mean over findings; what was not read counts 0.

    The mean over the labels that were read in a batch, as plain training takes it, would let one
    patient's labels change every other patient's share.
    """

    def of_images(logits: Tensor, y: Tensor) -> Tensor:
        return losses(logits, y).mean(1)

    return of_images


def image_reader(
    read: Reader, prepare: Callable[[Tensor], Tensor], physical: int
) -> Callable[[np.ndarray], Iterator[tuple[Tensor, Tensor]]]:
    """Return what reads the images at some places, so many at once, as a model takes them."""

    def batches(places: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in read(torch.from_numpy(places), physical):
            yield prepare(x), y

    return batches


def units_of(data: SiteData, unit: str) -> np.ndarray:
    """Return of which unit each training image is, int64 [n], from 0."""
    rows = data.rows["train"]
    if unit == "image":
        return np.arange(len(rows))
    return np.unique(data.patient[rows], return_inverse=True)[1].astype(np.int64)


def most_images(data: SiteData) -> int:
    """Return the most training images of one patient; 1 where there are none."""
    rows = data.rows["train"]
    return int(np.unique(data.patient[rows], return_counts=True)[1].max()) if len(rows) else 1


def samples(
    units: np.ndarray, *, rate: float, steps: int, physical: int, key: bytes
) -> Iterator[list[PatientGroup]]:
    """Yield the steps' samples: each unit with the same chance, all of its images with it.

    Args:
        units: int64 [n], of which unit each image is.
        rate: of Poisson sampling.
        steps: how many.
        physical: images of a group at most, but for a unit that has more by itself.
        key: of the draw.

    >>> units = np.array([0, 0, 1, 2])
    >>> [[s.places.tolist() for s in step]
    ...  for step in samples(units, rate=1.0, steps=1, physical=3, key=bytes(32))]
    [[[0, 1, 2], [3]]]
    """
    stream = SecureGenerator(key, "samples")
    order = np.argsort(units, kind="stable")
    starts = np.searchsorted(units[order], np.arange(units.max() + 2))
    for _ in range(steps):
        drawn = stream.chosen(int(units.max()) + 1, rate)
        yield list(_groups([order[starts[u] : starts[u + 1]] for u in drawn], physical))


def _groups(patients: list[np.ndarray], physical: int) -> Iterator[PatientGroup]:
    group: list[np.ndarray] = []
    for images in patients:
        if group and sum(map(len, group)) + len(images) > physical:
            yield _sample(group)
            group = []
        group.append(images)
    if group:
        yield _sample(group)


def _sample(group: list[np.ndarray]) -> PatientGroup:
    lengths = [len(images) for images in group]
    return PatientGroup(np.concatenate(group), np.repeat(np.arange(len(group)), lengths))


def data_digest(data: SiteData) -> str:
    """Return a digest of who trains at a site: another patient or image makes another.

    It is made of hashes of patients and stays in the site's ledger.
    """
    patients = np.sort(data.patient[data.rows["train"]])
    return sha256(np.ascontiguousarray(patients).tobytes()).hexdigest()


def refuse_correction(correction: object) -> None:
    """Refuse SCAFFOLD's correction, with the reason.

    Raises:
        ConfigError: there is one.
    """
    if correction is not None:
        raise ConfigError(CORRECTED)
