"""Real trainings whose truth is known, for `calibration.py`: FedAvg against FedAvg.

Both arms of a seed start from the same weights and shuffle differently, at four sites that fedrad
trains with its own code; then two, three, five or ten such pairs are an experiment without any
difference to be found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from calibration_null import AUROC, Array, auroc_influence, counts_of, evidence_of, replicates
from numpy.typing import NDArray

from fedrad.assemble import initial_state, local_task, model_of
from fedrad.config import Experiment
from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.report.differences import difference
from fedrad.training.evaluate import predict
from fedrad.training.local import LocalTask

__all__ = ["Pair", "made_up", "pairs", "wrong_of"]

CPU = torch.device("cpu")

# Site -> (scores [2, n] of both arms, who is ill), of one seed.
Pair = dict[str, tuple[Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class MadeUp:
    """Sites as `pairs` needs them."""

    sites: Mapping[str, SiteData]
    training: tuple[str, ...]


def made_up(rng: np.random.Generator, *, train: int = 64, test: int = 100) -> MadeUp:
    """Return four sites with a generated table of ten features, new patients at every call."""
    effect = rng.normal(size=10) / np.sqrt(10)
    sites = {}
    for number in range(4):
        n = train + test
        x = (rng.normal(size=(n, 10)) + 0.3 * rng.normal(size=10)).astype(np.float32)
        y = (x @ effect + rng.normal(size=n) > 0).astype(np.float32)[:, None]
        order = np.arange(n)
        rows = {"train": order[:train], "val": order[:0], "test": order[train:]}
        name = f"s{number}"
        sites[name] = SiteData(name, x, y, order.astype(np.uint64), rows)
    return MadeUp(sites, tuple(sites))


def pairs(
    experiment: Experiment, federation: Federation | MadeUp, count: int, rounds: int
) -> Iterator[Pair]:
    """Yield, for each of so many seeds, site -> (scores [2, n] of both arms, who is ill)."""
    arm = experiment.arm("fedavg")
    model = model_of(arm)
    for seed in range(count):
        start = initial_state(arm, seed)
        found = []
        for shuffles in (seed, seed + 1_000_000):
            tasks = [
                local_task(arm, federation.sites[site], model, seed=shuffles, device=CPU)
                for site in federation.training
            ]
            state = _fedavg(tasks, start, rounds)
            found.append({task.site: _scores(task, state) for task in tasks})
        yield {
            site: (np.stack([one[site][0] for one in found]), found[0][site][1])
            for site in federation.training
        }


def _fedavg(tasks: list[LocalTask], start: State, rounds: int) -> State:
    whole, state = sum(task.examples for task in tasks), start
    for number in range(1, rounds + 1):
        parts = [(task.examples / whole, task.fit(state, round=number).state) for task in tasks]
        state = {
            name: torch.stack([share * part[name] for share, part in parts]).sum(0)
            for name in state
        }
    return state


def _scores(task: LocalTask, state: State) -> tuple[Array, NDArray[np.bool_]]:
    task.model.load_state_dict(state)
    scores, y = predict(task.model, task.data, "test", task.objective, device=task.device)
    return scores[:, 0], np.asarray(y[:, 0] > 0.5)


def wrong_of(
    found: list[Pair],
    seeds: int,
    rng: np.random.Generator,
    replicate: int = 1000,
) -> tuple[int, int]:
    """Return (wrong verdicts, experiments) when pairs are dealt out, so many to an experiment."""
    order = rng.permutation(len(found))
    wrong = experiments = 0
    for start in range(0, len(order) - seeds + 1, seeds):
        drawn = [found[i] for i in order[start : start + seeds]]
        cells: dict[tuple[str, int], dict[tuple[str, str], dict[str, Array]]] = {
            (arm, seed): {} for arm in "ab" for seed in range(seeds)
        }
        counts = {}
        for site in drawn[0]:
            ill = drawn[0][site][1]
            scores = np.concatenate([[one[site][0][arm] for one in drawn] for arm in (0, 1)])
            normal = rng.normal(size=(replicate, len(ill))).astype(np.float32)
            rows = replicates(*auroc_influence(scores, ill), normal)
            counts[site] = counts_of(ill)
            for run, row in zip(cells, rows, strict=True):
                cells[run]["global", site] = {AUROC.name: row}
        p = difference(evidence_of(cells, counts), AUROC.name, ("a", "b"), list(counts))[1]
        wrong, experiments = wrong + bool(p < 0.05), experiments + (p == p)
    return wrong, experiments
