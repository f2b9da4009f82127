"""How often intervals hold the truth, for `calibration.py`: values, differences, gaps closed."""

import numpy as np
from calibration_null import (
    AUROC,
    TASK,
    Array,
    auroc_influence,
    counts_of,
    evidence_of,
    replicates,
)
from numpy.typing import NDArray
from scipy.stats import norm

from fedrad.metrics import METRICS
from fedrad.metrics.base import Metric, sample
from fedrad.metrics.influence import groups_of, influences
from fedrad.report.arm_statistics import columns
from fedrad.report.differences import difference
from fedrad.report.federation_gains import triple

__all__ = ["OTHERS", "arms_of", "auroc_of_one_site", "held", "other_of_one_site", "truth_of"]

Draws = NDArray[np.float32]
OTHERS = ("accuracy", "balanced_accuracy", "auprc", "brier", "loss", "kappa_linear")


def held(found: dict[str, object], truth: float) -> bool | None:
    """Return whether the interval of an estimate holds the truth; None without an interval."""
    low, high = found["low"], found["high"]
    return None if low is None else bool(low <= truth <= high)  # type: ignore[operator]


def auroc_of_one_site(
    auroc: float, ill: NDArray[np.bool_], images: int, rng: np.random.Generator, draws: Draws
) -> bool | None:
    """Return whether the shipped interval of one site's AUROC holds the truth.

    Normal scores; several images of a patient share half of their variance.
    """
    n = len(ill)
    signal = norm.ppf(auroc) * np.sqrt(2)
    shared = rng.normal(size=(n, 1)) * np.sqrt(0.5 if images > 1 else 0)
    own = rng.normal(size=(n, images)) * np.sqrt(0.5 if images > 1 else 1)
    scores = (signal * ill[:, None] + shared + own).reshape(1, -1)
    value, influence = auroc_influence(scores, np.repeat(ill, images))
    # A patient left out takes all images along; first order in what each adds.
    of_patients = influence.reshape(1, n, images).sum(axis=2)
    m, k = int(ill.sum()), int((~ill).sum())
    # From leaving out an image (m * images - 1) to leaving out a patient (m - 1).
    of_patients *= np.where(ill, (m - 1 / images) / (m - 1), (k - 1 / images) / (k - 1))
    row = replicates(value, of_patients, draws)[0]
    cells = {("a", 0): {("global", "s"): {"auroc": row}}}
    evidence = evidence_of(cells, {"s": counts_of(ill)}, arms=("a",))
    return held(dict(evidence.of_cell("a", "global", "s", "auroc")), auroc)


def _scores(
    n: int, rng: np.random.Generator, prevalence: float, signal: float
) -> tuple[Array, Array]:
    ill = rng.random(n) < prevalence
    log_odds = (
        rng.normal(size=n) * 1.5 + signal * (ill - 0.5) + np.log(prevalence / (1 - prevalence))
    )
    return 1 / (1 + np.exp(-log_odds)), ill.astype(np.float64)


def truth_of(name: str, prevalence: float, signal: float) -> float:
    """Return a metric's value on half a million patients."""
    scores, ill = _scores(500_000, np.random.default_rng(0), prevalence, signal)
    return float(_value(METRICS[name](TASK), scores, ill))


def _value(metric: Metric, scores: Array, ill: Array) -> float:
    return float(metric.value(sample(TASK, scores[:, None], ill[:, None]))[0])


def other_of_one_site(
    name: str,
    n: int,
    prevalence: float,
    signal: float,
    truth: float,
    rng: np.random.Generator,
    draws: Draws,
) -> bool | None:
    """Return whether the shipped interval of another metric holds the truth."""
    metric = METRICS[name](TASK)
    scores, ill = _scores(n, rng, prevalence, signal)
    found = sample(TASK, scores[:, None], ill[:, None])
    parts, psi = influences([metric], found, groups_of(np.arange(n)))[name]
    # A difference in a mean of several parts is the mean of its parts' differences.
    value, influence = metric.combine(parts[None])[0], psi.mean(axis=1)
    row = replicates(np.array([value]), influence[None], draws)[0]
    cells = {("a", 0): {("global", "s"): {name: row}}}
    evidence = evidence_of(cells, {"s": counts_of(ill > 0)}, [metric], arms=("a",))
    return held(dict(evidence.of_cell("a", "global", "s", name)), truth)


def arms_of(
    levels: dict[str, float],
    *,
    seeds: int,
    patients: int,
    sites: int,
    rng: np.random.Generator,
    draws: Draws,
    spread: float = 0.05,
) -> dict[str, bool | None]:
    """Return what holds its truth in an experiment of arms with known AUROCs.

    Args:
        levels: arm -> AUROC; local, fedavg and pooled. Every site has the same.
        seeds: trainings of each arm.
        patients: of each site's test set, three in ten ill.
        sites: whose mean is taken.
        rng: of all but the draws.
        draws: as for `null_p`.
        spread: SD of a training's signal around its arm's.

    Returns:
        "mean" of fedavg, "difference" from local, the same "at one site", and the "gap closed".
    """
    cells: dict[tuple[str, int], dict[tuple[str, str], dict[str, Array]]] = {
        (arm, seed): {} for arm in levels for seed in range(seeds)
    }
    signals = [norm.ppf(level) * np.sqrt(2) for level in levels.values() for _ in range(seeds)]
    signal = np.array(signals) + spread * rng.normal(size=len(signals))
    counts = {}
    for site in range(sites):
        name, ill = f"s{site}", np.arange(patients) < round(0.3 * patients)
        scores = signal[:, None] * ill + np.sqrt(0.8) * rng.normal(size=patients)
        scores = scores + np.sqrt(0.2) * rng.normal(size=(len(signals), patients))
        start = int(rng.integers(0, draws.shape[1] - patients))
        found = replicates(*auroc_influence(scores, ill), draws[:, start : start + patients])
        counts[name] = counts_of(ill)
        for run, row in zip(cells, found, strict=True):
            cells[run]["global", name] = {"auroc": row}
    evidence = evidence_of(cells, counts, arms=tuple(levels))
    # The truth is that of a model drawn anew: the mean over the trainings' distribution.
    true = {arm: _expected(level, spread) for arm, level in levels.items()}
    gain, gap = true["fedavg"] - true["local"], true["pooled"] - true["local"]
    names = list(counts)
    mean = columns(evidence, "fedavg", "global")["auroc"]["mean"]
    share = triple(evidence, "fedavg", AUROC, local="local", pooled="pooled")
    assert share is not None
    return {
        "mean": held(mean, true["fedavg"]),
        "difference": held(
            dict(difference(evidence, "auroc", ("fedavg", "local"), names)[0]), gain
        ),
        "at one site": held(
            dict(difference(evidence, "auroc", ("fedavg", "local"), names[:1])[0]), gain
        ),
        "gap closed": held(dict(share["gap_closed"]), gain / gap),
    }


def _expected(level: float, spread: float) -> float:
    signal = norm.ppf(level) * np.sqrt(2) + spread * norm.ppf((np.arange(1000) + 0.5) / 1000)
    return float(norm.cdf(signal / np.sqrt(2)).mean())
