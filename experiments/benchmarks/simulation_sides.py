"""The sides that `simulation.py` compares; each is started by it in a process of its own.

python simulation_sides.py floor S|M|N <folder of data> <where to write what was found>
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F
from workloads import WORKLOADS, Workload, batches, held_out_loss, read_data, sampled, start_of

State = dict[str, Tensor]


class Trainer:
    """The floor's: one network that is used again; loads a vector, trains, returns a vector."""

    def __init__(self, work: Workload, folder: Path) -> None:
        self.work = work
        self.model = start_of(work)
        self.params = list(self.model.parameters())
        self.x, self.y = read_data(work, folder, "train")

    def get(self) -> Tensor:
        """The weights as one vector."""
        return torch.cat([p.detach().reshape(-1) for p in self.params])

    def set(self, vector: Tensor) -> None:
        """Take the weights from a vector."""
        at = 0
        with torch.no_grad():
            for p in self.params:
                p.copy_(vector[at : at + p.numel()].view(p.shape))
                at += p.numel()

    def train(self, common: Tensor, number: int, site: int) -> Tensor:
        """One epoch at a site from the common weights; what they become."""
        self.set(common)
        rows = slice(site * self.work.images, (site + 1) * self.work.images)
        x, y = (torch.from_numpy(np.array(one[rows])) for one in (self.x, self.y))
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.work.lr)
        self.model.train()
        for batch, classes in batches(self.work, x, y, number, site):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(self.model(batch), classes).backward()
            optimizer.step()
        return self.get()


def floor(work: Workload, folder: Path) -> tuple[dict[str, Any], State]:
    """FedAvg with two forked workers and nothing else."""
    torch.set_num_threads(1)
    context = mp.get_context("fork")  # torch is imported once, then inherited
    trainer = Trainer(work, folder)
    common = trainer.get().share_memory_()
    part = torch.zeros(2, common.numel()).share_memory_()
    first = torch.full((2,), torch.inf, dtype=torch.double).share_memory_()
    tasks, done = context.SimpleQueue(), context.SimpleQueue()

    def worker(rank: int) -> None:
        torch.set_num_threads(1)
        while (job := tasks.get()) is not None:
            first[rank] = min(float(first[rank]), time.time())
            part[rank] += trainer.train(common, *job)
            done.put(rank)

    workers = [context.Process(target=worker, args=(rank,), daemon=True) for rank in range(2)]
    for one in workers:
        one.start()
    ends = []
    for number in range(1, work.rounds + 1):
        sites = sampled(work, number)
        part.zero_()
        for site in sites:
            tasks.put((number, site))
        for _ in sites:
            done.get()
        torch.sum(part, 0, out=common)
        common /= len(sites)
        ends.append(time.time())
    for _ in workers:
        tasks.put(None)
    for one in workers:
        one.join()
    trainer.set(common)
    return {"first": first.min().item(), "round_ends": ends}, trainer.model.state_dict()


def fedrad(
    runtime: str, work: Workload, folder: Path, out: Path, began: Any
) -> tuple[dict[str, Any], State]:
    """The same by `fedrad run`'s runtimes, every round kept on the disk."""
    from workloads import register

    from fedrad.config import from_text
    from fedrad.core.store import load_bundle
    from fedrad.rounds import arm_rounds as rounds
    from fedrad.rounds.progress import LoggedProgress
    from fedrad.runs import Evaluation, RunFolder
    from fedrad.runtimes import Runtime, RuntimeName

    register()
    # The floor evaluates nothing, so the evaluation after the last round is left out here too.
    rounds.evaluate_arm = lambda *_, **__: Evaluation({}, {}, {})
    ends: list[float] = []

    class Stamps(LoggedProgress):
        def round_done(self, *_: object, **__: object) -> None:
            ends.append(time.time())

    place = RunFolder(out.with_suffix(""))
    play = rounds.RunSpec(
        from_text(work.text()), ["fedavg"], [0], (), place, Stamps(), profile=True
    )
    Runtime(RuntimeName(runtime), workers=2).run(play, sites_of(work, folder), "cpu", began)
    profile = json.loads((place.path / "profile.json").read_text(encoding="utf-8"))
    told = {"first": profile["first_training"], "round_ends": ends, "profile": profile}
    told["efficiency"] = profile["efficiency"]
    return told, load_bundle(place.arm("fedavg", 0).path / "state.safetensors")["model"]


def sites_of(work: Workload, folder: Path) -> Any:
    """The sites as fedrad holds them: rows of one mapped file."""
    from fedrad.data.base import SiteData
    from fedrad.data.sites import Federation

    x, y = read_data(work, folder, "train")
    y, patient, none = y[:, None].astype(np.float32), np.arange(len(y), dtype=np.uint64), y[:0]
    sites = {}
    for number, name in enumerate(work.names):
        train = np.arange(number * work.images, (number + 1) * work.images)
        sites[name] = SiteData(name, x, y, patient, {"train": train, "val": none, "test": none})
    return Federation(sites, ())


def main(began: Any = None) -> None:
    """Play one side.

    Args:
        began: a Ray cluster that has begun to start, for the side "ray" (`simulation_fedrad.py`).
    """
    runtime, name, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    work = WORKLOADS[name]
    if runtime == "floor":
        told, state = floor(work, folder)
    else:
        told, state = fedrad(runtime, work, folder, out, began)
    told["ended"] = time.time()
    told["loss"] = held_out_loss(work, folder, state)
    told["state"] = str(out.with_suffix(".pt"))
    torch.save(state, told["state"])
    out.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
