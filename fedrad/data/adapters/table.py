"""A CSV file (or one a site) of numbers: laboratory values, ages, measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import ConfigDict

from fedrad.config import Task
from fedrad.data.base import Records
from fedrad.data.checks.giveaways import check_features, giveaways
from fedrad.data.checks.odd_values import sentinels
from fedrad.data.patients import UNSAID, PatientOption, column_of, patients_of, unnamed
from fedrad.data.reading.columns import (
    CsvTable,
    Word,
    attributes_of,
    read_columns,
    row_sites,
    selected_rows,
    split_of,
)
from fedrad.data.reading.csv_table import cell_number
from fedrad.data.reading.labels import Value, drop_rows, label_rule, labels_of
from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = ["Feature", "table"]

Missing = Literal["centre", "indicator"]
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Feature:
    """How a column becomes a number near 0: (value - centre) / scale.

    Centre and scale are written down, the same at every site: a mean taken at a site would hide
    what differs between sites, and one taken over all of them would be a query of its own.

    Attributes:
        centre: subtracted; also what a missing value counts as.
        scale: divides; above 0.
        missing: as the adapter's option, for this column alone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    centre: float = 0.0
    scale: float = 1.0
    missing: Missing | None = None


def table(
    task: Task,
    root: Path,
    *,
    csv: str | None = None,
    files: dict[str, str] | None = None,
    columns: list[str] | None = None,
    features: dict[str, Feature] | list[str],
    missing: Missing = "centre",
    missing_words: Sequence[str] = ("", "?", "NA", "NaN", "nan"),
    missing_zero: Sequence[str] = (),
    label: str | None = None,
    labels: dict[str, str] | list[str] | None = None,
    values: dict[Word, Value] | None = None,
    threshold: float | None = None,
    separator: str | None = None,
    decimal: Literal[".", ","] = ".",
    drop: Sequence[Word] = (),
    patient: PatientOption = UNSAID,
    patient_per_site: bool = False,
    site: str | None = None,
    sites: list[str] | None = None,
    split: str | None = None,
    where: dict[str, Word | list[Word]] | None = None,
    age: str | None = None,
    sex: str | None = None,
) -> Records:
    """Return the rows of a table, or of one table a site.

    Args:
        task: its input is [f].
        root: the folder that the files are under.
        csv: the file.
        files: site -> file, instead of `csv` and `site`.
        columns: names of the columns of files without a header line.
        features: column -> `Feature`, or columns to take as they are. x has them in this order,
            then one column (1 missing, 0 not) for each that has an indicator.
        missing: what a missing value becomes: its column's centre, or that and an indicator.
        missing_words: texts that mean missing, in features and labels.
        missing_zero: features in which 0 means missing.
        label: column of the label, for one finding or for classes.
        labels: finding -> column (or a list of columns named as the findings), for several.
        values: label's text -> 0, 1, class name or null (not read).
        threshold: the finding is there where the label's number is above it.
        separator: a label's cell lists findings with this between them, such as "|" in
            "Effusion|Mass"; a finding that is not listed is 0.
        decimal: the decimal mark of features and labels.
        drop: rows with one of these texts as label are left out.
        patient: column of the patients' ids, or where in a column they stand (`IdPart`); null says
            that each row is its own patient.
        patient_per_site: ids are each site's own; equal ids at two sites are two patients.
        site: column of the site.
        sites: keep only these.
        split: column of the split; train, val or test.
        where: column -> the text, or texts, to keep.
        age: column of the age; may be a feature too.
        sex: column of the sex; may be a feature too.

    Returns:
        x float32 [n, f]; with `files`, the sites one behind the other in the order given.

    Raises:
        ConfigError: options do not fit the task or each other.
        DataError: a file or column is missing, or a cell does not fit.
    """
    if (csv is None) == (files is None):
        raise ConfigError("csv, files: give one of them")
    if files is not None and (site or sites):
        raise ConfigError("files: name the sites themselves; leave site and sites out")
    rule = label_rule(
        task,
        label=label,
        labels=labels,
        values=values,
        drop=drop,
        missing=missing_words,
        threshold=threshold,
        separator=separator,
        decimal=decimal,
    )
    plan = _planned(task, features, missing, missing_zero)
    person = column_of(patient)
    check_features(
        list(features),
        {
            "the label": rule.columns,
            "the patients' column": [person],
            "the site": [site],
            "the split": [split],
        },
    )
    named = [*features, *rule.columns, *(where or ()), person, site, split, age, sex]
    parts = []
    for name, file in {None: csv}.items() if files is None else files.items():
        path = root / str(file)
        cells = read_columns(path, header=columns, named=named, private=[person])
        cells = drop_rows(selected_rows(cells, where=where, site=site, sites=sites), rule)
        places = row_sites(cells, site) if name is None else np.full(len(cells), name)
        patients = patients_of(cells, patient, places, per_site=patient_per_site)
        raw = np.stack([_raw(cells, one, missing_words, decimal) for one in plan], axis=1)
        known = _known(raw, plan, missing_zero)
        part = Records(
            x=_numbers(cells, known, plan),
            y=labels_of(cells, rule),
            patient=patients.hashed,
            site=places,
            split=split_of(cells, split),
            pixels=None,
            attributes=attributes_of(cells, age=age, sex=sex),
            row=cells.row,
            alike=patients.alike,
            oddities=tuple(sentinels(known, list(plan), places, cells.row)),
            columns=tuple(plan),
        )
        parts.append(part)
    records = _stacked(parts)
    names = task.labels if task.columns == len(task.labels) else ("the label",)
    odd = giveaways(records.x, records.y, list(plan), names)
    return replace(records, oddities=(*unnamed(patient, len(records)), *records.oddities, *odd))


def _planned(
    task: Task,
    features: Mapping[str, Feature] | Sequence[str],
    missing: Missing,
    missing_zero: Sequence[str],
) -> dict[str, Feature]:
    """Return each feature with its own `missing`, after a check that their number fits."""
    given = features if isinstance(features, Mapping) else {name: Feature() for name in features}
    plan = {name: replace(f, missing=f.missing or missing) for name, f in given.items()}
    if len(given) < len(features):
        raise ConfigError("features: one name stands twice")
    for name, feature in plan.items():
        if not feature.scale > 0:
            raise ConfigError(f"features.{name}.scale: found {feature.scale:g}; must be above 0")
    for name in missing_zero:
        if name not in plan:
            raise ConfigError(
                f"missing_zero: '{name}' is none of the features{nearest(name, plan)}"
            )
    indicators = sum(feature.missing == "indicator" for feature in plan.values())
    if task.input != (len(plan) + indicators,):
        raise ConfigError(
            f"task.input: found {list(task.input)}; {len(plan)} features and {indicators} "
            f"indicators of missing values make [{len(plan) + indicators}]"
        )
    return plan


def _numbers(cells: CsvTable, known: np.ndarray, plan: Mapping[str, Feature]) -> np.ndarray:
    """Return x, float32 [n, f]: the features, then the indicators."""
    gone = np.isnan(known)
    centre = np.array([feature.centre for feature in plan.values()])
    scale = np.array([feature.scale for feature in plan.values()])
    values = np.where(gone, 0.0, (known - centre) / scale)
    _refuse_beyond(cells, list(plan), values)
    marked = np.array([feature.missing == "indicator" for feature in plan.values()])
    return np.concatenate([values, gone[:, marked]], axis=1).astype(np.float32)


def _known(raw: np.ndarray, plan: Mapping[str, Feature], missing_zero: Sequence[str]) -> np.ndarray:
    """Return the numbers with nan where 0 means missing."""
    zero_is_missing = np.array([name in missing_zero for name in plan])
    return np.where(zero_is_missing & (raw == 0), np.nan, raw)


def _refuse_beyond(cells: CsvTable, names: Sequence[str], values: np.ndarray) -> None:
    """Refuse what the model's 32-bit numbers would make infinite, or nothing, of a value."""
    sizes = np.abs(values)
    beyond = (sizes > _LARGEST) | ((sizes > 0) & (sizes < _SMALLEST))
    wrong = [
        (
            int(index),
            f"feature '{names[k]}' is, after centre and scale, beyond what 32-bit numbers hold "
            f"({_SMALLEST:.1g} to {_LARGEST:.1g}); mend the cell, or give another scale",
        )
        for index, k in np.argwhere(beyond)
    ]
    if wrong:
        some = np.flatnonzero(beyond.any(axis=0))
        column = names[some[0]] if len(some) == 1 else None
        raise cells.refusal(wrong, rule="feature-beyond", column=column)


def _raw(cells: CsvTable, name: str, missing_words: Sequence[str], decimal: str) -> np.ndarray:
    """Return a column's numbers, float64 [n]; nan is missing."""
    column = cells.column(name, "features")
    numbers = np.full(len(cells), np.nan)
    wrong: list[tuple[int, str]] = []
    for index, cell in enumerate(column):
        if cell in missing_words:
            continue
        try:
            numbers[index] = cell_number(cell, decimal)
        except ValueError:
            numbers[index] = np.inf
        if not np.isfinite(numbers[index]):
            wrong.append((index, _no_number(cells, name, index, missing_words, decimal)))
    if wrong:
        raise cells.refusal(wrong, rule="feature-no-number", column=name)
    return numbers


def _no_number(
    cells: CsvTable, name: str, index: int, missing_words: Sequence[str], decimal: str
) -> str:
    cell = cells.cells[name][index]
    other = "," if decimal == "." else "."
    mark = cell.count(other) == 1 and cell.replace(other, "").lstrip("+-").isdecimal()
    cure = f"; if '{other}' is the decimal mark, say decimal: '{other}'" if mark else ""
    return (
        f"feature '{name}' is {cells.found(name, index)}; fits a number, or one of "
        f"{', '.join(map(repr, missing_words))} for missing{cure}"
    )


def _stacked(parts: Sequence[Records]) -> Records:
    """Return the records of several files as one."""
    if len(parts) == 1:
        return parts[0]

    def joined(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
        known = [column for column in columns if column is not None]
        return np.concatenate(known) if known else None

    return Records(
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        patient=np.concatenate([part.patient for part in parts]),
        site=joined([part.site for part in parts]),
        split=joined([part.split for part in parts]),
        pixels=None,
        attributes={
            name: np.concatenate([part.attributes[name] for part in parts])
            for name in parts[0].attributes
        },
        row=joined([part.row for part in parts]),
        alike=joined([part.alike for part in parts]),
        oddities=tuple(oddity for part in parts for oddity in part.oddities),
        columns=parts[0].columns,
    )
