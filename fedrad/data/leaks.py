"""The leak gate: no patient and no image where it would make a comparison untrue."""

from collections.abc import Sequence

import numpy as np

from fedrad.data.base import Records
from fedrad.errors import LeakError

__all__ = ["check"]

_SHOWN = 5


def check(records: Records, *, shared_patients: bool = False) -> None:
    """Refuse records in which a patient or an image stands on both sides of a comparison.

    Args:
        records: with sites and splits where the source has them.
        shared_patients: some patients are known to visit several sites. They may then stand at
            several sites, still in one split only.

    Raises:
        LeakError: a patient in two splits; one image (by its pixels) in two splits or at two
            sites; a patient at two sites, unless shared. It says how many, where, and up to
            five rows.

    >>> twice = Records(np.zeros((2, 1)), np.zeros((2, 1)), np.array([7, 7]),
    ...     np.array(["nord", "nord"]), np.array(["train", "test"]), None)
    >>> check(twice)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fedrad.errors.LeakError: 1 patient in two splits (nord: test, train; rows 1, 2): ...
    """
    n = len(records)
    site = np.full(n, "") if records.site is None else records.site
    split = np.full(n, "") if records.split is None else records.split
    # Without shared patients, equal numbers at two sites are told as that, not as two splits.
    whose = [records.patient] if shared_patients else [records.patient, site]
    _refuse(
        records, whose, split, "patient", "in two splits",
        "give all rows of a patient one split, or let fedrad draw the splits",
    )  # fmt: skip
    if not shared_patients:
        _refuse(
            records, [records.patient], site, "patient", "at two sites",
            "if numbers are each site's own, say so (patient_per_site); "
            "if these patients visit both, say shared_patients",
        )  # fmt: skip
    if records.pixels is not None:
        cure = "keep one of the copies"
        _refuse(records, [records.pixels], split, "image", "in two splits", cure)
        _refuse(records, [records.pixels], site, "image", "at two sites", cure)


def _refuse(
    records: Records, keys: Sequence[np.ndarray], over: np.ndarray, what: str, where: str, cure: str
) -> None:
    """Raise if rows that agree in the keys differ in `over`."""
    group, rows = _crossing(keys, over)
    if not len(rows):
        return
    number = len(np.unique(group[rows]))
    shown = rows[np.argsort(group[rows], kind="stable")][:_SHOWN]
    numbers = shown + 1 if records.row is None else records.row[shown]
    listed = ", ".join(map(str, numbers)) + (", ..." if len(rows) > _SHOWN else "")
    plural = "s" if number > 1 else ""
    places = _places(records, rows)
    raise LeakError(f"{number} {what}{plural} {where} ({places}; rows {listed}): {cure}")


def _crossing(keys: Sequence[np.ndarray], over: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's group by the keys, and the rows of groups with two values of `over`."""
    codes = np.stack([np.unique(key, return_inverse=True)[1] for key in keys])
    group = np.unique(codes, axis=1, return_inverse=True)[1].reshape(-1)
    value = np.unique(over, return_inverse=True)[1]
    low = np.full(len(group), len(group))
    high = np.full(len(group), -1)
    np.minimum.at(low, group, value)
    np.maximum.at(high, group, value)
    return group, np.flatnonzero((low < high)[group])


def _places(records: Records, rows: np.ndarray) -> str:
    """Say which sites and splits the rows stand at: "nord: test, train; west: train"."""
    sites = ["here"] * len(rows) if records.site is None else records.site[rows].tolist()
    splits = [""] * len(rows) if records.split is None else records.split[rows].tolist()
    found: dict[str, set[str]] = {}
    for site, split in zip(sites, splits, strict=True):
        found.setdefault(str(site), set()).add(str(split))
    return "; ".join(
        f"{site}: {', '.join(sorted(splits))}" if any(splits) else site
        for site, splits in sorted(found.items())
    )
