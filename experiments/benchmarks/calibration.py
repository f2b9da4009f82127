"""Whether fedrad's verdicts and intervals are right as often as they say: tables for the docs.

    python experiments/benchmarks/calibration.py [--quick] [--part rule null coverage trainings]

Runs the functions that make every report (`difference`, `estimate`, `columns`, `triple`) on
experiments whose truth is known. Without `--quick` about half an hour on a core of its own. With
FEDRAD_DATA, `trainings` has the heart disease table too. Every share is followed by its 95 %
interval (Wilson).
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from calibration_coverage import (
    OTHERS,
    arms_of,
    auroc_of_one_site,
    other_of_one_site,
    truth_of,
)
from calibration_null import MIXTURES, null_p
from calibration_trainings import Pair, made_up, pairs, wrong_of
from scipy.stats import t

from fedrad.config.reading import load_experiment
from fedrad.data.sites import federation_of
from fedrad.metrics.intervals import wilson
from fedrad.metrics.mrmc import Variance, critical

SEEDS = (2, 3, 5, 10)
PATIENTS = (30, 100, 300)
SITES = (2, 4, 20)
GAIN = 0.03
REPLICATES = 500
ROUNDS = 5


def share(hits: float, n: int) -> str:
    """Return a share in per cent with Wilson's interval."""
    if not n:
        return "no interval"
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def head(*cells: str) -> None:
    """Print the head of a Markdown table."""
    print()
    row(*cells)
    row(*["---"] * len(cells))


def rule(repeats: int, rng: np.random.Generator) -> None:
    """Print the size of the t test alone, where the patients' share of the variance is known."""
    parts = (0.0, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
    shares = np.linspace(0, 1, 501)
    head("seeds", "rule", *(f"patients {part:.0%}" for part in parts))
    for seeds in SEEDS[:3]:
        edges = [critical(Variance(float(h), float(1 - h), seeds), 0.95) for h in shares]
        sizes: dict[str, list[str]] = {"Satterthwaite": [], "shipped": []}
        for part in parts:
            value = rng.normal(size=repeats)
            training = (1 - part) * rng.chisquare(seeds - 1, repeats) / (seeds - 1)
            total = training + part
            shipped = np.interp(training / total, shares, edges)
            df = total**2 / (training**2 / (seeds - 1))
            for name, edge in (("shipped", shipped), ("Satterthwaite", t.ppf(0.975, df))):
                sizes[name].append(f"{100 * (np.abs(value) > edge * np.sqrt(total)).mean():.1f}")
        for name, cells in sizes.items():
            row(seeds, name, *cells)


def null(
    repeats: int,
    rng: np.random.Generator,
    draws: np.ndarray,
    names: Sequence[int],
    sizes: Sequence[tuple[int, int]],
) -> None:
    """Print how often equal arms are called different, and arms 0.03 apart are found to be so."""
    head(
        "trainings differ in", "sites", "patients", *(f"{s} seeds: wrong %; power %" for s in SEEDS)
    )
    for mixture in (MIXTURES[n] for n in names):
        pooled = {s: np.zeros(2) for s in SEEDS}
        for sites, patients in sizes:
            cells = []
            for seeds in SEEDS:
                p = np.array([
                    null_p(mixture, seeds=seeds, patients=patients, sites=sites, rng=rng,
                           draws=draws, gain=GAIN)
                    for _ in range(repeats)
                ])  # fmt: skip
                p = p[~np.isnan(p[:, 0])]
                wrong, found = (p < 0.05).sum(axis=0)
                pooled[seeds] += wrong, len(p)
                cells.append(f"{share(wrong, len(p))}; {100 * found / len(p):.0f}")
            row(mixture.name, sites, patients, *cells)
        row(mixture.name, "all", "all", *(share(*map(int, pooled[s])) for s in SEEDS))


def _held(found: Iterable[bool | None]) -> str:
    known = [each for each in found if each is not None]
    return share(sum(known), len(known))


def coverage(repeats: int, rng: np.random.Generator, draws: np.ndarray) -> None:
    """Print how often intervals hold the truth."""
    head("AUROC of one site", "patients", "prevalence", "1 image a patient", "3 images a patient")
    for auroc in (0.5, 0.8, 0.95):
        for patients in PATIENTS:
            for prevalence in (0.15, 0.5):
                ill = np.arange(patients) < round(prevalence * patients)
                cells = [
                    _held(
                        auroc_of_one_site(auroc, ill, images, rng, _window(draws, patients, rng))
                        for _ in range(repeats)
                    )
                    if ill.sum() >= 10
                    else "under ten: no interval"
                    for images in (1, 3)
                ]
                row(auroc, patients, prevalence, *cells)
    head("metric of one site", *(f"{n} patients" for n in PATIENTS))
    for name in OTHERS:
        truth = truth_of(name, 0.4, 2.0)
        cells = [
            _held(
                other_of_one_site(name, n, 0.4, 2.0, truth, rng, _window(draws, n, rng))
                for _ in range(repeats // 2)
            )
            for n in PATIENTS
        ]
        row(name, *cells)
    head("AUROC 0.75, 0.80, 0.83", "sites", "patients", "mean", "difference", "at one site",
         "gap closed")  # fmt: skip
    levels = {"local": 0.75, "fedavg": 0.80, "pooled": 0.83}
    for seeds in (1, 2, 5):
        for sites, patients in ((2, 100), (4, 100), (4, 300), (20, 100)):
            found = [
                # With one seed the interval is of these trained models, so none varies.
                arms_of(levels, seeds=seeds, patients=patients, sites=sites, rng=rng, draws=draws,
                        spread=0.05 if seeds > 1 else 0.0)
                for _ in range(repeats // 3)
            ]  # fmt: skip
            cells = [_held(each[key] for each in found) for key in found[0]]
            told = np.mean([each["gap closed"] is not None for each in found])
            cells[-1] += f", told in {told:.0%}"
            row(f"{seeds} seed{'s' if seeds > 1 else ''}", sites, patients, *cells)


def _window(draws: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(0, draws.shape[1] - n))
    return draws[:, start : start + n]


def trainings(count: int, rng: np.random.Generator) -> None:
    """Print how often FedAvg is called better or worse than FedAvg, of trainings that were made."""
    path = Path(__file__).parents[1] / "heart_disease.yaml"
    head("patients", "trainings", *(f"{s} seeds: wrong %" for s in SEEDS))
    generated = load_experiment(path, ["local.batch=32", "seeds=[0]"])
    new = max(1, count // 10)
    _dealt(
        "generated table, new patients for every ten pairs",
        (pairs(generated, made_up(rng), 10, ROUNDS) for _ in range(new)),
        rng,
    )
    root = os.environ.get("FEDRAD_DATA")
    if root is None:
        print("\nheart disease: FEDRAD_DATA names no folder; left out")
        return
    splits = max(1, count // 40)
    tables = (load_experiment(path, [f"split.seed={split}"]) for split in range(splits))
    _dealt(
        "heart disease, a new split for every forty pairs",
        (pairs(one, federation_of(one, Path(root)), 40, ROUNDS) for one in tables),
        rng,
    )


def _dealt(name: str, batches: Iterable[Iterable[Pair]], rng: np.random.Generator) -> None:
    total, played = {s: np.zeros(2, int) for s in SEEDS}, 0
    for batch in batches:
        found = list(batch)
        played += 2 * len(found)
        for seeds in SEEDS:
            total[seeds] += wrong_of(found, seeds, rng)
    row(name, played, *(share(*map(int, total[s])) for s in SEEDS))


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", nargs="+", default=["rule", "null", "coverage", "trainings"])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--mixtures", nargs="+", type=int, default=list(range(len(MIXTURES))))
    parser.add_argument("--sites", nargs="+", type=int, default=list(SITES))
    parser.add_argument("--patients", nargs="+", type=int, default=list(PATIENTS))
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    repeats, count = (60, 40) if asked.quick else (asked.repeats, asked.pairs)
    rng = np.random.default_rng(asked.seed)
    draws = rng.normal(size=(REPLICATES, 5000)).astype(np.float32)
    if "rule" in asked.part:
        rule(100 * repeats, rng)
    if "null" in asked.part:
        sizes = [(sites, patients) for sites in asked.sites for patients in asked.patients]
        null(repeats, rng, draws, asked.mixtures, sizes)
    if "coverage" in asked.part:
        coverage(repeats, rng, draws)
    if "trainings" in asked.part:
        trainings(count, rng)


if __name__ == "__main__":
    main()
