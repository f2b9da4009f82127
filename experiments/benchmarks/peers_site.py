"""What a site does in `peers_fedrad.py`: the peers' network and batches, by fedrad's own loop.

Importing this changes fedrad in this process, which may be one of Ray's.
"""

from collections.abc import Iterator
from typing import Any

import torch
from common import Span, ensure_data, make_model, workload
from torch import Tensor

from fedrad.models import MODELS
from fedrad.training.batches import model_input
from fedrad.training.local import LocalTask

_fit = LocalTask.fit


def number_of(site: str) -> int:
    """Return the number in a site's name."""
    return int(site.removeprefix("site-"))


def fit(task: LocalTask, *args: Any, **options: Any) -> Any:
    """Train as ever, and write down when."""
    with Span(options["round"], number_of(task.site)):
        return _fit(task, *args, **options)


def batches(task: LocalTask, round: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches that `common.batches` makes."""
    draw = torch.Generator().manual_seed(100_003 * round + number_of(task.site))
    order = torch.randperm(task.examples, generator=draw)
    for x, y in task._read(order, task.batch):
        yield model_input(x, None, draw).contiguous(memory_format=task._layout), y


MODELS["peer"] = lambda task: make_model(workload(), seed=0)  # type: ignore[index]
LocalTask.fit = fit  # type: ignore[method-assign]
LocalTask.batches = batches  # type: ignore[method-assign]
ensure_data(workload())
