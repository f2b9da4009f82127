"""A small experiment and its sites, made in memory: the seam is the data, all else is real."""

import textwrap
from pathlib import Path

import numpy as np
import torch

from fedrad.config import Experiment, from_text
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.progress import LoggedProgress
from fedrad.runs import RunFolder
from fedrad.simulation.launch import run_local
from fedrad.training.devices.concurrency_modes import ConcurrencyMode

TEXT = """
name: made
task: {name: binary, labels: [lesion], input: [6]}
data: {name: table, csv: made.csv}
model: {name: mlp, hidden: [8]}
local: {epochs: 1, batch: 8, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}
rounds: 4
seeds: [0]
replicates: 100
metrics: [auroc, brier]
arms:
  local: {algorithm: local}
  centralized: {algorithm: centralized}
  fedavg: {algorithm: fedavg}
  fedprox: {algorithm: {name: fedprox, mu: 0.1}}
  tuned: {algorithm: fedavg, wrap: [{name: finetune, rounds: 1}]}
  half: {algorithm: fedavg, wrap: [float16_updates]}
primary: {arm: fedavg, against: local}
"""


PLAIN = from_text(textwrap.dedent(TEXT))


def experiment(**changes: object) -> Experiment:
    """The experiment, with some keys replaced."""
    return Experiment.model_validate(PLAIN.model_dump() | changes)


def site(name: str, images: int, *, shift: float = 0.0, one_class: bool = False) -> SiteData:
    """A site whose label follows the features' sum; images per split as given."""
    rng = np.random.default_rng([len(name), *name.encode()])
    n = 3 * images
    x = (rng.normal(size=(n, 6)) + shift).astype(np.float32)
    y = (x.sum(1, keepdims=True) - 6 * shift + rng.normal(size=(n, 1)) > 0).astype(np.float32)
    if one_class:
        y[:] = 1
    rows = dict(zip(("train", "val", "test"), np.arange(n).reshape(3, images), strict=True))
    return SiteData(name, x, y, np.arange(n, dtype=np.uint64), rows)


def federation(*held_out: str) -> Federation:
    """Three sites of unequal size."""
    found = [site("nord", 40), site("ost", 24, shift=0.5), site("sued", 32, shift=-0.5)]
    return Federation({data.site: data for data in found}, held_out)


class Told(LoggedProgress):
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.rounds: list[tuple[str, int, int]] = []
        self.paces: dict[tuple[str, int, int], str] = {}
        self.stopped: dict[str, str] = {}
        self.skips: list[str] = []
        self.notes: list[str] = []

    def round_done(self, arm: str, seed: int, round: int, **told: object) -> None:
        """Remember a round."""
        self.rounds.append((arm, seed, round))
        self.paces[arm, seed, round] = str(told.get("pace", ""))

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Remember why an arm stopped."""
        self.stopped[arm] = reason

    def skipped(self, arm: str, seed: int) -> None:
        """Remember an arm that was finished before."""
        self.skips.append(arm)

    def note(self, text: str) -> None:
        """Remember a sentence."""
        self.notes.append(text)


def play(
    folder: Path,
    what: Experiment | None = None,
    sites: Federation | None = None,
    arms: list[str] | None = None,
    workers: int = 1,
    profile: bool = False,
    device: str = "cpu",
    way: ConcurrencyMode | None = None,
) -> Told:
    """Play an experiment in process and return what was told."""
    what, sites, told = what or experiment(), sites or federation(), Told()
    names = arms or list(what.arm_names)
    run_local(
        RunSpec(what, names, what.seeds, sites.held_out, RunFolder(folder), told, profile),
        sites,
        torch.device(device),
        workers=workers,
        way=way,
    )
    return told
