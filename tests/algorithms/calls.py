"""A federation of function calls: the seam at which algorithms are tested, without Flower."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from fedrad.algorithms.base import Algorithm, Frame, Reply, Request, StreamHandler
from fedrad.algorithms.split.site import split_evaluation as split_evaluation
from fedrad.config import Task
from fedrad.core.state import Bundle, Mean, State, clone
from fedrad.data.base import SiteData
from fedrad.training.local import LocalTask
from fedrad.training.server import ServerTask

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
        initial=lambda: start, metrics=(), **options,
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
    frames: list[tuple[str, Frame]] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

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

    @property
    def server(self) -> ServerTask:
        """The server computes as the first site does."""
        one = next(iter(self.tasks.values()))
        return ServerTask(one.seed, one.task, lambda: one.model, one.optimizer, one.clip)

    def note(self, key: str, value: object) -> None:
        self.notes[key] = value

    @contextmanager
    def stream(self, action: str, send: Mapping[str, Bundle]) -> Iterator["Calling"]:
        table: dict[str, StreamHandler] = dict(self.algorithm.streams)
        if self.algorithm.cut:
            table |= split_evaluation(self.algorithm.cut, 0)
        self.seen.append(action)
        yield Calling(self, {site: table[action] for site in sorted(send)}, send)

    def average(
        self, replies: Iterable[tuple[str, Reply]], *, weight: str = "num-examples"
    ) -> Reply:
        mean = Mean()
        for _, reply in sorted(replies, key=lambda one: one[0]):
            mean.add(reply.arrays, reply.numbers[weight])
        return Reply(mean.value())

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        mean, numbers = Mean(), {}
        for _, reply in self.gather(action, send):
            mean.add(reply.arrays, reply.numbers[weight])
            numbers = {k: numbers.get(k, 0.0) + v for k, v in reply.numbers.items()}
        return Reply(mean.value(), numbers)


class Calling:
    """`Streams` by plain calls; every frame is kept for whoever wants to look at it."""

    def __init__(
        self, calls: Calls, table: Mapping[str, StreamHandler], send: Mapping[str, Bundle]
    ) -> None:
        self.names = tuple(table)
        self._streams = {}
        for site, handler in table.items():
            memory = calls.memories.get(site, {})
            request = Request(site, calls.number, send[site], memory, calls.tasks[site])
            self._streams[site] = OneCall(site, calls, handler(request))

    def __getitem__(self, site: str) -> "OneCall":
        return self._streams[site]

    def arriving(self) -> Iterator[tuple[str, Frame]]:
        for site, stream in self._streams.items():
            while (frame := stream.step()) is not None:
                yield site, frame


class OneCall:
    """`Stream` by plain calls."""

    def __init__(
        self, site: str, calls: Calls, half: Generator[Frame, Frame, tuple[Reply, Bundle]]
    ) -> None:
        self.site, self.calls, self.half = site, calls, half
        self.answer: Frame | None = None
        self.reply: Reply | None = None

    def step(self) -> Frame | None:
        try:
            frame = next(self.half) if self.answer is None else self.half.send(self.answer)
        except StopIteration as end:
            self.reply, self.calls.memories[self.site] = end.value
            return None
        self.calls.frames.append((f"{self.site} up", frame))
        return frame

    def receive(self) -> Frame:
        frame = self.step()
        assert frame is not None
        return frame

    def send(self, frame: Frame) -> None:
        self.calls.frames.append((f"{self.site} down", frame))
        self.answer = frame

    def result(self) -> Reply:
        if self.reply is None:
            assert self.step() is None
        assert self.reply is not None
        return self.reply


def run_rounds(
    algorithm: Algorithm, tasks: Mapping[str, LocalTask], rounds: int
) -> tuple[Bundle, dict[str, Bundle]]:
    """Play rounds and return the server's last state and the sites' memories."""
    state, calls = play_rounds(algorithm, tasks, rounds)
    return state, calls.memories


def play_rounds(
    algorithm: Algorithm, tasks: Mapping[str, LocalTask], rounds: int
) -> tuple[Bundle, Calls]:
    """Play rounds and return the server's last state, and the calls with all that they kept."""
    start: State = next(iter(tasks.values())).initial()
    calls = Calls(algorithm, tasks, rounds)
    state = algorithm.init(start)
    for number in range(1, rounds + 1):
        calls.number = number
        state = algorithm.round(state, number, calls)
    return state, calls
