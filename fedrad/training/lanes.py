"""Sites trained side by side on one GPU: threads with a network and a stream each.

Python starts one site's kernels while the device computes another's.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import nn

from fedrad.core.meter import Meter
from fedrad.training.asked import Training, one_by_one
from fedrad.training.fit import Fitted

__all__ = ["Lanes"]


class Lanes:
    """As many lanes as sites are given at once; a lane's network is kept for the next ones.

    The network must draw no random numbers: all lanes share torch's generator.
    """

    def __init__(self) -> None:
        self._models: list[nn.Module] = []
        self._streams: list[torch.cuda.Stream] = []

    def train(self, asked: Sequence[Training]) -> list[Fitted]:
        """Train sites at once, each as it would be trained alone."""
        task = asked[0].task
        for _ in range(len(self._models), len(asked)):
            self._models.append(copy.deepcopy(task.model))
            self._streams.append(torch.cuda.Stream(task.device))  # type: ignore[no-untyped-call]
        # A meter counts one thread's time; this one's is counted by the thread that waits.
        own = [
            replace(one, task=one.task.varied(model=model, meter=Meter()))
            for one, model in zip(asked, self._models, strict=False)
        ]
        before = torch.cuda.current_stream(task.device)
        for stream in self._streams:
            # Weights and images come from this thread's stream, and what it still reads of the
            # sites before must not be written over.
            stream.wait_stream(before)
        with (
            task.meter.spent("training"),
            torch.random.fork_rng([task.device]),
            ThreadPoolExecutor(len(own)) as pool,
        ):
            return list(pool.map(self._one, own, self._streams))

    def _one(self, asked: Training, stream: torch.cuda.Stream) -> Fitted:
        with torch.cuda.stream(stream):
            (fitted,) = one_by_one([asked])
        stream.synchronize()
        return fitted
