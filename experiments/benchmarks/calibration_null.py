"""Made-up experiments whose truth is known, for `calibration.py`: two arms, seeds, sites, patients.

A patient's score is a signal of 0 or `_SIGNAL`, what every model sees in the patient, and what this
one training sees: `dims` directions in which trainings differ. Each direction moves patients (so
seeds and patients interact) and, a little, all the ill ones (so trainings are really better or
worse). Both arms draw their trainings from the same distribution: no arm is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.metrics import METRICS
from fedrad.report.differences import difference
from fedrad.report.evidence import ArmRun, Evidence

__all__ = ["MIXTURES", "Mixture", "auroc_influence", "evidence_of", "null_p"]

Array = NDArray[np.float64]

TASK = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
AUROC = METRICS["auroc"](TASK)
_SIGNAL = 1.19  # AUROC 0.8 of two normal scores
_PREVALENCE = 0.3
_SHARED = 0.5  # of what a training sees: from the initial weights, which both arms of a seed share


@dataclass(frozen=True)
class Mixture:
    """How trainings differ.

    Attributes:
        name: for the table.
        interaction: variance of what one training sees in a patient, of 1 in all.
        seeds: SD, over trainings, of how far the ill are moved: of each model's true accuracy.
        arms: variance of what all trainings of an arm see in a patient and the other arm does not.
        dims: directions in which trainings differ.
    """

    name: str
    interaction: float
    seeds: float
    arms: float = 0.0
    dims: int = 20


MIXTURES = (
    Mixture("patients x seeds", 0.2, 0.0),
    Mixture("both", 0.2, 0.05),
    Mixture("seeds", 0.02, 0.15),
    Mixture("arms see patients differently", 0.1, 0.05, arms=0.1),
)


def auroc_influence(scores: Array, ill: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return the AUROC of scores [models, n] without ties, and the influences [models, n].

    The influence is what the jackknife finds: the value minus that without the patient.
    """
    m, k = int(ill.sum()), int((~ill).sum())
    split = np.concatenate([scores[:, ill], scores[:, ~ill]], axis=1)
    rank = split.argsort(axis=1).argsort(axis=1)
    inner = [part.argsort(axis=1).argsort(axis=1) for part in (split[:, :m], split[:, m:])]
    below = (rank[:, :m] - inner[0]) / k  # share of the negatives below each positive
    above = 1 - (rank[:, m:] - inner[1]) / m
    value = below.mean(axis=1)
    influence = np.empty_like(scores)
    influence[:, ill] = (below - value[:, None]) / max(m - 1, 1)
    influence[:, ~ill] = (above - value[:, None]) / max(k - 1, 1)
    return value, influence


def replicates(value: Array, influence: Array, draws: NDArray[np.float32]) -> Array:
    """Return [models, 1 + b]: the value, then value + the sum of draws times influences.

    Args:
        value: [models].
        influence: [models, n].
        draws: [b, n], standard normal.
    """
    moved = (draws @ influence.T.astype(np.float32)).T
    return np.concatenate([value[:, None], value[:, None] + moved], axis=1)


def evidence_of(
    cells: Mapping[tuple[str, int], Mapping[tuple[str, str], Mapping[str, Array]]],
    counts: Mapping[str, Mapping[str, object]],
    metrics: Sequence[object] = (AUROC,),
    arms: Sequence[str] = ("a", "b"),
) -> Evidence:
    """Return what the report would be computed from.

    Args:
        cells: (arm, seed) -> (model, site) -> metric -> [1 + b].
        counts: site -> counts.
        metrics: those measured.
        arms: all of them.
    """
    runs = [ArmRun(arm, seed, found, counts=counts) for (arm, seed), found in cells.items()]
    kinds = dict.fromkeys(arms, "global")
    return Evidence(runs, kinds, list(counts), [], list(metrics), {}, 0.95)


def counts_of(ill: NDArray[np.bool_]) -> dict[str, object]:
    """Return a site's counts, a single image for each patient."""
    m, k = int(ill.sum()), int((~ill).sum())
    return {
        "images": m + k,
        "patients": m + k,
        "positives": [m],
        "negatives": [k],
        "positive_patients": [m],
        "negative_patients": [k],
    }


def null_p(
    mixture: Mixture,
    *,
    seeds: int,
    patients: int,
    sites: int,
    rng: np.random.Generator,
    draws: NDArray[np.float32],
    gain: float = 0.0,
) -> tuple[float, float]:
    """Return the p value of one made-up experiment without a difference, and of one with it.

    Args:
        mixture: how trainings differ.
        seeds: trainings of each arm.
        patients: of each site's test set.
        sites: whose mean is compared.
        rng: of everything but the draws.
        draws: [b, more than patients]; each site takes others.
        gain: the true difference in AUROC of the second.
    """

    def trained() -> Array:
        return rng.normal(size=(seeds, mixture.dims)) / np.sqrt(mixture.dims)

    shared = trained()
    part = [np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * trained() for _ in "ab"]
    training = np.concatenate(part)  # [2 * seeds, dims], arm by arm
    lift = mixture.seeds * rng.choice([-1.0, 1.0], mixture.dims)
    runs = [(arm, seed) for arm in "ab" for seed in range(seeds)]
    cells: dict[tuple[str, int], dict[tuple[str, str], dict[str, Array]]] = {r: {} for r in runs}
    moved: dict[tuple[str, int], dict[tuple[str, str], dict[str, Array]]] = {r: {} for r in runs}
    counts = {}
    for site in range(sites):
        name, ill = f"s{site}", rng.random(patients) < _PREVALENCE
        ill[:2], ill[2:4] = True, False  # both classes, so that the AUROC is defined
        seen = rng.normal(size=(mixture.dims, patients))
        rest = 1 - mixture.interaction - mixture.arms
        scores = _SIGNAL * ill + np.sqrt(rest) * rng.normal(size=patients)
        scores = scores + np.sqrt(mixture.interaction) * training @ seen
        scores = scores + (training @ lift)[:, None] * ill
        if mixture.arms:
            by_arm = np.sqrt(mixture.arms) * rng.normal(size=(2, patients))
            scores = scores + np.repeat(by_arm, seeds, axis=0)
        start = int(rng.integers(0, draws.shape[1] - patients))
        found = replicates(*auroc_influence(scores, ill), draws[:, start : start + patients])
        counts[name] = counts_of(ill)
        for (arm, seed), row in zip(runs, found, strict=True):
            cells[arm, seed]["global", name] = {"auroc": row}
            moved[arm, seed]["global", name] = {"auroc": row + gain * (arm == "a")}
    names = list(counts)
    return tuple(  # type: ignore[return-value]
        difference(evidence_of(each, counts), "auroc", ("a", "b"), names)[1]
        for each in (cells, moved)
    )
