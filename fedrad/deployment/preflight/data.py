"""The site's own data: what the adapter reads, and what of it should be looked at, by row."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fedrad.config import SiteFile, Task
from fedrad.data.base import SPLITS, Records, sites_of
from fedrad.data.checks.likely_overlap import likely_leaks
from fedrad.data.checks.odd_images import odd_at_site
from fedrad.data.checks.oddities import Oddity, unaccepted
from fedrad.data.checks.overlap import check_overlap
from fedrad.data.sites import records_of
from fedrad.deployment.preflight.check_result import CheckResult, amber, green, red
from fedrad.errors import FedradError, MissingError

__all__ = ["check_data"]

_SHOWN = 5
_FEW = 10
_DATA_OWNER = "the data's owner"


def check_data(site: SiteFile, task: Task | None) -> Iterator[CheckResult]:
    """Yield what is found of the site's data.

    Args:
        site: the hospital's file.
        task: whose labels and input the data are read for; None reads nothing.
    """
    if task is None:
        yield amber(
            "data",
            "not read: neither `task` in the site file nor an experiment says what a label is",
            "add task: to the site file, or give --experiment FILE",
        )
        return
    try:
        records = records_of(task, site)
    except MissingError as error:
        yield red(
            "data", str(error), "the machine's owner: make room there, or let this user write"
        )
        return
    except (FedradError, ValueError) as error:
        # A ValueError of a library may quote a row: its text is not repeated.
        told = str(error) if isinstance(error, FedradError) else type(error).__name__
        yield red("data", told, f"{_DATA_OWNER}: mend the row or file that is named")
        return
    yield _rows(records)
    yield from _labels(records, task)
    yield _splits(site, records)
    likely: list[Oddity] = []
    try:
        check_overlap(records)
        likely = likely_leaks(records)
        yield green("leaks", "no patient and no image stands in two splits")
    except FedradError as error:
        yield red("leaks", str(error), _DATA_OWNER)
    if records.pixels is not None:
        yield from _copies(records)
    yield from _odd(site, records, likely)


def _rows(records: Records) -> CheckResult:
    patients = len(np.unique(records.patient))
    told = f"{len(records):,} rows of {patients:,} patients, all readable"
    return green("data", told) if len(records) else red("data", "no rows", _DATA_OWNER)


def _labels(records: Records, task: Task) -> Iterator[CheckResult]:
    for label, positive, negative, unread in _counts(records.y, task):
        told = f"{label}: {positive} with, {negative} without"
        told += f", {unread} not read" if unread else ""
        if min(positive, negative) == 0:
            yield red("labels", told, f"{_DATA_OWNER}: a label that never changes teaches nothing")
        elif min(positive, negative) < _FEW:
            yield amber("labels", told, "too few to say much about this site alone")
        else:
            yield green("labels", told)


def _counts(y: np.ndarray, task: Task) -> Iterator[tuple[str, int, int, int]]:
    for k, label in enumerate(task.labels):
        column = y[:, 0] == k if task.name == "multiclass" else y[:, k]
        unread = int(np.isnan(column).sum()) if task.name != "multiclass" else 0
        positive = int((column == 1).sum())
        yield label, positive, len(y) - positive - unread, unread


def _splits(site: SiteFile, records: Records) -> CheckResult:
    if records.split is None:
        return green("splits", "none given; the experiment says how patients are split")
    counts = {split: len(np.unique(records.patient[records.split == split])) for split in SPLITS}
    told = ", ".join(f"{split} {number} patients" for split, number in counts.items())
    small = [split for split, number in counts.items() if number < site.min_patients]
    if small:
        return amber(
            "splits",
            told,
            f"below min_patients ({site.min_patients}): {', '.join(small)} will answer nothing",
        )
    return green("splits", told)


def _copies(records: Records) -> Iterator[CheckResult]:
    assert records.pixels is not None
    _, first, inverse = np.unique(records.pixels, return_index=True, return_inverse=True)
    other = records.patient != records.patient[first[inverse]]
    if other.any():
        rows = np.flatnonzero(other)
        yield amber(
            "copies",
            f"{len(rows)} images are those of another patient too (rows {_numbers(records, rows)})",
            f"{_DATA_OWNER}: one of the two names is wrong",
        )


def _odd(site: SiteFile, records: Records, likely: Sequence[Oddity]) -> Iterator[CheckResult]:
    """Yield what looks odd, as `fedrad check` says it of all sites, here of all images."""
    whole = records
    if whole.split is None:
        whole = replace(whole, split=np.full(len(whole), SPLITS[0]))
    odd = unaccepted(
        [*records.oddities, *likely, *odd_at_site(sites_of(whole)[site.name])], site.accept
    )
    for oddity in odd:
        yield amber(oddity.rule, oddity.found, f"{_DATA_OWNER}: {oddity.mend}")
    if not odd:
        yield green("what looks odd", "nothing: values, grey levels, orientation, polarity")


def _numbers(records: Records, rows: np.ndarray) -> str:
    shown = rows[:_SHOWN] + 1 if records.row is None else records.row[rows[:_SHOWN]]
    return ", ".join(map(str, shown)) + (", ..." if len(rows) > _SHOWN else "")
