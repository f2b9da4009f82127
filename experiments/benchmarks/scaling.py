"""What a site more costs: time and memory of 10, 100, 1,000 and 10,000 sites, and a large network.

    python experiments/benchmarks/scaling.py --json

Sites of 16 images 28x28 (1 byte a pixel, 100 different sites' worth that all sites share), the
small CNN, one step a site and round, all sites in every round, two forked workers. Milliseconds per
site of rounds 2 and later should be flat. Memory is that of the server's process alone (its
unshared pages, in the middle of a round), so that what grows with the sites would show.

Then 60 sites of 8 images and a network of 25 million parameters: the peak of all processes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

TEXT = """
name: scaling
task: {{name: multiclass, labels: [a, b, c, d, e, f, g, h, i, j], input: [{input}]}}
data: {{name: phantom}}
model: {model}
local: {{epochs: 1, batch: 16, optimizer: {{name: sgd, lr: 0.01}}}}
algorithm: fedavg
rounds: {rounds}
validate_every: 0
replicates: 0
metrics: [loss]
"""
SITES = (10, 100, 1_000, 10_000)


def play(sites: int, images: int, model: str, shape: tuple[int, ...], rounds: int) -> list[float]:
    """Play a run, and return when its rounds ended."""
    import numpy as np

    from fedrad.config import from_text
    from fedrad.data.base import SiteData
    from fedrad.data.sites import Federation
    from fedrad.rounds import arm_rounds as played
    from fedrad.rounds.progress import LoggedProgress
    from fedrad.runs import Evaluation, RunFolder
    from fedrad.runtimes import Runtime, RuntimeName

    # What is measured is rounds, not the evaluation after the last one.
    played.evaluate_arm = lambda *_, **__: Evaluation({}, {}, {})
    distinct = min(sites, 100)
    rng = np.random.default_rng(0)
    kind = np.uint8 if len(shape) == 3 else np.float32
    x = rng.integers(0, 256, (distinct * images, *shape)).astype(kind)
    y = rng.integers(0, 10, (len(x), 1)).astype(np.float32)
    patient, none = np.arange(len(x), dtype=np.uint64), np.arange(0)
    found = {}
    for number in range(sites):
        at = number % distinct * images
        rows = {"train": np.arange(at, at + images), "val": none, "test": none}
        found[f"s{number:05d}"] = SiteData(f"s{number:05d}", x, y, patient, rows)
    ends: list[float] = []

    class Stamps(LoggedProgress):
        def round_done(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    text = TEXT.format(model=model, rounds=rounds, input=", ".join(map(str, shape)))
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder(Path(out))
        run = played.RunSpec(from_text(text), ["fedavg"], [0], (), folder, Stamps())
        Runtime(RuntimeName.LOCAL, workers=2).run(run, Federation(found, ()), "cpu", None)
    return ends


class Memory(threading.Thread):
    """Peaks in MB, sampled: of this process what it shares with nobody, and the PSS of all."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0.0
        self.start()

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            own = _rollup(os.getpid())
            self.own = max(self.own, own.get("Private_Dirty", 0) + own.get("Private_Clean", 0))
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            every = [own, *(_rollup(int(pid)) for pid in children)]
            self.all = max(self.all, sum(one.get("Pss", 0) for one in every))
            time.sleep(1)


def _rollup(pid: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines}


def child(sites: int, large: bool) -> dict[str, Any]:
    """Measure in this process."""
    memory = Memory()
    if large:
        ends = play(sites, 8, "{name: mlp, hidden: [4096, 4096]}", (1968,), 2)
    else:
        ends = play(sites, 16, "{name: cnn, width: 8}", (1, 28, 28), 3 if sites > 5000 else 5)
    rounds = [later - sooner for sooner, later in pairwise(ends)]
    return {
        "sites": sites,
        "ms_per_site": 1000 * statistics.median(rounds) / sites,
        "server_mb": memory.own,
        "all_mb": memory.all,
    }


def measured(sites: int, *, large: bool = False) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--child", str(sites), *(["--large"] if large else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", nargs="*", type=int, default=SITES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.large)))
        return
    found = []
    for sites in arguments.sites:
        found.append(measured(sites))
        print(
            "{sites:6} sites: {ms_per_site:.2f} ms a site, server's own memory {server_mb:.0f} MB, "
            "all processes {all_mb:.0f} MB".format(**found[-1]),
            flush=True,
        )
    large = measured(60, large=True)
    print("60 sites, 25 M parameters: peak of all processes {all_mb:.0f} MB".format(**large))
    if arguments.json:
        print(json.dumps({"sites": found, "large": large}))


if __name__ == "__main__":
    main()
