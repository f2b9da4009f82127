"""What a site tells about itself before round 1, and the federation that follows from it.

Counts only: images, patients and labels of each split. From them a coordinator, which has no image,
makes the same plan and report as a simulation.
"""

import hmac
from collections.abc import Mapping
from functools import cache
from importlib import metadata

import numpy as np
import torch
from flwr.app import RecordDict

from fedrad.config import Task
from fedrad.core.state import State
from fedrad.data.base import SPLITS, SiteData
from fedrad.errors import SiteFailedError
from fedrad.privacy.dp_sgd import rounded
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack

__all__ = ["keyed", "site_from_summary", "site_summary", "without_labels"]

_LABELS = "labels"


def site_summary(
    data: SiteData,
    task: Task,
    device: torch.device,
    *,
    digest: str,
    private: bool = False,
    labels: bool = True,
    min_cell: int = 1,
) -> RecordDict:
    """Return what a site tells about itself.

    `num-examples` are its training images; `labels` counts, for each split, int64 [k, 3] of
    negative, positive and not told for each finding, or [k + 1] of each class and not told.

    Args:
        data: the site's.
        task: names the labels.
        device: where the site computes.
        digest: changes with the data; another one in the middle of a run is refused.
        private: tell no label of the training images, and their number to the nearest ten.
        labels: whether labels of the training images may be counted to others.
        min_cell: least patients of whom a count of labels is told; 0 of them may be told.
    """
    counts = {split: _counted(data, split, task, min_cell) for split in SPLITS}
    patients = {split: data.patients(split) for split in SPLITS}
    images = data.images("train")
    if private:
        images = rounded(images)
        patients["train"] = min(rounded(patients["train"]), images)
    if private or not labels:
        counts["train"] = without_labels(images, task)
    numbers = {"num-examples": float(images)}
    numbers |= {f"patients-{split}": float(count) for split, count in patients.items()}
    config = {
        "site": data.site,
        "fedrad": _version("fedrad"),
        "torch": torch.__version__,
        "device": str(device),
        "data": digest,
        # On what the bits of a result depend, beside the data.
        "machine": f"{device.type}, torch {_version('torch')}",
    }
    return pack({_LABELS: counts}, numbers, config)


@cache
def _version(package: str) -> str:
    # A file is read for it, which hundreds of simulated sites would each do.
    return metadata.version(package)


def _counted(data: SiteData, split: str, task: Task, min_cell: int) -> torch.Tensor:
    """Return the counts of labels; where too few patients have one, all as not told."""
    y, patient = data.y[data.rows[split]], data.patient[data.rows[split]]
    classes = range(task.outputs) if task.name == "multiclass" else range(2)
    rows = []
    for column in y.T:
        patients = [len(np.unique(patient[column == one])) for one in classes]
        counts = [int((column == one).sum()) for one in classes]
        if any(0 < count < min_cell for count in patients):
            counts = [0] * len(counts)
        rows.append([*counts, len(column) - sum(counts)])
    return torch.tensor(rows[0] if task.name == "multiclass" else rows)


def without_labels(images: int, task: Task) -> torch.Tensor:
    """Return counts that say how many images there are, and nothing of their labels."""
    if task.name == "multiclass":
        return torch.tensor([0] * task.outputs + [images])
    return torch.tensor([[0, 0, images]] * task.columns)


def keyed(digest: str, secret: bytes) -> str:
    """Return a digest that still changes with the data, but that nobody without the key can guess.

    Who knows all patients but one could else try out who the last one is.

    >>> keyed("3fe2", b"")
    '3fe2'
    >>> keyed("3fe2", b"one") == keyed("3fe2", b"other")
    False
    """
    return hmac.new(secret, digest.encode(), "sha256").hexdigest() if secret else digest


def site_from_summary(content: RecordDict, task: Task) -> SiteData:
    """Return a stand-in for a site's data with the numbers that it told, and no image.

    Raises:
        SiteFailedError: the description does not fit the experiment.
    """
    name = str(config_of(content).get("site", ""))
    numbers, labels = numbers_of(content), bundle_of(content).get(_LABELS, State())
    columns: list[np.ndarray] = []
    patients: list[np.ndarray] = []
    rows: dict[str, np.ndarray] = {}
    for split in SPLITS:
        y = _labels(labels.get(split), task, name)
        told = int(numbers.get(f"patients-{split}", -1))
        if not 0 <= told <= len(y):
            raise SiteFailedError(f"{name}: tells {told} patients and {len(y)} images of {split}")
        first = sum(map(len, columns))
        rows[split] = np.arange(first, first + len(y))
        columns.append(y)
        patients.append(first + np.arange(len(y)) % max(told, 1))
    y = np.concatenate(columns)
    # Read only, and one value in all: nobody may take it for images.
    x = np.broadcast_to(np.uint8(0), (len(y), *task.input))
    return SiteData(name, x, y, np.concatenate(patients).astype(np.uint64), rows)


def _labels(counts: torch.Tensor | None, task: Task, site: str) -> np.ndarray:
    """Return [n, columns] with as many of each label as were counted."""
    shape = (task.outputs + 1,) if task.name == "multiclass" else (task.columns, 3)
    if counts is None or tuple(counts.shape) != shape or bool((counts < 0).any()):
        raise SiteFailedError(
            f"{site}: its labels do not fit task.labels ({', '.join(task.labels)})"
        )
    table = counts.numpy().reshape(-1, shape[-1])
    if len(set(table.sum(1))) != 1:
        raise SiteFailedError(f"{site}: its findings were counted over different images")
    kinds = np.array([*range(shape[-1] - 1), np.nan], np.float32)
    return np.stack([np.repeat(kinds, row) for row in table], axis=1)


def versions_of(content: RecordDict) -> Mapping[str, str]:
    """Return the versions and the device that a site told."""
    config = config_of(content)
    return {
        key: str(config.get(key, "")) for key in ("fedrad", "torch", "device", "data", "machine")
    }
