"""How much faster a GPU trains many sites together than one after the other.

    python experiments/benchmarks/gpu.py --json

Workloads: 32 sites x 256 images 64x64, `resnet18`, batch 16; 100 sites x 64 images 28x28, `cnn`,
batch 16. Ways: eager (one site after the other, as everywhere), graph (one captured step replayed
for all), streams (eager, several sites at once in threads with a stream and a network each),
stacked (`torch.func`, many sites as one network). Beside them the two bounds: one network trained
with the same batch on as many images, and with a batch as large as those of all sites together.

Images per second of training; medians over turns, ways alternating. Without a CUDA device it says
so and measures nothing. `--device cpu --small` only shows that the script runs.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedrad.config import Task
from fedrad.core.state import State, clone
from fedrad.data.base import SiteData
from fedrad.models import MODELS
from fedrad.training.devices.concurrency_modes import ConcurrencyMode, most_at_once, trainer_of
from fedrad.training.devices.deferred_training import TrainingCall
from fedrad.training.devices.measured_concurrency import at_once
from fedrad.training.local import Fitted, LocalTask

WORKLOADS = {"resnet18": (32, 256, 64, 16), "cnn": (100, 64, 28, 16)}


def sites_of(model: str, device: torch.device, small: bool) -> tuple[list[LocalTask], State]:
    """Return the sites' tasks and the weights that they start from."""
    count, images, side, batch = (2, 32, 32, 16) if small else WORKLOADS[model]
    task = Task(name="binary", labels=("finding",), input=(1, side, side))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count * images, 1, side, side), dtype=np.uint8)
    y = rng.integers(0, 2, (len(x), 1)).astype(np.float32)
    patient, none = np.arange(len(x), dtype=np.uint64), np.arange(0)
    data = [
        SiteData(
            f"s{k}", x, y, patient,
            {"train": np.arange(k * images, (k + 1) * images), "val": none, "test": none},
        )
        for k in range(count)
    ]  # fmt: skip
    torch.manual_seed(0)
    net = MODELS[model](task)
    start = {name: value.to(device) for name, value in clone(net.state_dict()).items()}
    first = LocalTask(
        data[0].site, 0, task, data[0], net.to(device), lambda: start, (),
        {"name": "sgd", "lr": 0.01}, batch, epochs=1, device=device,
    )  # fmt: skip
    return [first.at(one) for one in data], start


def ways_of(tasks: Sequence[LocalTask], start: State) -> dict[str, Callable[[], object]]:
    """Return what trains all sites once, in each way that `fedrad run` chooses from."""
    asked = [TrainingCall(task, start, round=1) for task in tasks]
    possible = [
        way
        for way in ConcurrencyMode
        if way is not ConcurrencyMode.STREAMS or tasks[0].device.type == "cuda"
    ]
    return {
        str(way): partial(at_once, trainer_of(way), asked, most_at_once(way)) for way in possible
    }


def bound(tasks: Sequence[LocalTask], start: State, factor: int) -> Callable[[], list[Fitted]]:
    """One network on all images, with a batch that is so many times as large."""
    rows = np.concatenate([task.data.rows["train"] for task in tasks])
    data = replace(tasks[0].data, rows={**tasks[0].data.rows, "train": rows})
    task = replace(tasks[0], data=data, batch=tasks[0].batch * factor)
    return lambda: [task.fit(start, round=1)]


def matrix_throughput(device: torch.device) -> float:
    """Return the measured teraflops of a large float32 matrix product, as torch is set up."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.randn(size, size, device=device)
    seconds = min(timed(lambda: a @ a, device) for _ in range(5))
    return 2 * size**3 / seconds / 1e12


def teraflops_of(tasks: Sequence[LocalTask], start: State) -> float:
    """Return the arithmetic of training one image, in teraflops, as torch counts it."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        tasks[0].fit(start, round=1)
    return counter.get_total_flops() / tasks[0].examples / 1e12


def timed(way: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    way()
    wait()
    return time.perf_counter() - began


def measure(
    model: str, device: torch.device, turns: int, small: bool
) -> dict[str, float | str | None]:
    """Return images per second of each way, and how many times eager's that is."""
    tasks, start = sites_of(model, device, small)
    images = sum(task.examples for task in tasks)
    ways: dict[str, Callable[[], object]] = {
        **ways_of(tasks, start),
        "single, same batch": bound(tasks, start, 1),
        "single, all sites' batch": bound(tasks, start, len(tasks)),
    }
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            seconds[name].append(timed(way, device))
    speed = {name: images / statistics.median(one) for name, one in seconds.items()}
    peak, flops = matrix_throughput(device), teraflops_of(tasks, start)
    found: dict[str, float | str | None] = {"model": model, "matrix_teraflops": peak}
    for name, value in speed.items():
        found[name] = value
        found[f"{name} / eager"] = value / speed["eager"]
        found[f"{name}, share of matrix throughput"] = value * flops / peak
        print(
            f"{model:9} {name:25} {value:10.0f} images/s, {value / speed['eager']:5.2f} x eager, "
            f"{value * flops / peak:.3f} of the matrix throughput",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing is measured")
    found = [measure(model, device, arguments.turns, arguments.small) for model in WORKLOADS]
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
