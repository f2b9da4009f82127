"""Rooms for Ray's actors: a cluster's CPUs, or one of its GPUs, which a few actors share.

How many actors a GPU holds is measured. Each begins with one; after that one's first training it
is known what an actor takes at its highest, and as many more are started as fit beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fedrad.errors import MissingError
from fedrad.training.devices.measured_concurrency import sites_that_fit

__all__ = [
    "START_S",
    "GpuMemory",
    "Placement",
    "Placements",
    "nodes",
    "plan_placement",
    "read_gpu_memory",
]

START_S = 120.0
"""So long a cluster may take to give what is asked of it."""


@dataclass(frozen=True)
class GpuMemory:
    """What an actor reads off its GPU after it trained.

    Args:
        free: bytes that nobody uses.
        taken: bytes that the actor took at its highest, with CUDA's own. What others take of the
            GPU counts too, since nobody tells it apart.
    """

    free: int
    taken: int

    def fit(self, most: int) -> int:
        """Return how many actors like this one fit, this one included.

        >>> GpuMemory(free=10_000, taken=1_500).fit(most=16)
        6
        """
        return sites_that_fit(self.free + self.taken, self.taken, most)


def read_gpu_memory(device: torch.device) -> GpuMemory | None:
    """Return what this process reads off its device; None of a CPU, of which torch counts nothing.

    To be asked while no other process of ours is on the device.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return GpuMemory(free, others + torch.cuda.max_memory_reserved(device))


@dataclass(eq=False)
class Placement:
    """A place for actors.

    Args:
        options: Ray's, of an actor that is put there.
        most: actors, as far as is known.
        first: actors to begin with.
        measured: whether `most` is what was measured, or asked for.
    """

    options: dict[str, Any]
    most: int
    first: int
    measured: bool = True


@dataclass(frozen=True)
class Placements:
    """All rooms of a run.

    Args:
        each: one or more.
        close: gives back what was reserved of the cluster.
    """

    each: list[Placement] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


def plan_placement(device: torch.device, count: int, *, measure: bool) -> Placements:
    """Return where so many actors go.

    Args:
        device: "cpu" or "cuda".
        count: actors, at most.
        measure: begin with one a GPU, until it is known how many fit.

    Raises:
        MissingError: there is no GPU, or others have all of them.
    """
    if device.type == "cpu":
        return Placements([Placement({"num_cpus": 1}, count, count)])
    resources: list[dict[str, float]] = [node["Resources"] for node in nodes()]
    with_gpus = [node for node in resources if node.get("GPU", 0) >= 1]
    gpus = sum(int(node["GPU"]) for node in with_gpus)
    if device.type != "cuda" or not gpus:
        raise MissingError(f"--device {device}: no node of the Ray cluster has one")
    used = min(gpus, count)
    cpus = min(int(node.get("CPU", 0)) // int(node["GPU"]) for node in with_gpus)
    most = max(1, min(-(-count // used), cpus))
    # A bundle has a GPU to itself, so that no actor's share of one is two halves of two.
    group = placement_group([{"GPU": 1, "CPU": most}] * used)
    if not group.wait(START_S):
        remove_placement_group(group)
        raise MissingError(
            f"--device cuda: the Ray cluster did not give {used} GPUs with {most} CPUs each "
            f"within {START_S:g} s; others use them"
        )

    def room(place: int) -> Placement:
        where = PlacementGroupSchedulingStrategy(group, place)
        options = {"num_cpus": 1, "num_gpus": 1 / most, "scheduling_strategy": where}
        known = most == 1 or not measure
        return Placement(options, most, most if known else 1, known)

    return Placements([room(place) for place in range(used)], lambda: remove_placement_group(group))


def nodes() -> list[dict[str, Any]]:
    """Return what Ray knows of each node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
