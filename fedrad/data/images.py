"""A CSV file with a row for each image, and PNG or JPEG files beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedrad.config import Task
from fedrad.data.base import Records
from fedrad.data.cache import decoded, key_of
from fedrad.data.columns import (
    Columns,
    Word,
    attributes_of,
    patient_of,
    read_columns,
    selected,
    site_of,
    split_of,
)
from fedrad.data.decode import Fit, decode
from fedrad.data.labels import Value, drop_rows, label_rule, labels_of
from fedrad.errors import ConfigError, DataError

__all__ = ["images"]

_SHOWN = 5


def images(
    task: Task,
    root: Path,
    *,
    csv: str,
    image: str = "image",
    patient: str | None = None,
    patient_per_site: bool = False,
    label: str | None = None,
    labels: dict[str, str] | list[str] | None = None,
    values: dict[Word, Value] | None = None,
    separator: str | None = None,
    drop: Sequence[Word] = (),
    site: str | None = None,
    sites: list[str] | None = None,
    split: str | None = None,
    where: dict[str, Word | list[Word]] | None = None,
    age: str | None = None,
    sex: str | None = None,
    view: str | None = None,
    fit: Fit = "pad",
    bits: int = 16,
) -> Records:
    """Return images listed in a CSV file; decoded once and kept (see `cache`).

    Args:
        task: its input is [1 or 3, h, w].
        root: the folder that `csv` is under.
        csv: the file; images' paths in it are relative to its folder and stay inside it.
        image: column of the images' paths.
        patient: column of the patients' ids; without it each image is its own patient.
        patient_per_site: ids are each site's own; equal ids at two sites are two patients.
        label: column of the label, for one finding or for classes.
        labels: finding -> column (or a list of columns named as the findings), for several.
        values: label's text -> 0, 1, class name or null (not read); without it cells are 0, 1,
            empty (not read), or a class's name or index.
        separator: a label's cell lists findings with this between them, such as "|" in
            "Effusion|Mass"; a finding that is not listed is 0.
        drop: rows with one of these texts as label are left out.
        site: column of the site.
        sites: keep only these.
        split: column of the split; train, val or test.
        where: column -> the text, or texts, to keep.
        age: column of the age, years or DICOM ("058Y").
        sex: column of the sex.
        view: column of the view.
        fit: how an image comes to the task's shape: pad (with black), squeeze, crop.
        bits: that values of 16-bit PNG files use, often 12.

    Raises:
        ConfigError: options do not fit the task or each other.
        DataError: a file or column is missing, a cell does not fit, an image is damaged.
    """
    size = _size(task)
    if not 1 <= bits <= 16:
        raise ConfigError(f"bits: found {bits}; fits 1 to 16")
    rule = label_rule(
        task, label=label, labels=labels, values=values, drop=drop, separator=separator
    )
    named = [image, *rule.columns, *(where or ()), patient, site, split, age, sex, view]
    table = read_columns(root / csv, named=named, private=[patient, image])
    table = selected(table, where=where, site=site, sites=sites)
    table = drop_rows(table, rule)
    y = labels_of(table, rule)
    places = site_of(table, site)
    splits = split_of(table, split)
    patients = patient_of(table, patient, places, per_site=patient_per_site)
    attributes = attributes_of(table, age=age, sex=sex, view=view)
    # Last: all that is cheap to refuse has been read before the first image is.
    x, pixels = _decoded(table, _paths(table, image, (root / csv).parent), size, fit, bits)
    return Records(x, y, patients, places, splits, pixels, attributes, table.row)


def _size(task: Task) -> tuple[int, int, int]:
    if len(task.input) != 3 or task.input[0] not in (1, 3):
        raise ConfigError(
            f"task.input: images are [1 or 3, height, width]; found {list(task.input)}"
        )
    channels, height, width = task.input
    return channels, height, width


def _paths(table: Columns, image: str, folder: Path) -> list[Path]:
    """Return the images' paths, all under the table's folder and all there."""
    top = os.path.abspath(folder)
    paths = []
    for index, cell in enumerate(table.column(image, "image")):
        # Normalised as a text: a folder's owner may link its images from elsewhere.
        path = os.path.normpath(os.path.join(top, cell))
        if not cell or os.path.commonpath([top, path]) != top:
            raise DataError(
                f"{table.where(index)}: the image (column '{image}') is empty or outside the "
                "folder of the table"
            )
        paths.append(Path(path))
    return paths


def _decoded(
    table: Columns, paths: Sequence[Path], size: tuple[int, int, int], fit: Fit, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    stamps = _stamps(table, paths)
    key = key_of(["images 1", str(size), fit, str(bits), *stamps])

    def one(row: int) -> tuple[np.ndarray, int]:
        return decode(paths[row], size, fit=fit, bits=bits, where=table.where(row))

    return decoded(key, (len(paths), *size), one)


def _stamps(table: Columns, paths: Sequence[Path]) -> list[str]:
    """Return what tells a changed file: its path, size and time of change."""
    stamps: list[str] = []
    missing: list[int] = []
    for index, path in enumerate(paths):
        try:
            status = path.stat()
        except (OSError, ValueError):
            missing.append(index)
            continue
        stamps.append(f"{path}\x1f{status.st_size}\x1f{status.st_mtime_ns}")
    if missing:
        rows = ", ".join(str(table.row[index]) for index in missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        raise DataError(
            f"{table.file}: {len(missing)} of {len(paths)} images are not there (rows {rows}{more})"
        )
    return stamps
