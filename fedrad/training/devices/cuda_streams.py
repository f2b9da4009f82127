"""Sites trained side by side on one GPU: threads with a network and a stream each.

Python starts one site's kernels while the device computes another's.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import nn

from fedrad.core.timing import PhaseTimer
from fedrad.training.devices.deferred_training import TrainingCall
from fedrad.training.fit import Fitted

__all__ = ["StreamTrainer"]


class StreamTrainer:
    """As many lanes as sites are given at once; a lane's network is kept for the next ones.

    The network must draw no random numbers: all lanes share torch's generator. On a CPU lanes have
    no streams, and threads compute the same.
    """

    def __init__(self) -> None:
        self._models: list[nn.Module] = []
        self._streams: list[torch.cuda.Stream | None] = []

    def train(self, asked: Sequence[TrainingCall]) -> list[Fitted]:
        """Train sites at once, each as it would be trained alone."""
        task = asked[0].task
        for _ in range(len(self._models), len(asked)):
            self._models.append(copy.deepcopy(task.model))
            self._streams.append(_stream(task.device))
        # A meter counts one thread's time; this one's is counted by the thread that waits.
        own = [
            replace(one, task=one.task.varied(model=model, meter=PhaseTimer()))
            for one, model in zip(asked, self._models, strict=False)
        ]
        for stream in self._streams:
            # Weights and images come from this thread's stream, and what it still reads of the
            # sites before must not be written over.
            if stream is not None:
                stream.wait_stream(torch.cuda.current_stream(task.device))
        with (
            task.meter.spent("training"),
            torch.random.fork_rng([task.device] if task.device.type == "cuda" else []),
            ThreadPoolExecutor(len(own)) as pool,
        ):
            return list(pool.map(_trained, own, self._streams))


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _trained(asked: TrainingCall, stream: torch.cuda.Stream | None) -> Fitted:
    # Without a stream it does nothing.
    with torch.cuda.stream(stream):
        fitted = asked.fit()
    if stream is not None:
        stream.synchronize()
    return fitted
