"""MedMNIST files: arrays {train,val,test}_{images,labels} in one .npz.

Yang et al., MedMNIST v2, Scientific Data 2023, https://doi.org/10.1038/s41597-022-01721-8.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fedrad.config import Task
from fedrad.data.base import SPLITS, Records, hashes, select
from fedrad.data.checks.oddities import Oddity
from fedrad.data.checks.sketch import sketches
from fedrad.data.fingerprint import fingerprints
from fedrad.data.groups import SHOWN, crossing, first_rows
from fedrad.data.patients import UNSAID, PatientOption, unnamed
from fedrad.data.reading.decode import Fit, grey_or_colour, resized
from fedrad.errors import ConfigError, DataError, DataLeakageError

__all__ = ["npz"]

# The copy that stays: the official test images before the others, so that results compare.
_KEPT_FIRST = {"test": 0, "val": 1, "train": 2}


def npz(
    task: Task,
    root: Path,
    *,
    file: str,
    duplicates: Literal["error", "drop"] = "error",
    fit: Fit = "pad",
    patient: PatientOption = UNSAID,
) -> Records:
    """Return the images of a MedMNIST file with its official splits, and no sites.

    The files name no patients, so each image counts as its own patient: the official parts may
    share patients, and intervals are narrower than they should be. `patient: null` says that this
    is known.

    Args:
        task: its input is [1 or 3, h, w]; images of another size are resized.
        root: the folder that the file is under.
        file: the .npz file.
        duplicates: what happens to images that are exact repeats. error refuses them; drop keeps
            one of each, from test before val before train: the test part loses only repeats within
            itself.
        fit: how images of another shape come to the task's (see `images`).
        patient: null, for there are none; without it the run is told so.

    Raises:
        ConfigError: the task's input is no image, or a patient is named.
        DataError: the file is missing or damaged, or holds other arrays or labels.
        DataLeakageError: exact repeats, with `duplicates: error`.
    """
    if len(task.input) != 3 or task.input[0] not in (1, 3):
        raise ConfigError(
            f"task.input: images are [1 or 3, height, width]; found {list(task.input)}"
        )
    if patient is not None and patient != UNSAID:
        raise ConfigError("patient: .npz files name no patients; only null fits")
    path = root / file
    arrays = _arrays(path)
    raw = _joined(arrays, "images", path.name)
    y = _labels(_joined(arrays, "labels", path.name), task, path.name)
    if len(raw) != len(y):
        raise DataError(f"{path.name}: {len(raw)} images and {len(y)} labels")
    if raw.dtype != np.uint8 or raw.ndim not in (3, 4) or raw.shape[3:] not in ((), (3,)):
        raise DataError(
            f"{path.name}: images are {raw.dtype} {list(raw.shape)}; fits uint8 [n, h, w] or "
            "[n, h, w, 3]"
        )
    lengths = [len(arrays[f"{split}_labels"]) for split in SPLITS]
    x = _sized(raw, task, fit)
    records = Records(
        x=x,
        y=y,
        patient=hashes(map(str, range(len(raw)))),
        site=None,
        split=np.repeat(SPLITS, lengths),
        pixels=fingerprints(raw),
        # The file counts its rows in each part.
        row=np.concatenate([np.arange(1, length + 1) for length in lengths]),
        sketches=sketches(raw, x),
        oddities=unnamed(patient, len(raw)),
    )
    return _without_repeats(records, path.name, drop=duplicates == "drop")


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    try:
        # No pickle: an .npz may come from anywhere.
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        reason = error.strerror or "is no .npz file"
        raise DataError(
            f"{path.name}: cannot be read ({reason}); paths are relative to --data-root"
        ) from None
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        raise DataError(f"{path.name}: is no whole .npz file of plain arrays") from None


def _joined(arrays: Mapping[str, np.ndarray], kind: str, file: str) -> np.ndarray:
    names = [f"{split}_{kind}" for split in SPLITS]
    absent = [name for name in names if name not in arrays]
    if absent:
        raise DataError(f"{file}: has no {', '.join(absent)}; it has {', '.join(sorted(arrays))}")
    try:
        return np.concatenate([arrays[name] for name in names])
    except ValueError:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in names)
        raise DataError(f"{file}: parts of different shapes: {shapes}") from None


def _labels(labels: np.ndarray, task: Task, file: str) -> np.ndarray:
    """Return y from integers [n], [n, 1] or [n, k]."""
    y = labels.reshape(len(labels), -1).astype(np.float32)
    if y.shape[1] != task.columns:
        raise DataError(f"{file}: {y.shape[1]} columns of labels, the task has {task.columns}")
    top = len(task.labels) if task.name == "multiclass" else 2
    if not np.isin(y, np.arange(top)).all():
        raise DataError(
            f"{file}: labels from {y.min():g} to {y.max():g}; the task's are 0 to {top - 1}"
        )
    return y


def _sized(raw: np.ndarray, task: Task, fit: Fit) -> np.ndarray:
    """Return uint8 [n, c, h, w] of the task's size."""
    channels, height, width = task.input
    colour = raw.ndim == 4
    if raw.shape[1:3] == (height, width) and colour == (channels == 3):
        planes: np.ndarray = raw.transpose(0, 3, 1, 2) if colour else raw[:, None]
        return np.ascontiguousarray(planes)
    return np.stack(
        [
            resized(grey_or_colour(Image.fromarray(one), channels), (height, width), fit=fit)
            for one in raw
        ]
    )


def _without_repeats(records: Records, file: str, *, drop: bool) -> Records:
    """Return one of each image, or refuse."""
    assert records.pixels is not None and records.split is not None
    assert records.row is not None
    rank = np.array([_KEPT_FIRST[split] for split in records.split])
    order = np.argsort(rank, kind="stable")
    _, first = np.unique(records.pixels[order], return_index=True)
    kept = np.sort(order[first])
    repeats = len(records) - len(kept)
    if not repeats:
        return records
    rows = np.setdiff1d(np.arange(len(records)), kept)
    if not drop:
        told = ", ".join(f"{records.split[row]} {records.row[row]}" for row in rows[:SHOWN])
        raise DataLeakageError(
            f"{file}: {repeats} of {len(records)} images are exact repeats of another ({told}"
            f"{', ...' if repeats > SHOWN else ''}); say duplicates: drop to keep one of each",
            rule="image-repeated",
            rows=first_rows(records, rows),
        )
    return replace(select(records, kept), oddities=(*records.oddities, *_contradictions(records)))


def _contradictions(records: Records) -> tuple[Oddity, ...]:
    """Return that repeats of one image, of which one is kept, have different labels."""
    assert records.pixels is not None
    label = np.unique(records.y, axis=0, return_inverse=True)[1].reshape(-1)
    group, rows = crossing([records.pixels], label)
    if not len(rows):
        return ()
    found = f"{len(np.unique(group[rows]))} images stand twice, with different labels; one is kept."
    mend = "find out which label is right; if the one that is kept is, say accept: [labels-differ]."
    return (Oddity("", "labels-differ", found, mend, first_rows(records, rows)),)
