"""What the in-process runtime costs on top of a bare PyTorch loop.

    python experiments/benchmarks/overhead.py

Both do the same steps on the same data in the same process: FedAvg, one local epoch of SGD a
round, batches in the same order. The bare loop is what one would write by hand with `torch.optim`.
fedrad goes through Flower's ServerApp, ClientApp and Message, and keeps every round on the disk.

Runs alternate (bare, fedrad, bare, fedrad, ...), and the ratio is taken pair by pair. Round 1 is
left out: both warm up in it.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fedrad.assemble import initial_state, model_of
from fedrad.config import Experiment, from_text
from fedrad.core import seeds
from fedrad.core.state import State
from fedrad.core.store import load_bundle
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.progress import LoggedProgress
from fedrad.runs import RunFolder
from fedrad.simulation.launch import run_local

TEXT = """
name: overhead
task: {{name: binary, labels: [lesion], input: [1, {side}, {side}]}}
data: {{name: phantom}}
model: {model}
local: {{epochs: 1, batch: {batch}, optimizer: {{name: sgd, lr: 0.02}}}}
algorithm: fedavg
rounds: {rounds}
validate_every: 0
replicates: 0
metrics: [loss]
"""
WORKLOADS = {
    "20 sites x 256 images 28x28, cnn": (20, 256, 28, "{name: cnn, width: 8}", 32, 6),
    "8 sites x 128 images 64x64, resnet18": (8, 128, 64, "resnet18", 16, 3),
    "100 sites x 16 images 28x28, cnn": (100, 16, 28, "{name: cnn, width: 8}", 16, 8),
}


def federation_of(sites: int, images: int, side: int) -> Federation:
    """Random images: what is measured is time, not learning."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (sites * images, 1, side, side), dtype=np.uint8)
    y = rng.integers(0, 2, (len(x), 1)).astype(np.float32)
    patient = np.arange(len(x), dtype=np.uint64)
    none = np.arange(0)
    found = {
        f"site-{k:03d}": SiteData(
            f"site-{k:03d}", x, y, patient,
            {"train": np.arange(k * images, (k + 1) * images), "val": none, "test": np.arange(2)},
        )
        for k in range(sites)
    }  # fmt: skip
    return Federation(found, ())


def bare(experiment: Experiment, federation: Federation) -> tuple[list[float], State]:
    """FedAvg by hand: seconds of each round, and the final weights."""
    local = experiment.local
    model = model_of(experiment)
    common = initial_state(experiment, 0)
    seconds = []
    for number in range(1, experiment.rounds + 1):
        start = time.perf_counter()
        total: State = {}
        images = 0
        for site, data in sorted(federation.sites.items()):
            model.load_state_dict(common)
            model.train()
            optimizer = torch.optim.SGD(model.parameters(), lr=local.optimizer["lr"])
            for x, y in batches(data, local.batch, number, site):
                optimizer.zero_grad(set_to_none=True)
                F.binary_cross_entropy_with_logits(model(x), y).backward()
                optimizer.step()
            n = data.images("train")
            images += n
            for name, value in model.state_dict().items():
                total[name] = total[name] + value * n if name in total else value * n
        common = {name: value / images for name, value in total.items()}
        seconds.append(time.perf_counter() - start)
    return seconds, common


def batches(
    data: SiteData, batch: int, number: int, site: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches in the order in which fedrad draws them."""
    generator = torch.Generator().manual_seed(seeds.seed(0, site, number, "shuffle"))
    rows = data.rows["train"]
    for index in torch.randperm(len(rows), generator=generator).split(batch):
        take = rows[index.numpy()]
        x = torch.from_numpy(data.x[take]).float() / 255
        yield (x - 0.5) / 0.25, torch.from_numpy(data.y[take])


def fedrad(experiment: Experiment, federation: Federation) -> tuple[list[float], State]:
    """The same through fedrad's in-process runtime."""
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder(Path(out))
        stamps = Stamps()
        play = RunSpec(experiment, experiment.arm_names, [0], (), folder, stamps)
        run_local(play, federation, torch.device("cpu"))
        state = load_bundle(folder.arm("fedavg", 0).path / "state.safetensors")["model"]
        return [b - a for a, b in pairwise(stamps.times)], state


class Stamps(LoggedProgress):
    """The times at which rounds begin and end, writing to disk included."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Note when round 1 begins."""
        self.times.append(time.perf_counter())

    def round_done(self, *_: object, **__: object) -> None:
        """Note when a round ends."""
        self.times.append(time.perf_counter())


def measure(name: str, pairs: int) -> dict[str, float | str]:
    """Return medians of one workload, and the largest difference of the final weights."""
    sites, images, side, model, batch, rounds = WORKLOADS[name]
    text = TEXT.format(side=side, model=model, batch=batch, rounds=rounds)
    experiment, federation = from_text(text), federation_of(sites, images, side)
    ratios, ours, theirs, apart = [], [], [], 0.0
    for _ in range(pairs):
        plain, common = bare(experiment, federation)
        own, state = fedrad(experiment, federation)
        theirs.append(statistics.median(plain[1:]))
        ours.append(statistics.median(own[1:]))
        ratios.append(theirs[-1] / ours[-1])
        apart = max(apart, max(float((common[k] - v).abs().max()) for k, v in state.items()))
    cost = statistics.median(o - t for o, t in zip(ours, theirs, strict=True))
    return {
        "workload": name,
        "bare_s_per_round": statistics.median(theirs),
        "fedrad_s_per_round": statistics.median(ours),
        "speed_of_bare": statistics.median(ratios),
        "extra_ms_per_site_and_round": 1000 * cost / sites,
        "largest_weight_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = []
    for name in WORKLOADS:
        one = measure(name, arguments.pairs)
        found.append(one)
        print(
            f"{one['workload']}: bare {one['bare_s_per_round']:.3f} s/round, "
            f"fedrad {one['fedrad_s_per_round']:.3f}, speed {one['speed_of_bare']:.3f} of bare, "
            f"{one['extra_ms_per_site_and_round']:+.2f} ms per site and round, "
            f"weights differ by at most {one['largest_weight_difference']:.1e}",
            flush=True,
        )
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
