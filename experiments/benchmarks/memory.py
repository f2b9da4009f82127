"""What it costs that glibc gives freed memory back to the system between the steps of training.

    python experiments/benchmarks/memory.py

CPU seconds (not wall time, so that other work on the machine counts little) of steps of SGD in a
process as it starts, and in one that `set_up_process` has set up.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

STEPS = 30
NETS = {"cnn": ("cnn", 64, 32), "resnet18": ("resnet18", 64, 16)}


def steps(name: str, kept: bool) -> dict[str, float]:
    """Return the median CPU milliseconds of a step, and the page faults of one."""
    import torch
    from torch.nn import functional as F

    from fedrad.config import Task
    from fedrad.models import MODELS
    from fedrad.training.optimizers import sgd
    from fedrad.training.process import set_up_process

    torch.set_num_threads(1)
    if kept:
        set_up_process()
    model, side, batch = NETS[name]
    net = MODELS[model](Task(name="binary", labels=("finding",), input=(1, side, side)))
    params = list(net.parameters())
    step = sgd(params, lr=0.01)
    x, y = torch.randn(batch, 1, side, side), torch.rand(batch, 1).round()
    seconds = []
    for number in range(STEPS + 3):
        if number == 3:  # warm
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begun = time.process_time()
        step(torch.autograd.grad(F.binary_cross_entropy_with_logits(net(x), y), params))
        seconds.append(time.process_time() - begun)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"ms": 1000 * statistics.median(seconds[3:]), "faults": faults / STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, how = arguments.child
        print(json.dumps(steps(name, how == "kept")))
        return
    found = {}
    for name in NETS:
        pairs = [(child(name, "plain"), child(name, "kept")) for _ in range(arguments.pairs)]
        plain, kept = (
            statistics.median(one["ms"] for one in side) for side in zip(*pairs, strict=True)
        )
        faults = statistics.median(one["faults"] for one in next(zip(*pairs, strict=True)))
        found[name] = {"plain_ms": plain, "kept_ms": kept, "faults_per_step": faults}
        print(f"{name}: {plain:.1f} -> {kept:.1f} ms CPU a step; {faults:.0f} page faults a step")
    if arguments.json:
        print(json.dumps(found))


def child(name: str, how: str) -> dict[str, float]:
    """Measure in a process of its own: what malloc was told cannot be taken back."""
    command = [sys.executable, __file__, "--child", name, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
