"""Sites of unequal size with one small network, for what trains several of them."""

from typing import Any

import numpy as np
import torch

from fedrad.config import Task
from fedrad.core.state import State, clone
from fedrad.data.base import SiteData
from fedrad.models import MODELS
from fedrad.training.local import LocalTask

TASK = Task(name="multilabel", labels=("nodule", "effusion"), input=(1, 16, 16))
IMAGES = {"nord": 22, "ost": 8, "sued": 0, "west": 15}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def data(name: str, images: int) -> SiteData:
    rng = np.random.default_rng([images])
    x = rng.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    y = rng.integers(0, 2, (40, 2)).astype(np.float32)
    y[::7, 1] = np.nan  # not read
    rows = {"train": np.arange(images), "val": np.arange(0), "test": np.arange(30, 40)}
    return SiteData(name, x, y, np.arange(40, dtype=np.uint64), rows)


def tasks(device: str = "cpu", **changes: Any) -> tuple[list[LocalTask], State]:
    """Four sites, and the weights that they start from."""
    torch.manual_seed(0)
    model = MODELS["cnn"](TASK, width=4)
    start = clone(model.state_dict())
    given: dict[str, Any] = {
        "site": "nord",
        "seed": 7,
        "task": TASK,
        "data": data("nord", IMAGES["nord"]),
        "model": model,
        "initial": lambda: start,
        "metrics": (),
        "optimizer": SGD,
        "batch": 5,
        "epochs": 2,
        "device": torch.device(device),
    }
    first = LocalTask(**(given | changes))
    return [first.at(data(name, images)) for name, images in IMAGES.items()], start


def close(one: State, other: State, atol: float = 1e-5) -> None:
    """Within rounding, wherever they are."""
    for name, value in one.items():
        torch.testing.assert_close(value.cpu(), other[name].cpu(), atol=atol, rtol=0)
