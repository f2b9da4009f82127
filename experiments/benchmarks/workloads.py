"""The three workloads of `simulation.py`: images, networks and batches, for fedrad and the floor.

| | network | sites | images a site | batch | rounds | sites a round |
|---|---|---|---|---|---|---|
| S | CNN 8-16, 26,698 parameters | 20 | 256 of 1x28x28 | 32 | 10 | 20 |
| M | ResNet-18, GroupNorm, 11,175,370 parameters | 8 | 128 of 1x64x64 | 16 | 3 | 8 |
| N | the CNN | 500 | 16 of 1x28x28 | 16 | 3 | 100 |

All: FedAvg, one local epoch of plain SGD, float32, ten classes. fedrad lays the CNN out with
channels last, as a user can say in the YAML: its max pooling takes half the time then. The floor
does not. Importing this makes the networks known to fedrad where fedrad has been imported, also in
Ray's processes.
"""

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrad.core import seeds

CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """One simulation: network, sites, images a site, side in pixels, budget."""

    name: str
    model: str
    sites: int
    images: int
    side: int
    batch: int
    rounds: int
    sampled: int
    lr: float
    channels_last: bool

    @property
    def names(self) -> list[str]:
        """The sites, sorted."""
        return [f"site-{number:03d}" for number in range(self.sites)]

    def text(self) -> str:
        """The experiment that fedrad plays."""
        labels = ", ".join(f"c{number}" for number in range(CLASSES))
        return f"""
name: {self.name}
task: {{name: multiclass, labels: [{labels}], input: [1, {self.side}, {self.side}]}}
data: {{name: phantom}}
model: {self.model}
local:
  epochs: 1
  batch: {self.batch}
  optimizer: {{name: sgd, lr: {self.lr}}}
  channels_last: {str(self.channels_last).lower()}
algorithm: fedavg
rounds: {self.rounds}
sites_per_round: {self.sampled}
validate_every: 0
replicates: 0
metrics: [loss]
"""


WORKLOADS = {
    "S": Workload("S", "bench_cnn", 20, 256, 28, 32, 10, 20, 0.05, True),
    "M": Workload("M", "bench_resnet", 8, 128, 64, 16, 3, 8, 0.02, False),
    "N": Workload("N", "bench_cnn", 500, 16, 28, 16, 3, 100, 0.05, True),
}


class SmallCNN(nn.Module):
    """conv 8 -> conv 16 -> 32 -> 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 7 * 7, 32)
        self.fc2 = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 28, 28] -> [n, 10]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    """Two convolutions and what goes past them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.na = nn.GroupNorm(8, after)
        self.b = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.nb = nn.GroupNorm(8, after)
        self.skip: nn.Module | None = None
        if stride != 1 or before != after:
            self.skip = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(8, after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / stride, w / stride]."""
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        return F.relu(y + (x if self.skip is None else self.skip(x)))


class SmallResNet(nn.Module):
    """ResNet-18's layout, one input channel, GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 64, 7, 2, 3, bias=False),
            nn.GroupNorm(8, 64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks, before = [], 64
        for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [Block(before, after, stride), Block(after, after, 1)]
            before = after
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] -> [n, 10]."""
        return self.head(self.body(self.stem(x)).mean((2, 3)))


BUILDERS: dict[str, Any] = {"bench_cnn": SmallCNN, "bench_resnet": SmallResNet}


def start_of(work: Workload) -> nn.Module:
    """The network with the weights that every run starts from."""
    torch.manual_seed(seeds.seed(0, "", 0, "init"))
    net: nn.Module = BUILDERS[work.model]()
    return net


def write_data(work: Workload, folder: Path) -> None:
    """Write the sites' images and 1,000 held-out ones: a class's pattern and noise."""
    rng = np.random.default_rng(20240)
    cells = 7 if work.side % 7 == 0 else 8  # blocky, so convolutions see it
    patterns = rng.normal(size=(CLASSES, 1, cells, cells)).astype(np.float32)
    patterns = np.kron(patterns, np.ones((work.side // cells, work.side // cells)))
    for part, count in (("train", work.sites * work.images), ("test", 1000)):
        y = rng.integers(0, CLASSES, size=count)
        x = 1.2 * patterns[y] + rng.normal(size=(count, 1, work.side, work.side))
        np.save(folder / f"{work.name}-x-{part}.npy", x.astype(np.float32))
        np.save(folder / f"{work.name}-y-{part}.npy", y.astype(np.int64))


def read_data(work: Workload, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Map images [n, 1, h, w] float32 and read classes [n] int64."""
    x = np.load(folder / f"{work.name}-x-{part}.npy", mmap_mode="r")
    return x, np.load(folder / f"{work.name}-y-{part}.npy")


def sampled(work: Workload, number: int) -> list[int]:
    """The sites of a round, those that fedrad draws."""
    if work.sampled == work.sites:
        return list(range(work.sites))
    draw = random.Random(seeds.seed(0, "", number, "participants"))
    return sorted(work.names.index(name) for name in draw.sample(work.names, work.sampled))


def batches(
    work: Workload, x: Tensor, y: Tensor, number: int, site: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a site's batches in the order in which fedrad draws them."""
    seed = seeds.seed(0, work.names[site], number, "shuffle")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    yield from zip(x[order].split(work.batch), y[order].split(work.batch), strict=True)


def held_out_loss(work: Workload, folder: Path, state: dict[str, Tensor]) -> float:
    """The mean cross-entropy on the held-out images."""
    net: nn.Module = BUILDERS[work.model]()
    net.load_state_dict(state)
    x, y = (torch.from_numpy(np.array(one)) for one in read_data(work, folder, "test"))
    with torch.no_grad():
        out = torch.cat([net(part) for part in x.split(100)])
    return F.cross_entropy(out, y).item()


def register() -> None:
    """Make the networks known to fedrad's table."""
    from fedrad.models import MODELS

    for name, build in BUILDERS.items():
        MODELS.setdefault(name, lambda task, build=build: build())  # type: ignore[attr-defined]


if "fedrad.assemble" in sys.modules or os.environ.get("FEDRAD_BENCHMARK_RAY"):
    register()
