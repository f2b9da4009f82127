"""The columns of a table as y, by the rules of the task."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from fedrad.config import Task
from fedrad.data.reading.columns import Word, texts
from fedrad.data.reading.csv_table import CsvTable, cell_number
from fedrad.errors import ConfigError

__all__ = ["Labels", "Value", "drop_rows", "label_rule", "labels_of"]

Value = float | str | None
"""What a label's text means: a number, a class's name, or None for "not read"."""


_MARKS = re.compile(r"[|;,/\\+&\t]")
"""What tables write between findings."""


@dataclass(frozen=True)
class Labels:
    """How labels are read from a table; made and checked by `label_rule`."""

    task: Task
    columns: tuple[str, ...]
    meaning: Mapping[str, float] | None
    drop: tuple[str, ...]
    missing: tuple[str, ...]
    threshold: float | None
    separator: str | None = None
    decimal: str = "."


def label_rule(
    task: Task,
    *,
    label: str | None,
    labels: Mapping[str, str] | Sequence[str] | None,
    values: Mapping[Word, Value] | None = None,
    drop: Sequence[Word] = (),
    missing: Sequence[str] = ("",),
    threshold: float | None = None,
    separator: str | None = None,
    decimal: str = ".",
) -> Labels:
    """Return how labels are read, after a check that the options fit the task.

    Args:
        task: its name and labels.
        label: the column, for one finding or for classes.
        labels: finding -> column, or columns named as the findings, for several.
        values: a cell's text -> what it means. Without it, a finding's cell is 0 or 1; a class's
            cell is the class's name or index.
        drop: rows with one of these texts as label are left out.
        missing: texts that mean "not read".
        threshold: a finding is there where the cell's number is above it; replaces `values`.
        separator: a cell lists findings with this between them ("Effusion|Mass"); a finding is
            there where the list has its name. All findings may then come from one column.
        decimal: the decimal mark of numbers.

    Raises:
        ConfigError: the options do not fit the task or each other.
    """
    if separator is not None:
        _check_separator(task, separator, values is None and threshold is None)
        if label is not None and labels is None:
            labels = {name: label for name in task.labels}
            label = None
    columns = _columns(task, label, labels)
    if threshold is not None and (values is not None or task.name == "multiclass"):
        raise ConfigError("threshold: is for findings, and goes without values")
    meaning = None if values is None else _meaning(task, values)
    return Labels(
        task,
        columns,
        meaning,
        tuple(texts(list(drop))),
        tuple(missing),
        threshold,
        separator,
        decimal,
    )


def _check_separator(task: Task, separator: str, alone: bool) -> None:
    if task.name == "multiclass":
        raise ConfigError("separator: is for findings, of which a cell may list several")
    if not separator.strip() or not alone:
        raise ConfigError("separator: is a mark such as '|', and goes without values and threshold")


def _columns(
    task: Task, label: str | None, labels: Mapping[str, str] | Sequence[str] | None
) -> tuple[str, ...]:
    """Return the column of each finding, in the task's order (multiclass: the one column)."""
    if label is not None:
        if labels is not None:
            raise ConfigError("label, labels: give one of them")
        if task.columns > 1:
            raise ConfigError(f"label: the task has {task.columns} findings; use labels")
        return (label,)
    if labels is None:
        raise ConfigError("label, labels: give one of them")
    if task.name == "multiclass":
        raise ConfigError("labels: a multiclass task has one column; use label")
    named = dict(labels) if isinstance(labels, Mapping) else {name: name for name in labels}
    if set(named) != set(task.labels):
        raise ConfigError(
            f"labels: found {', '.join(named)}; the task's are {', '.join(task.labels)}"
        )
    return tuple(named[finding] for finding in task.labels)


def drop_rows(table: CsvTable, rule: Labels) -> CsvTable:
    """Return the rows none of whose labels is among the texts to drop."""
    for name in dict.fromkeys(rule.columns) if rule.drop else ():
        cells = table.column(name, "label")
        table = table.kept(np.array([cell not in rule.drop for cell in cells]))
    return table


def labels_of(table: CsvTable, rule: Labels) -> np.ndarray:
    """Return y, float32 [n, columns]; nan is not read.

    Raises:
        DataError: a column is missing, or a cell is none of what fits.
    """
    y = np.empty((len(table), rule.task.columns), np.float32)
    for k, name in enumerate(rule.columns):
        cells = table.column(name, "label")
        known = {cell: _read(cell, rule, k) for cell in set(cells)}
        wrong = [
            (index, _misfit(table, name, index, rule))
            for index, cell in enumerate(cells)
            if known[cell] is None
        ]
        if wrong:
            raise table.refusal(wrong, rule="label-unknown", column=name)
        y[:, k] = [known[cell] for cell in cells]
    return y


def _read(cell: str, rule: Labels, k: int) -> float | None:
    """Return a cell as a number, nan for not read, None for no fit."""
    task = rule.task
    if rule.meaning is not None and cell in rule.meaning:
        return rule.meaning[cell]
    if cell in rule.missing:
        return nan
    if rule.meaning is not None:
        return None
    if rule.separator is not None:
        return _listed(cell, rule.separator, task.labels, k)
    if task.name == "multiclass" and cell in task.labels:
        return float(task.labels.index(cell))
    try:
        number = cell_number(cell, rule.decimal)
    except ValueError:
        return None
    if rule.threshold is not None:
        return float(number > rule.threshold) if isfinite(number) else None
    return _place(task, number)


def _listed(cell: str, separator: str, labels: Sequence[str], k: int) -> float | None:
    """Return whether a list of findings names the k-th; None where one is nearly a label's name.

    So is a label's name beside another mark than the separator: "Effusion; Mass" is no finding.
    """
    words = [word.strip() for word in cell.split(separator)]
    near = {label.casefold().replace("_", " ") for label in labels}
    for word in words:
        parts = [word, *_MARKS.split(word)]
        if word not in labels and any(
            p.strip().casefold().replace("_", " ") in near for p in parts
        ):
            return None
    if not all(words):
        return None
    return float(labels[k] in words)


def _place(task: Task, number: float) -> float | None:
    """Return what a number means as a label, None for nothing.

    Where classes are named by numbers, a number is a name ("1.0" is class '1'), and no index.
    """
    if task.name != "multiclass" or not any(map(_is_number, task.labels)):
        return number if _fits(task, number) else None
    named = [k for k, name in enumerate(task.labels) if _is_number(name) and float(name) == number]
    return float(named[0]) if len(named) == 1 else None


def _is_number(name: str) -> bool:
    try:
        return isfinite(cell_number(name))
    except ValueError:
        return False


def _fits(task: Task, number: float) -> bool:
    top = len(task.labels) if task.name == "multiclass" else 2
    return number in range(top)


def _meaning(task: Task, values: Mapping[Word, Value]) -> dict[str, float]:
    """Return text -> number, after a check of what the texts are to mean."""
    meaning: dict[str, float] = {}
    for text, value in values.items():
        if isinstance(value, str) and task.name == "multiclass" and value in task.labels:
            meaning[str(text)] = float(task.labels.index(value))
        elif value is None:
            meaning[str(text)] = nan
        elif not isinstance(value, str) and (place := _place(task, value)) is not None:
            meaning[str(text)] = place
        else:
            raise ConfigError(f"values.{text}: found {value!r}; fits {_choices(task)}")
    return meaning


def _choices(task: Task) -> str:
    if task.name == "multiclass" and any(map(_is_number, task.labels)):
        return f"{', '.join(task.labels)}, null for not read"
    if task.name == "multiclass":
        return f"{', '.join(task.labels)} (or 0 to {len(task.labels) - 1}), null for not read"
    return "0, 1, null for not read"


def _misfit(table: CsvTable, name: str, index: int, rule: Labels) -> str:
    if rule.threshold is not None:
        fits = "a number"
    elif rule.meaning is not None:
        fits = f"{', '.join(rule.meaning)} (of values)"
    elif rule.separator is not None:
        fits = f"names with '{rule.separator}' between them, spelled as in task.labels"
    else:
        fits = _choices(rule.task)
    words = table.words(name)
    seen = f"; the column has {', '.join(map(repr, words))}" if words else ""
    found = table.found(name, index)
    lists = rule.separator is None and any("|" in cell for cell in table.cells[name])
    cure = "; if a cell lists several findings, say separator: '|'" if lists else ""
    return f"label '{name}' is {found}; fits {fits}{seen}{cure}"
