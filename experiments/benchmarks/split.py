"""What a cut costs in one process, and what memory a hospital needs for its part.

    python experiments/benchmarks/split.py            # both parts
    python experiments/benchmarks/split.py --memory   # only the memory

1. A training step through a cut (splitfed, both halves in this process) against `LocalTask.fit` of
   the uncut network: same data, same optimiser, same bits. Runs alternate, the ratio of their
   speeds is taken pair by pair; the goal is 0.9.
2. Peak memory of a process that trains the front of a ResNet-50 cut after its stem, and of one that
   trains the whole, batches of 16 images of 224 x 224. Each runs in a process of its own; what
   Python and torch take before any of it is subtracted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrad.algorithms.base import Frame, Request
from fedrad.algorithms.split import CutPlan
from fedrad.algorithms.split_server import ServerHalf
from fedrad.algorithms.split_site import train
from fedrad.assemble import initial_state, local_task, model_of, server_task, site_model_of
from fedrad.config import Experiment, from_text
from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.training.local import LocalTask

TEXT = """
name: split
task: {{name: binary, labels: [lesion], input: [1, {side}, {side}]}}
data: {{name: phantom}}
model: {model}
local: {{steps: {steps}, batch: {batch}, optimizer: {{name: sgd, lr: 0.01, momentum: 0.9}}}}
algorithm: {{name: splitfed, cut: {cut}}}
rounds: 1
metrics: [loss]
"""
WORKLOADS = {
    "cnn 64x64, batch 32, cut after layer1": ("cnn", 64, 32, "layer1", 30),
    "resnet18 64x64, batch 16, cut after layer1": ("resnet18", 64, 16, "layer1", 10),
}


def experiment(model: str, side: int, batch: int, cut: str, steps: int) -> Experiment:
    """Return an experiment of one split arm."""
    text = TEXT.format(model=model, side=side, batch=batch, cut=cut, steps=steps)
    return from_text(text).arm("splitfed")


def site_data(images: int, side: int) -> SiteData:
    """Random images: what is measured is time, not learning."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (images, 1, side, side), dtype=np.uint8)
    y = rng.integers(0, 2, (images, 1)).astype(np.float32)
    rows = {"train": np.arange(images), "val": np.arange(0), "test": np.arange(0)}
    return SiteData("nord", x, y, np.arange(images, dtype=np.uint64), rows)


def speeds(arm: Experiment, pairs: int) -> dict[str, float]:
    """Return the median ratio of speeds, cut over uncut, and steps a second."""
    data = site_data(4 * arm.local.batch, arm.task.input[1])
    cpu = torch.device("cpu")
    start = initial_state(arm, 0)
    whole = local_task(arm, data, model_of(arm), seed=0, device=cpu)
    apart = local_task(arm, data, site_model_of(arm), seed=0, device=cpu)
    times: dict[str, list[float]] = {"uncut": [], "cut": []}
    for _ in range(pairs + 1):
        begun = time.perf_counter()
        fitted = whole.fit(start, round=1).state
        between = time.perf_counter()
        together = split_fit(arm, apart, start)
        times["cut"].append(time.perf_counter() - between)
        times["uncut"].append(between - begun)
        assert all(torch.equal(fitted[name], together[name]) for name in fitted)
    ratios = [u / c for u, c in zip(times["uncut"][1:], times["cut"][1:], strict=True)]
    steps = arm.local.steps or 0
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "uncut_steps_per_second": round(steps / statistics.median(times["uncut"][1:]), 2),
        "cut_steps_per_second": round(steps / statistics.median(times["cut"][1:]), 2),
    }


def split_fit(arm: Experiment, task: LocalTask, start: State) -> State:
    """Return the whole network after a round at one site, trained in two halves."""
    plan = CutPlan(**{k: v for k, v in dict(arm.algorithm).items() if k != "name"})  # type: ignore[arg-type]
    half = ServerHalf(plan, server_task(arm, seed=0, device=torch.device("cpu")), start)
    reply = _talk(train(plan)(Request("nord", 1, {"model": start}, {}, task)), half.answer)
    return {**reply.arrays["model"], **half.state()}


def _talk(site: Generator[Frame, Frame, tuple[Any, Any]], answer: Any) -> Any:
    """Return the site's reply, after it has had an answer to each of its frames."""
    frame = next(site)
    while True:
        try:
            frame = site.send(answer(frame))
        except StopIteration as end:
            return end.value[0]


def memory() -> dict[str, float]:
    """Return the megabytes that training takes beyond the bare imports, the front and the whole."""
    found = {}
    for part in ("bare", "front", "whole"):
        code = [sys.executable, __file__, "--part", part]
        told = subprocess.run(code, capture_output=True, check=True, text=True).stdout
        found[part] = float(json.loads(told)["peak_mb"])
    front, whole = found["front"] - found["bare"], found["whole"] - found["bare"]
    return {
        "bare_mb": round(found["bare"]),
        "front_mb": round(front),
        "whole_mb": round(whole),
        "share": round(front / whole, 3),
    }


def play(part: str) -> None:
    """Train one part in this process for two steps, and print its peak memory."""
    torch.set_num_threads(1)
    arm = experiment("resnet50", 224, 16, "stem", 2)
    if part != "bare":
        data, cpu = site_data(16, 224), torch.device("cpu")
        model = model_of(arm) if part == "whole" else site_model_of(arm)
        task = local_task(arm, data, model, seed=0, device=cpu)
        if part == "whole":
            task.fit(dict(model.state_dict()), round=1)
        else:
            _front(task)
    # Not ru_maxrss: a child inherits its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak_mb": int(peak) / 1024}))


def _front(task: LocalTask) -> None:
    """Play the site's half alone: what the server would answer has the right shape and is zero."""

    def answer(frame: Frame) -> Frame:
        if frame.kind == "forward":
            return Frame("features", {"features": torch.zeros(16, 2048)})
        return Frame("gradients", {"gradients": torch.zeros(16, 64, 56, 56)})

    start = {name: torch.zeros_like(value) for name, value in task.model.state_dict().items()}
    plan = CutPlan("stem")
    _talk(train(plan)(Request("nord", 1, {"model": start}, {}, task)), answer)


def main() -> None:
    """Measure, and print one line of JSON for each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="only the memory")
    parser.add_argument("--part", choices=["bare", "front", "whole"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        play(given.part)
        return
    torch.set_num_threads(1)
    for name, options in [] if given.memory else WORKLOADS.items():
        print(json.dumps({"workload": name} | speeds(experiment(*options), given.pairs)))
    print(json.dumps({"workload": "resnet50 224x224, batch 16, cut after stem"} | memory()))


if __name__ == "__main__":
    main()
