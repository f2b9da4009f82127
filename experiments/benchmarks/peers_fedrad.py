r"""fedrad as one of the simulators that the peers' harness compares: same work, same bytes.

    python $PEERS/measure.py --workload S --label fedrad_local -- \
        python $PWD/experiments/benchmarks/peers_fedrad.py local

`$PEERS` is the folder with `common.py` (network, data, batches, what is written down) and the other
simulators' scripts. What runs here is `fedrad run` with two workers: its loop, optimiser, exchange
and records of every round. Only the last evaluation is left out, as it is everywhere.
With `--channels-last` the experiment says `local: {channels_last: true}`.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from fedrad.core.gc_tuning import raise_gc_threshold


def main() -> None:
    raise_gc_threshold()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime", choices=["local", "ray"])
    parser.add_argument("--channels-last", action="store_true")
    asked = parser.parse_args()
    from fedrad.runtimes import Runtime, RuntimeName
    from fedrad.simulation.ray import cluster

    # Ray's processes import it, and know the network and the batches.
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    cluster._PRELOADED.append("peers_site")
    runtime = Runtime(RuntimeName(asked.runtime), workers=2)
    with runtime.started() as began, tempfile.TemporaryDirectory() as folder:
        play(runtime, asked.channels_last, Path(folder), began)


def play(runtime: Any, channels_last: bool, folder: Path, began: Any) -> None:
    import numpy as np
    import peers_site  # noqa: F401 - its import is what it does
    from common import DATA_DIR, NUM_CLASSES, mark, save_final, workload

    from fedrad.config import from_text
    from fedrad.core.store import load_bundle
    from fedrad.data.base import SiteData
    from fedrad.data.sites import Federation
    from fedrad.rounds import arm_rounds as rounds
    from fedrad.rounds.progress import LoggedProgress
    from fedrad.runs import Evaluation, RunFolder

    mark("imported")
    work = workload()
    rounds.evaluate_arm = lambda *_, **__: Evaluation({}, {}, {})
    labels = ", ".join(f"c{number}" for number in range(NUM_CLASSES))
    experiment = from_text(f"""
name: peers
task: {{name: multiclass, labels: [{labels}], input: [1, {work.side}, {work.side}]}}
data: {{name: phantom}}
model: peer
local:
  epochs: {work.local_epochs}
  batch: {work.batch}
  optimizer: {{name: sgd, lr: {work.lr}}}
  channels_last: {str(channels_last).lower()}
algorithm: fedavg
rounds: {work.rounds}
sites_per_round: {work.sampled}
validate_every: 0
replicates: 0
metrics: [loss]
""")
    x = np.load(DATA_DIR / work.name / "x.npy", mmap_mode="r")
    y = np.load(DATA_DIR / work.name / "y.npy")
    y, patient, none = y[:, None].astype(np.float32), np.arange(len(y), dtype=np.uint64), y[:0]
    sites = {}
    for number in range(work.sites):
        name = f"site-{number:03d}"
        train = np.arange(number * work.per_site, (number + 1) * work.per_site)
        sites[name] = SiteData(name, x, y, patient, {"train": train, "val": none, "test": none})
    place = RunFolder(folder / "run")
    told = rounds.RunSpec(experiment, ["fedavg"], [0], (), place, LoggedProgress())
    runtime.run(told, Federation(sites, ()), "cpu", began)
    mark("server_done")
    save_final(load_bundle(place.arm("fedavg", 0).path / "state.safetensors")["model"])


if __name__ == "__main__":
    main()
