"""A federation of function calls: the seam at which algorithms are tested, without Flower."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from fedrad.algorithms.base import Algorithm, Reply, Request
from fedrad.config import Task
from fedrad.core.state import Bundle, Mean, State, clone
from fedrad.data.base import SiteData
from fedrad.training.local import LocalTask

TASK = Task(name="binary", labels=("lesion",), input=(5,))


def site_data(name: str, images: int, *, seed: int = 0, shift: float = 0.0) -> SiteData:
    """A site with a table of five features; every split holds `images` rows."""
    rng = np.random.default_rng([seed, *name.encode()])
    n = 3 * images
    x = (rng.normal(size=(n, 5)) + shift).astype(np.float32)
    y = (x.sum(1, keepdims=True) + rng.normal(size=(n, 1)) > 0).astype(np.float32)
    rows = np.arange(n).reshape(3, images)
    return SiteData(
        name,
        x,
        y,
        np.arange(n, dtype=np.uint64),
        dict(zip(("train", "val", "test"), rows, strict=True)),
    )


def net() -> nn.Module:
    """A small net with a hidden layer, the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))


def task_of(data: SiteData, **changes: object) -> LocalTask:
    """A task with defaults of its own: one epoch of batches of four, plain SGD."""
    model = net()
    start = clone(model.state_dict())
    options: dict = {"optimizer": {"name": "sgd", "lr": 0.1}, "batch": 4, "epochs": 1} | changes
    return LocalTask(
        site=data.site, seed=0, task=TASK, data=data, model=model,
        initial=lambda: start, statistics=(), **options,
    )  # fmt: skip


@dataclass
class Calls:
    """`Sites` by plain calls; memories live in a dict."""

    algorithm: Algorithm
    tasks: Mapping[str, LocalTask]
    rounds: int
    memories: dict[str, Bundle] = field(default_factory=dict)
    number: int = 0
    seen: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.tasks))

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        for site in self.names:
            memory = self.memories.get(site, {})
            request = Request(site, self.number, send, memory, self.tasks[site])
            reply, self.memories[site] = self.algorithm.handlers[action](request)
            self.seen.append(action)
            yield site, reply

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        mean, numbers = Mean(), {}
        for _, reply in self.gather(action, send):
            mean.add(reply.arrays, reply.numbers[weight])
            numbers = {k: numbers.get(k, 0.0) + v for k, v in reply.numbers.items()}
        return Reply(mean.value(), numbers)


def run_rounds(
    algorithm: Algorithm, tasks: Mapping[str, LocalTask], rounds: int
) -> tuple[Bundle, dict[str, Bundle]]:
    """Play rounds and return the server's last state and the sites' memories."""
    start: State = next(iter(tasks.values())).initial()
    calls = Calls(algorithm, tasks, rounds)
    state = algorithm.init(start)
    for number in range(1, rounds + 1):
        calls.number = number
        state = algorithm.round(state, number, calls)
    return state, calls.memories
