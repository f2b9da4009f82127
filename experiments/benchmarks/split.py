"""What a cut costs in one process and across hospitals, and what memory a hospital needs.

    python experiments/benchmarks/split.py                # all parts
    python experiments/benchmarks/split.py --only memory  # steps, memory or sites

1. A training step through a cut (splitfed, both halves in this process) against `LocalTask.fit` of
   the uncut network: same data, same optimiser, same bits. Runs alternate, the ratio of their
   speeds is taken pair by pair; the goal is 0.9.
2. Peak memory of a process that trains the front of a ResNet-50 cut after its stem, and of one that
   trains the whole, batches of 16 images of 224 x 224. Each runs in a process of its own; what
   Python and torch take before any of it is subtracted.
3. Batches a second of splitfed version 1 across two hospitals (a SuperLink, two SuperNodes, streams
   with TLS, each process with one thread) against the same run in one process; the goal is 0.7.
   Both end with the same bits. Only training counts: from a round's first opened stream to the last
   site's reply, as the hospitals' audit logs say, and what a round takes in one process. Runs
   alternate, the first round of each is left out. Rounds are long: one site's message may come a
   second after the other's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fedrad.algorithms.base import Frame, Request
from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.algorithms.split.server import ServerHalf
from fedrad.algorithms.split.site import train
from fedrad.assemble import initial_state, local_task, model_of, server_task, site_model_of
from fedrad.config import Experiment, from_text, load_experiment
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
STEPS = 150
SITES = ("nord", "sued")
ACROSS = f"""
task: {{name: binary, labels: [lesion], input: [1, 64, 64]}}
model: cnn
local: {{steps: {STEPS}, batch: 32, optimizer: {{name: sgd, lr: 0.01, momentum: 0.9}}}}
rounds: 3
metrics: [loss]
primary: null
arms: {{splitfed: {{algorithm: {{name: splitfed, version: 1, cut: layer1}}}}}}
"""


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


def across_sites(pairs: int) -> dict[str, float]:
    """Return the median ratio of batches a second, two hospitals over one process, and both."""
    # Of the tests: it needs pytest's folders on the path, and nothing else here does.
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "federation"))
    from deployed import Deployed, same_weights

    paces: dict[str, list[float]] = {"hospitals": [], "one_process": []}
    with tempfile.TemporaryDirectory() as folder:
        federation = Deployed(Path(folder), SITES)
        for site in SITES:
            federation.allow_split(site)
        federation.start()
        try:
            for pair in range(pairs):
                text = yaml.safe_load(ACROSS)
                file = federation.variant(federation.split, name=f"pair{pair}", **text)
                alone = federation.local(f"local{pair}", file=file)
                federation.run(f"grpc{pair}", file=file)
                if federation.wait(f"grpc{pair}"):
                    sys.exit(federation.log(f"grpc{pair}"))
                assert same_weights(alone, federation.folder / f"grpc{pair}", "splitfed")
                paces["one_process"].append(_pace(_rounds(alone)))
                paces["hospitals"].append(_pace(_visits(federation, file)))
        finally:
            federation.stop()
    ratios = [h / p for h, p in zip(paces["hospitals"], paces["one_process"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
    } | {f"{name}_batches_per_second": round(statistics.median(v), 1) for name, v in paces.items()}


def _pace(seconds: list[float]) -> float:
    """Return batches a second of the median round, of all but the first."""
    return len(SITES) * STEPS / statistics.median(seconds[1:])


def _rounds(folder: Path) -> list[float]:
    """Return the seconds of each round of a run in one process."""
    path = folder / "splitfed" / "seed-0" / "rounds.jsonl"
    return [json.loads(line)["seconds"] for line in path.read_text().splitlines()]


def _visits(federation: Any, file: Path) -> list[float]:
    """Return the seconds from the first stream's begin to the last site's reply, by round."""
    digest = load_experiment(file, []).digest()
    times: dict[int, dict[str, list[datetime]]] = {}
    for site in SITES:
        for line in federation.audit(site):
            if (line["experiment"], line["action"]) == (digest, "fit"):
                told = times.setdefault(line["round"], {})
                told.setdefault(line["decision"], []).append(datetime.fromisoformat(line["time"]))
    return [
        (max(told["sent"]) - min(told["opened"])).total_seconds()
        for _, told in sorted(times.items())
    ]


def main() -> None:
    """Measure, and print one line of JSON for each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=["steps", "memory", "sites"])
    parser.add_argument("--part", choices=["bare", "front", "whole"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        play(given.part)
        return
    torch.set_num_threads(1)
    for name, options in WORKLOADS.items() if given.only in (None, "steps") else ():
        print(json.dumps({"workload": name} | speeds(experiment(*options), given.pairs)))
    if given.only in (None, "memory"):
        print(json.dumps({"workload": "resnet50 224x224, batch 16, cut after stem"} | memory()))
    if given.only in (None, "sites"):
        name = "splitfed 1, cnn 64x64, batch 32, cut after layer1, 2 hospitals over gRPC"
        print(json.dumps({"workload": name} | across_sites(given.pairs)))


if __name__ == "__main__":
    main()
