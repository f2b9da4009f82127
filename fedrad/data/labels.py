"""The columns of a table as y, by the rules of the task."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan

import numpy as np

from fedrad.config import Task
from fedrad.data.columns import Columns, found_in, words
from fedrad.errors import ConfigError, DataError

__all__ = ["Value", "drop_rows", "label_columns", "labels_of"]

Value = float | str | None
"""What a label's text means: a number, a class's name, or None for "not read"."""


def label_columns(
    task: Task, label: str | None, labels: Mapping[str, str] | Sequence[str] | None
) -> tuple[str, ...]:
    """Return the column of each finding, in the task's order (multiclass: the one column).

    Args:
        task: its findings.
        label: the column, for a task of one.
        labels: finding -> column, or columns named as the findings, for several.

    Raises:
        ConfigError: not one of the two is given, or it does not fit the task.
    """
    if (label is None) == (labels is None):
        raise ConfigError("label, labels: give one of them")
    if label is not None:
        if task.columns > 1:
            raise ConfigError(f"label: the task has {task.columns} findings; use labels")
        return (label,)
    if task.name == "multiclass":
        raise ConfigError("labels: a multiclass task has one column; use label")
    named = dict(labels) if isinstance(labels, Mapping) else {name: name for name in labels or ()}
    if set(named) != set(task.labels):
        raise ConfigError(
            f"labels: found {', '.join(named)}; the task's are {', '.join(task.labels)}"
        )
    return tuple(named[finding] for finding in task.labels)


def drop_rows(table: Columns, columns: Sequence[str], drop: Sequence[str]) -> Columns:
    """Return the rows none of whose labels is among the texts to drop."""
    for name in columns if drop else ():
        cells = table.column(name, "label")
        table = table.kept(np.array([cell not in drop for cell in cells]))
    return table


def labels_of(
    table: Columns,
    columns: Sequence[str],
    task: Task,
    *,
    values: Mapping[str, Value] | None = None,
    missing: Sequence[str] = ("",),
    threshold: float | None = None,
) -> np.ndarray:
    """Return y.

    Args:
        table: to read.
        columns: of the findings, or the one column of classes.
        task: its name and labels.
        values: a cell's text -> what it means. Without it, a finding's cell is 0 or 1; a class's
            cell is the class's name or index.
        missing: texts that mean "not read".
        threshold: a finding is there where the cell's number is above it; replaces `values`.

    Returns:
        float32 [n, columns]; nan is not read.

    Raises:
        ConfigError: `values` or `threshold` do not fit the task.
        DataError: a cell is none of what fits.
    """
    if threshold is not None and (values is not None or task.name == "multiclass"):
        raise ConfigError("threshold: is for findings, and goes without values")
    meaning = None if values is None else _meaning(task, values)
    y = np.empty((len(table), task.columns), np.float32)
    for k, name in enumerate(columns):
        cells = table.column(name, "label")
        known = {cell: _read(cell, task, meaning, missing, threshold) for cell in set(cells)}
        for index, cell in enumerate(cells):
            value = known[cell]
            if value is None:
                raise DataError(_misfit(table, cells, index, task, name, values, threshold))
            y[index, k] = value
    return y


def _read(
    cell: str,
    task: Task,
    meaning: Mapping[str, float] | None,
    missing: Sequence[str],
    threshold: float | None,
) -> float | None:
    """Return a cell as a number, nan for not read, None for no fit."""
    if meaning is not None and cell in meaning:
        return meaning[cell]
    if cell in missing:
        return nan
    if meaning is not None:
        return None
    if task.name == "multiclass" and cell in task.labels:
        return float(task.labels.index(cell))
    try:
        number = float(cell)
    except ValueError:
        return None
    if threshold is not None:
        return float(number > threshold) if isfinite(number) else None
    return number if _fits(task, number) else None


def _fits(task: Task, number: float) -> bool:
    top = len(task.labels) if task.name == "multiclass" else 2
    return number in range(top)


def _meaning(task: Task, values: Mapping[str, Value]) -> dict[str, float]:
    """Return text -> number, after a check of what the texts are to mean."""
    meaning: dict[str, float] = {}
    for text, value in values.items():
        if isinstance(value, str) and task.name == "multiclass" and value in task.labels:
            meaning[text] = float(task.labels.index(value))
        elif value is None:
            meaning[text] = nan
        elif not isinstance(value, str) and _fits(task, value):
            meaning[text] = float(value)
        else:
            raise ConfigError(f"values.{text}: found {value!r}; fits {_choices(task)}")
    return meaning


def _choices(task: Task) -> str:
    if task.name == "multiclass":
        return f"{', '.join(task.labels)} (or 0 to {len(task.labels) - 1}), null for not read"
    return "0, 1, null for not read"


def _misfit(
    table: Columns,
    cells: Sequence[str],
    index: int,
    task: Task,
    name: str,
    values: Mapping[str, Value] | None,
    threshold: float | None,
) -> str:
    if threshold is not None:
        fits = "a number, or empty for not read"
    else:
        fits = ", ".join(values) if values is not None else _choices(task)
    found = found_in(cells, index)
    all_words = f"; the column has {', '.join(map(repr, words(cells)))}" if words(cells) else ""
    return f"{table.where(index)}: label '{name}' is {found}; fits {fits}{all_words}"
