"""How fast many sites are simulated on one machine, against a loop without any framework.

    python experiments/benchmarks/simulation.py --json

Workloads S, M and N are in `workloads.py`. The floor is FedAvg by hand: two forked workers, a
shared vector of weights, `torch.optim`. Runs alternate (floor, local, ray, floor, ...), each in a
process of its own, and ratios are taken within a turn. The final weights must agree: the largest
difference and the loss on 1,000 held-out images are printed. The floor adds up replies as they
come, so that its own runs differ too: its line says by how much. Evaluation is left out of all.

wall: from the start of the process until the final weights are there and its workers have ended.
steady: median seconds of rounds 2 and later. start: until
the first site begins its first step. PSS: peak memory of all processes, shared pages shared out.
foreign: cores used by others meanwhile; take no figure from a run above 0.35.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
Found = dict[str, float]


def run(what: str, work: str, folder: Path) -> Found:
    """Run one side in a process of its own and watch it from outside."""
    mark = uuid.uuid4().hex
    environment = os.environ | {
        "FEDRAD_BENCHMARK_RUN": mark,
        "FEDRAD_BENCHMARK_RAY": "1" if what == "ray" else "",
        "PYTHONPATH": str(HERE),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    out = folder / f"{mark}.json"
    script = "simulation_sides.py" if what == "floor" else "simulation_fedrad.py"
    command = [sys.executable, str(HERE / script), what, work, str(folder), str(out)]
    watch, busy, began = Watch(mark), busy_seconds(), time.time()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        watch.look()
        time.sleep(0.5)
    wall = time.time() - began
    if process.returncode:
        raise RuntimeError(f"{what} {work} failed: {process.communicate()[1][-2000:]}")
    told = json.loads(out.read_text(encoding="utf-8"))
    ends = told["round_ends"]
    steady = [later - sooner for sooner, later in pairwise(ends)]
    own = watch.seconds()
    return {
        "wall_s": told["ended"] - began,
        "steady_s": statistics.median(steady),
        "start_s": told["first"] - began,
        "pss_mb": watch.peak / 1e6,
        "foreign": max(0.0, (busy_seconds() - busy - own) / wall),
        "loss": told["loss"],
        "efficiency": told.get("efficiency", float("nan")),
        "state": told["state"],
    }


class Watch:
    """Memory and CPU time of all processes that carry a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self.needle = f"FEDRAD_BENCHMARK_RUN={mark}".encode()
        self.peak = 0.0
        self._seconds: dict[str, float] = {}

    def look(self) -> None:
        """Take a sample."""
        total = 0
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                total += self._one(place)
        self.peak = max(self.peak, total)

    def _one(self, place: Path) -> int:
        try:
            if self.needle not in (place / "environ").read_bytes():
                return 0
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            self._seconds[place.name] = (int(fields[11]) + int(fields[12])) / TICKS
            rollup = (place / "smaps_rollup").read_text()
        except OSError:
            return 0  # it has ended
        return next(int(l.split()[1]) for l in rollup.splitlines() if l.startswith("Pss:")) * 1024  # noqa: E741

    def seconds(self) -> float:
        """CPU time as last seen; what a process did in its last half second is missing."""
        return sum(self._seconds.values())


def busy_seconds() -> float:
    """CPU time of the whole machine, but idle and waiting."""
    fields = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / TICKS


def measure(work: str, sides: list[str], turns: int, folder: Path) -> dict[str, Any]:
    """Return the medians of one workload, and each side's ratios to the floor of the same turn."""
    from workloads import WORKLOADS, write_data

    write_data(WORKLOADS[work], folder)
    runs: dict[str, list[Found]] = {side: [] for side in sides}
    apart: dict[str, float] = {}
    for _ in range(turns):
        for side in sides:
            runs[side].append(run(side, work, folder))
            apart[side] = max(apart.get(side, 0), largest_difference(runs, side))
    found: dict[str, Any] = {"workload": work}
    for side, own in runs.items():
        keys = ("wall_s", "steady_s", "start_s", "pss_mb", "foreign", "loss", "efficiency")
        medians: dict[str, Any] = {k: statistics.median(one[k] for one in own) for k in keys}
        for key in ("wall_s", "steady_s"):
            pairs = zip(own, runs["floor"], strict=True)
            medians[f"{key[:-2]}_ratio"] = statistics.median(a[key] / b[key] for a, b in pairs)
        found[side] = medians | {"largest_weight_difference": apart[side]}
        print(line(work, side, found[side]), flush=True)
    return found


def largest_difference(runs: dict[str, list[Found]], side: str) -> float:
    """Return how far the last run's weights are from the floor's; its own, from its first run's."""
    import torch

    other = runs["floor"][0 if side == "floor" else -1]
    one, floor = (torch.load(str(run["state"])) for run in (runs[side][-1], other))
    return max(float((one[key] - value).abs().max()) for key, value in floor.items())


def line(work: str, side: str, found: dict[str, Any]) -> str:
    """Return one line of figures."""
    return (
        f"{work} {side:5}: wall {found['wall_s']:6.2f} s ({found['wall_ratio']:.2f} of the floor), "
        f"steady {found['steady_s']:.3f} s/round ({found['steady_ratio']:.2f}), "
        f"start {found['start_s']:.2f} s, PSS {found['pss_mb']:.0f} MB, loss {found['loss']:.5f}, "
        f"weights differ by at most {found['largest_weight_difference']:.1e}, "
        f"training {found['efficiency']:.2f}, foreign {found['foreign']:.2f} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", default=["S", "M", "N"])
    parser.add_argument("--runtimes", nargs="*", default=["local", "ray"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as folder:
        sides = ["floor", *arguments.runtimes]
        found = [
            measure(work, sides, arguments.turns, Path(folder)) for work in arguments.workloads
        ]
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
