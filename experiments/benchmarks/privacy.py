# python experiments/benchmarks/privacy.py [--repeats 7] [--models cnn resnet18]
"""What DP-SGD costs beside a plain step: time as paired ratios, and peak memory; and the ledger.

One thread, batch 32, one image a patient, 64 x 64 pixels. The ways are timed in turn within each
repeat, so that a busy machine slows them alike; told is the median ratio to the plain step. Peak
memory is that of a process of its own for each way, above the process before its first step. All
ways include clipping; ours and Opacus' also the noise and the optimiser's step.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.models import MODELS
from fedrad.privacy.account import Charge
from fedrad.privacy.accountant import Use
from fedrad.privacy.ledger import Ledger
from fedrad.privacy.noise import SecureGenerator
from fedrad.registry import build
from fedrad.training.dp.ghost_clipping import clipped_sum
from fedrad.training.objective import objective
from fedrad.training.optimizers import sgd

BATCH, SIDE, NOISE, CLIP = 32, 64, 1.0, 1.0
TASK = Task(name="binary", labels=("abnormal",), input=(1, SIDE, SIDE))
Step = Callable[[], None]


def drawn(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = build(MODELS, name, TASK, where="model").train()
    return model, torch.randn(BATCH, *TASK.input), torch.randint(0, 2, (BATCH, 1)).float()


def plain(name: str) -> Step:
    model, x, y = drawn(name)
    params, loss = list(model.parameters()), objective(TASK).loss
    step = sgd(params, lr=0.01)
    return lambda: step(torch.autograd.grad(loss(model(x), y), params))


def ours(name: str, *, ghost: bool) -> Step:
    model, x, y = drawn(name)
    params, losses = list(model.parameters()), objective(TASK).losses
    step, stream, unit = (
        sgd(params, lr=0.01),
        SecureGenerator(bytes(32), "noise"),
        torch.arange(BATCH),
    )

    def run() -> None:
        sums = clipped_sum(
            model, params, lambda a, b: losses(a, b).mean(1), x, y, unit, clip=CLIP, ghost=ghost
        )
        for total in sums:
            noise = torch.from_numpy(stream.normal(total.numel()) * (NOISE * CLIP))
            total.add_(noise.to(total).view_as(total))
        step(torch._foreach_div(sums, BATCH))

    return run


def opacus(name: str, *, ghost: bool) -> Step:
    from opacus import PrivacyEngine

    model, x, y = drawn(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    criterion = nn.BCEWithLogitsLoss()
    made = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        criterion=criterion,
        data_loader=data,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        poisson_sampling=False,
        grad_sample_mode="ghost" if ghost else "hooks",
    )
    private, optimizer = made[0], made[1]
    criterion = made[2] if ghost else criterion

    def run() -> None:
        optimizer.zero_grad()
        criterion(private(x), y).backward()
        optimizer.step()

    return run


WAYS: dict[str, Callable[[str], Step]] = {
    "plain": plain,
    "fedrad": lambda name: ours(name, ghost=True),
    "fedrad, no ghost": lambda name: ours(name, ghost=False),
    "opacus": lambda name: opacus(name, ghost=False),
    "opacus, ghost": lambda name: opacus(name, ghost=True),
}


def timed(step: Step, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def times(name: str, repeats: int) -> None:
    steps = {way: make(name) for way, make in WAYS.items()}
    count = 10 if name in ("cnn", "mlp") else 1
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(repeats):
        for way, step in steps.items():
            found[way].append(timed(step, count))
    for way, seconds in found.items():
        ratios = [s / p for s, p in zip(seconds, found["plain"], strict=True)]
        told = f"{median(ratios):5.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:9} {way:17} {1000 * median(seconds):8.1f} ms  {told}  {memory(name, way)} MB")


def memory(name: str, way: str) -> int:
    """Return the megabytes that a few steps add to a process of their own."""
    command = [sys.executable, __file__, "--memory-of", name, way]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(found.stdout)


def print_memory(name: str, way: str) -> None:
    step = WAYS[way](name)
    # Resets the peak (man 5 proc); getrusage would tell the parent's from before the exec.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(2):
        step()
    print((resident("VmHWM") - before) // 1024)


def resident(kind: str) -> int:
    """Return kilobytes from the kernel's own account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1])


def ledger(entries: int = 10_000) -> None:
    def charge(n: int) -> Charge:
        # A hundred experiments of a hundred rounds, no two with the same noise.
        use = Use(0.05, 1.0 + n // 100 / 50, 20)
        return Charge("d" * 64, "chest", "e" * 64, n, "dp_sgd", "patient", use)

    with tempfile.TemporaryDirectory() as folder:
        book = Ledger(Path(folder))
        start = time.perf_counter()
        for n in range(entries):
            book.record(charge(n))
        wrote = (time.perf_counter() - start) / entries
        start = time.perf_counter()
        opened = Ledger(Path(folder))
        read = time.perf_counter() - start
        start = time.perf_counter()
        opened.project(charge(0), 1e-5)
        projected = time.perf_counter() - start
    found = {"entries": entries, "open_s": read, "project_s": projected, "record_s": wrote}
    print("ledger   ", json.dumps({k: round(v, 4) for k, v in found.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=["cnn", "resnet18"])
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "WAY"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory_of:
        print_memory(*asked.memory_of)
        return
    for name in asked.models:
        times(name, asked.repeats)
    ledger()


if __name__ == "__main__":
    main()
